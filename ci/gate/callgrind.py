"""Instruction counts of a program or of one of its functions, by valgrind's callgrind."""

from __future__ import annotations

import fnmatch
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, one_line
from .tool import run_tool, tool_failure

NAME = re.compile(r"^(c?fn)=\((\d+)\)(?: (.*))?$")
REMEDY = "install valgrind (Debian: apt-get install valgrind)"


@dataclass(frozen=True)
class Profile:
    """What callgrind counted. total: instructions of the whole run. calls: caller, callee, calls, instructions inside."""

    total: int
    calls: tuple[tuple[str, str, int, int], ...]

    def per_call(self, pattern: str) -> int | None:
        """Instructions of one call of the functions whose demangled name matches the shell `pattern`, callees included,
        rounded; None if no call was seen. A call from a matching function to another counts in the outer one only."""
        count = cost = 0
        for caller, callee, calls, inclusive in self.calls:
            if fnmatch.fnmatchcase(callee, pattern) and not fnmatch.fnmatchcase(caller, pattern):
                count, cost = count + calls, cost + inclusive
        return round(cost / count) if count else None


def environment() -> dict[str, str]:
    """What counts depend on besides the program. Errors: InputError if valgrind is not installed."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise InputError("valgrind", "is not installed, so nothing was counted", REMEDY)
    version = subprocess.run([valgrind, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {"valgrind": version, "machine": platform.machine()}


def profile(command: str, variables: Mapping[str, str], where: str, timeout: float) -> Profile:
    """Runs `command` under callgrind, with `variables` added to the environment. where: named in messages.

    Errors: InputError if the program cannot be started, fails or does not end in `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="gate-") as directory:
        output = Path(directory) / "callgrind.out"
        words = [
            "valgrind",
            "--tool=callgrind",
            "--error-exitcode=0",
            f"--callgrind-out-file={output}",
            *_split(command, where),
        ]
        what = f"'{command}' under callgrind"
        done = run_tool(words, where, what, os.environ | dict(variables), REMEDY, timeout)
        if done.returncode != 0 or not output.exists():
            raise tool_failure(done, where, what)
        return parse(output.read_text(encoding="utf-8", errors="replace"), where)


def parse(text: str, where: str) -> Profile:
    """Reads callgrind's output format, version 1, with name compression. Errors: InputError if it is not that."""
    names: dict[str, str] = {}
    calls: list[tuple[str, str, int, int]] = []
    total: int | None = None
    function = callee = ""
    positions, pending = 1, 0
    try:
        for line in text.splitlines():
            found = NAME.match(line)
            if found:
                kind, number, name = found.groups()
                name = names.setdefault(number, name) if name is not None else names[number]
                function, callee = (name, callee) if kind == "fn" else (function, name)
            elif line.startswith("positions:"):
                positions = len(line.split()) - 1
            elif line.startswith(("summary:", "totals:")):
                total = int(line.split()[1])
            elif line.startswith("calls="):
                pending = int(line[len("calls=") :].split()[0])
            elif pending:
                calls.append((function, callee, pending, int(line.split()[positions])))
                pending = 0
    except (ValueError, IndexError, KeyError):
        raise InputError(where, f"callgrind wrote a line that is not understood: {one_line(line, 80)}") from None
    if total is None:
        raise InputError(where, "callgrind wrote no total, so the run is not complete")
    return Profile(total, tuple(calls))


def _split(command: str, where: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(where, f"command cannot be split into words: {error}", "check the quotes") from None
    if not words:
        raise InputError(where, "command is empty")
    if shutil.which(words[0]) is None:
        raise InputError(where, f"no program '{words[0]}'", "build it first")
    return words
