"""Reads the rows of a data set (JSONL, a JSON list, CSV or Parquet), each with its place for messages."""

import csv
import io
import json

from input_error import InputError

PARQUET_MAGIC = b"PAR1"
JSON_COLUMNS = ("messages", "conversations", "tools", "chat_template_kwargs")  # written as JSON where a cell is a text


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


def _decode(content, where):
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start}") from None


def _read_lines(path, content):
    rows = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        where = f"{path}:{number}"
        text = _decode(line, where)
        if text.strip():
            rows.append((where, _check_object(_parse(text, where), where)))
    return rows


def read_lines_of_text(path):
    """[(place, text)] of a file of lines, empty ones too, without their ends."""
    lines = path.read_bytes().split(b"\n")
    return [(f"{path}:{i}", _decode(line, f"{path}:{i}").rstrip("\r")) for i, line in enumerate(lines, start=1)]


def _read_list(path, content):
    text = _decode(content, path)
    try:
        rows = json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return [(f"{path}, row {i}", _check_object(row, f"{path}, row {i}")) for i, row in enumerate(rows)]


def _read_csv(path, content):
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(_decode(content, path), newline=""), strict=True)
    rows = []
    try:
        names = next(reader, [])
        if len(set(names)) != len(names) or not all(names):
            raise InputError(f"{path}:1: the first line must name each column once")
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(names):
                raise InputError(f"{where}: {len(cells)} cells for {len(names)} columns")
            rows.append((where, dict(zip(names, cells))))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    return rows


def _without_nulls(value):
    """Parquet has one set of keys for all rows: a key that a row lacks comes out as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _read_parquet(path):
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read: {error}") from None
    return [
        (f"{path}, row {i}", {name: _without_nulls(value) for name, value in row.items()}) for i, row in enumerate(rows)
    ]


def _parse_json_cells(where, fields):
    for name in JSON_COLUMNS:
        if isinstance(fields.get(name), str):
            fields[name] = _parse(fields[name], f'{where}: column "{name}"') if fields[name].strip() else None
    return where, fields


def _read_file(path):
    with open(path, "rb") as file:
        is_parquet = file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    if is_parquet or path.suffix == ".parquet":
        return _read_parquet(path)
    content = path.read_bytes()
    if path.suffix == ".csv":
        return _read_csv(path, content)
    is_list = content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return _read_list(path, content) if is_list else _read_lines(path, content)


def read_rows(path):
    """[(place, fields)] of a file; the kind follows from its name and its first bytes."""
    rows = [_parse_json_cells(where, fields) for where, fields in _read_file(path)]
    if not rows:
        raise InputError(f"{path}: holds no row")
    return rows
