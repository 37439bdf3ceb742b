"""prepared_file.py: what is written is read again, the same bytes each time, and a file that was changed is refused."""

import fcntl
import os
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


def test_a_half_written_file_that_another_process_removed_is_made_again(tmp_path, monkeypatch):
    lock = fcntl.flock

    def remove_then_lock(file, operation):
        monkeypatch.undo()
        os.unlink(file.name)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_then_lock)
    write_prepared(tmp_path / "rows.safetensors", columns(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.safetensors"] and is_whole(tmp_path / "rows.safetensors")


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "rows.safetensors"
    write_prepared(path, columns(), [])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not is_whole(path)
    with pytest.raises(InputError, match="checksum"):
        read_prepared(path)


def test_every_changed_byte_of_the_header_is_noticed(tmp_path):
    path = tmp_path / "rows.safetensors"
    write_prepared(path, columns(), [])
    good = path.read_bytes()
    for place in range(8 + int.from_bytes(good[:8], "little")):
        for bit in range(8):
            path.write_bytes(good[:place] + bytes([good[place] ^ (1 << bit)]) + good[place + 1 :])
            assert not is_whole(path), f"bit {bit} of byte {place}"


def test_a_file_of_somebody_else_needs_no_checksum(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "rows.safetensors"
    write_prepared(path, columns(), [])
    ids, labels, offsets, _ = read_prepared(path)
    save_file({"input_ids": ids, "labels": labels, "offsets": offsets}, path)
    assert read_prepared(path)[0].tolist() == [1, 2, 3, 4] and not is_whole(path)
