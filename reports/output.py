"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import fcntl
import glob
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from reports.errors import OutOfSpace, ReportError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


def fewer_colours(png: bytes) -> bytes:
    """The same picture with 64 colours, which takes about a third of the bytes."""
    reduced = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(reduced, "png", optimize=True)
    return reduced.getvalue()


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Holds `directory` against other reports, whose files would mix with this one's. Makes it where it is not there, and
    removes it again where nothing was written into it.

    Errors: those of write(), and ReportError where another report holds it.
    """
    directory = Path(os.path.realpath(directory))
    is_new = not directory.exists()
    descriptor = _opened(directory)
    try:
        if not _locked(descriptor):
            raise ReportError(directory, "another report is being written to it; wait until it ends, or name another folder")
        try:
            yield
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # it is not empty
                    directory.rmdir()
    finally:
        os.close(descriptor)


def _opened(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _cannot_be_written(directory, error) from error


def _locked(descriptor: int) -> bool:
    """False where another process holds the lock; a file system without locks (NFS has none of directories) grants it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _cannot_be_written(path: Path, error: OSError) -> ReportError:
    kind = OutOfSpace if error.errno in FULL else ReportError
    return kind(path, f"cannot be written: {error.strerror or error}")


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
            with _open_locked(beside) as file:
                file.write(content)
                file.flush()
                os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def _open_locked(path: Path) -> BinaryIO:
    """Until it has the lock, a report that removes leftovers may take the file away: then another one is made."""
    while True:
        file = open(path, "wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _remove_leftovers(path: Path) -> None:
    """Half-written files for `path` that nobody holds the lock of."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        if not found.name.rpartition("-")[2].isdigit() or found.is_symlink() or not found.is_file():
            continue
        with contextlib.suppress(OSError), open(found, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.unlink()
