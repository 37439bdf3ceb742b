"""The exceptions of this package: bad input, and a disk that is full, told in a sentence that names the file."""

from pathlib import Path


class ReportError(Exception):
    """Bad input or usage. Says what is wrong, where (file, then key or line) and, if it is not plain, what to do."""

    def __init__(self, where: Path | str, what: str):
        super().__init__(f"{where}: {what}")


class OutOfSpace(ReportError):
    """The disk, or a limit on it, is full."""
