"""Instruction counts by the processor itself, through `perf stat`."""

from __future__ import annotations

import functools
import os
import shlex
import shutil

from .errors import InputError, one_line
from .tool import run_tool, tool_failure

EVENT = "instructions:u"


@functools.cache
def is_available() -> bool:
    """Whether this machine lets `perf stat` count instructions; virtual machines often do not."""
    if shutil.which("perf") is None:
        return False
    try:
        return count("true", "perf", 60.0) > 0
    except InputError:
        return False


def count(command: str, where: str, timeout: float) -> int:
    """Instructions of all processes of `command` outside of the kernel. where: named in messages.

    Errors: InputError if it cannot be started, fails, does not end in `timeout` seconds or cannot be counted.
    """
    words = ["perf", "stat", "-x", ",", "-e", EVENT, "--", *shlex.split(command)]
    what = f"'{command}' under perf stat"
    done = run_tool(words, where, what, os.environ | {"LC_ALL": "C"}, "", timeout)
    if done.returncode != 0:
        raise tool_failure(done, where, what)
    for line in done.stderr.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith("instructions") and fields[0].isdigit():
            return int(fields[0])
    raise InputError(where, f"perf stat gave no count: {one_line(done.stderr.strip(), 200)}")
