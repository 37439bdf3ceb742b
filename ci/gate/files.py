"""Writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from pathlib import Path

from .errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


def write_file(path: str | Path, text: str) -> None:
    """Replaces `path` by `text`: written beside and renamed; a device or pipe is written to. Errors: InputError naming the
    path, OSError for a full disk."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(beside, target)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            beside.unlink()
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise InputError(path, f"cannot be written: {error}", "choose another path") from None


def _remove_leftovers(target: Path) -> None:
    """Removes what gates that were killed left half-written beside `target`: files whose process is gone."""
    for found in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):
        process = found.name.rpartition("-")[2]
        if process.isdigit() and found.is_file() and not Path(f"/proc/{process}").exists():
            with contextlib.suppress(OSError):
                found.unlink()


def make_directory(path: str | Path) -> Path:
    """The directory `path`, created if absent. Errors: InputError naming the path."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be made a directory: {error}", "choose another path") from None
    return Path(path)
