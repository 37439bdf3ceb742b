"""Reading JSON that others wrote: every surprise becomes a ReportError that names the file and the key."""

import json
from pathlib import Path

from reports.errors import ReportError

LARGEST_FILE = 1 << 30  # bytes; a result file is far smaller, a mistaken path (a model) is not

# No time, rate or size is outside; inside, quotients and products of two of them stay finite.
SMALLEST, LARGEST = 1e-30, 1e30


def read_text(path: Path) -> str:
    """The file's text (UTF-8). Errors: not there, not readable, too large, not text."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ReportError(path, "larger than 1 GiB, so it is not a result file")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ReportError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ReportError(path, f"is not UTF-8 text (byte {error.start})") from error


def parse(text: str, path: Path, line: int | None = None):
    """The JSON value in `text`. Errors: malformed, with line and column."""
    try:
        return _printable(json.loads(text))
    except json.JSONDecodeError as error:
        where = f"line {line if line is not None else error.lineno}, column {error.colno}"
        raise ReportError(path, f"is not valid JSON: {error.msg} at {where}") from error
    except (RecursionError, ValueError) as error:
        raise ReportError(path, f"is not valid JSON: {str(error) or 'nested too deeply'}") from error


def member(table: dict, key: str, kind: type | tuple, path: Path, where: str = ""):
    """`table[key]`, which must be there and of `kind`."""
    at = f"{where}.{key}" if where else key
    if key not in table:
        raise ReportError(path, f"has no '{at}'")
    if not isinstance(table[key], kind) or isinstance(table[key], bool):
        raise ReportError(path, f"'{at}' is {describe(table[key])}, not {_kind_name(kind)}")
    return table[key]


def number(table: dict, key: str, path: Path, where: str = "") -> float:
    """`table[key]` as a number that `is_plausible`."""
    value = member(table, key, (int, float), path, where)
    if not is_plausible(value):
        raise ReportError(path, f"'{where + '.' if where else ''}{key}' is not zero or within 1e-30 to 1e30: {value}")
    return float(value)


def is_plausible(value) -> bool:
    """Whether `value` is a finite JSON number that a time, rate, size or loss can have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def as_text(value) -> str:
    """A scalar of a context as text; containers are not kept."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else ""


def describe(value) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _kind_name(kind) -> str:
    names = {dict: "an object", list: "a list", str: "text", int: "a whole number"}
    return names.get(kind, "a number")


def _printable(value):
    """`value` with every character in its texts that cannot be shown or encoded replaced."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value
