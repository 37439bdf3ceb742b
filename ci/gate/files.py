"""Writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .errors import InputError


def write_file(path: str | Path, text: str) -> None:
    """Replaces `path` by `text`: written beside and renamed; a device or pipe is written to. Errors: InputError naming the
    path."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(beside, target)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            beside.unlink()
        raise InputError(path, f"cannot be written: {error}", "choose another path") from None


def make_directory(path: str | Path) -> Path:
    """The directory `path`, created if absent. Errors: InputError naming the path."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be made a directory: {error}", "choose another path") from None
    return Path(path)
