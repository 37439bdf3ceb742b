"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import fcntl
import glob
import io
import os
from pathlib import Path

from PIL import Image

from reports.errors import OutOfSpace, ReportError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fewer_colours(png: bytes) -> bytes:
    """The same picture with 64 colours, which takes about a third of the bytes."""
    reduced = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(reduced, "png", optimize=True)
    return reduced.getvalue()


def write(path: Path, content: bytes) -> None:
    """Writes beside `path`, as .<name>.tmp-<process id>, and renames; what a killed report left there goes first. Where a
    symbolic link leads, though nothing be there yet, it writes there.

    Errors: ReportError naming the path; OutOfSpace where the disk is full.
    """
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise ReportError(path, "is there and is no regular file, and is not replaced")
        _remove_leftovers(path)
        try:
            with open(beside, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(content)
                file.flush()
                os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        kind = OutOfSpace if error.errno in FULL else ReportError
        raise kind(path, f"cannot be written: {error.strerror or error}") from error


def _remove_leftovers(path: Path) -> None:
    """Half-written files for `path` that nobody holds the lock of."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        if not found.name.rpartition("-")[2].isdigit() or found.is_symlink() or not found.is_file():
            continue
        with contextlib.suppress(OSError), open(found, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.unlink()
