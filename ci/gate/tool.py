"""Runs a tool that tells something about a program: valgrind, cuobjdump."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from .errors import InputError, one_line
from .process_tree import process_tree


def run_tool(
    words: Sequence[str],
    where: str,
    what: str,
    variables: Mapping[str, str],
    remedy: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `words` with nothing to read, in the environment `variables`; what it leaves behind is ended. where, what: named in
    messages.

    Errors: InputError if it cannot be started (with `remedy`) or does not end in `timeout` seconds.
    """
    with ExitStack() as stack:
        # Files: a pipe would stay open for as long as some process holds it that the tool has left behind.
        output, messages = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        try:
            child = stack.enter_context(process_tree(words, stdout=output, stderr=messages, env=variables))
        except (OSError, ValueError) as error:
            raise InputError(where, f"cannot start {words[0]}: {error}", remedy) from None
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise InputError(where, f"{what} did not finish in {timeout:g} s") from None
        return subprocess.CompletedProcess(words, status, _text(output), _text(messages))


def _text(file) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def tool_failure(done: subprocess.CompletedProcess[str], where: str, what: str, remedy: str = "") -> InputError:
    """The error of a tool that ended badly, with the last lines of what it said."""
    said = one_line(" | ".join((done.stderr or done.stdout).strip().splitlines()[-3:]))
    return InputError(where, f"{what} ended with status {done.returncode}: {said}", remedy)
