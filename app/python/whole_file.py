"""Writes a file of the cache whole or not at all, and removes what a killed process left half-written.

The rules are those of core/base/atomic_file.h: written beside as <name>.tmp-<process id> under a lock, then renamed.
"""

import contextlib
import fcntl
import os
import re

# What prepare names its files: the input's stem, a key of 32 hexadecimal digits, the process.
TEMPORARY = re.compile(r".+-[0-9a-f]{32}\.safetensors\.tmp-[0-9]+")


def replace_file(path, content):
    """Errors: OSError whose filename is `path`."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with _open_locked(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _open_locked(path):
    """Until it has the lock, a process that removes leftovers may take the file away: then another one is made."""
    while True:
        file = open(path, "wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def remove_leftovers(directory):
    """Removes half-written files that nobody holds the lock of."""
    for path in directory.iterdir():
        if not TEMPORARY.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
