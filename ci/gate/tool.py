"""Runs a tool that tells something about a program: valgrind, cuobjdump."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from .errors import InputError, one_line


def run_tool(
    words: Sequence[str],
    where: str,
    what: str,
    variables: Mapping[str, str],
    remedy: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `words` with nothing to read, in the environment `variables`. where, what: named in messages.

    Errors: InputError if it cannot be started (with `remedy`) or does not end in `timeout` seconds.
    """
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=variables,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(where, f"{what} did not finish in {timeout:g} s") from None
    except (OSError, ValueError) as error:
        raise InputError(where, f"cannot start {words[0]}: {error}", remedy) from None


def tool_failure(done: subprocess.CompletedProcess[str], where: str, what: str, remedy: str = "") -> InputError:
    """The error of a tool that ended badly, with the last lines of what it said."""
    said = one_line(" | ".join((done.stderr or done.stdout).strip().splitlines()[-3:]))
    return InputError(where, f"{what} ended with status {done.returncode}: {said}", remedy)
