"""Reads the rows of a data set, each with its place for messages."""

import json

from row_formats import InputError


def _reject_constant(name):
    raise ValueError(f"{name} is not JSON")


def _parse(text, where):
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None


def _check_object(row, where):
    if not isinstance(row, dict):
        raise InputError(f'{where}: expected an object such as {{"prompt": ..., "completion": ...}}')
    return row


def _read_lines(path, content):
    rows = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        where = f"{path}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 at byte {error.start}") from None
        if text.strip():
            rows.append((where, _check_object(_parse(text, where), where)))
    return rows


def _read_list(path, content):
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        rows = json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return [(f"{path}, row {i}", _check_object(row, f"{path}, row {i}")) for i, row in enumerate(rows)]


def read_rows(path):
    """[(place, fields)] of a JSONL file, or of a file that holds one JSON list."""
    content = path.read_bytes()
    is_list = content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    rows = _read_list(path, content) if is_list else _read_lines(path, content)
    if not rows:
        raise InputError(f"{path}: holds no row")
    return rows
