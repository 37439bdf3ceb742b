"""Runs a program so that nothing which it started stays behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>


@contextlib.contextmanager
def process_tree(words: Sequence[str], **options) -> Iterator[subprocess.Popen]:
    """The process of `words`, started in a session of its own with nothing to read; at the end of the block it is ended, with
    its process group and, on Linux, with all its descendants, those in other sessions included. options: of subprocess.Popen.

    Errors: those of subprocess.Popen.
    """
    _adopt_orphans()
    older = _children()
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        while left := _children() - older:  # what they have left behind in turn comes to this process, too
            for process in left:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)


def _adopt_orphans() -> None:
    """Makes descendants whose parent has ended children of this process, where the system can do that."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> set[int]:
    """Children of this process, ended ones included; none where there is no /proc."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # has ended meanwhile
            parent = path.read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(path.parent.name))
    return found
