"""prepared_file.py: what is written is read again, the same bytes each time, and a file that was changed is refused."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from input_error import InputError  # noqa: E402
from prepared_file import Columns, is_whole, read_prepared, write_prepared  # noqa: E402


def columns():
    result = Columns()
    result.append([1, 2, 3], [-100, 2, 3])
    result.append([4], [4])
    return result


def test_the_same_rows_give_the_same_bytes(tmp_path):
    written = set()
    for i in range(20):
        write_prepared(tmp_path / f"{i}.safetensors", columns(), ["a note"])
        written.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(written) == 1


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "rows.safetensors"
    write_prepared(path, columns(), ["a note"])
    ids, labels, offsets, notes = read_prepared(path)
    assert (ids.tolist(), labels.tolist()) == ([1, 2, 3, 4], [-100, 2, 3, 4])
    assert (offsets.tolist(), notes, is_whole(path)) == ([0, 3, 4], ["a note"], True)


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "rows.safetensors"
    write_prepared(path, columns(), [])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not is_whole(path)
    with pytest.raises(InputError, match="checksum"):
        read_prepared(path)
