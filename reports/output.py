"""Writing files so that a reader never sees half of one."""

import io
import os
import tempfile
from pathlib import Path

from PIL import Image

from reports.errors import ReportError


def fewer_colours(png: bytes) -> bytes:
    """The same picture with 64 colours, which takes about a third of the bytes."""
    reduced = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(reduced, "png", optimize=True)
    return reduced.getvalue()


def write(path: Path, content: bytes) -> None:
    """Writes beside `path` and renames. Errors: ReportError naming the path."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise ReportError(path, f"cannot be written: {error.strerror or error}") from error
