"""Bad input of every kind: exit code 2 and the file's name, never a traceback, and nothing written."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reports.__main__ import main
from reports.caption import provenance
from reports.errors import ReportError
from reports.figures import FIGURES
from reports.loading import load
from reports.output import claimed, write
from reports.style import Palette, frame
from reports.tests.conftest import DATA

ROOT = Path(__file__).resolve().parents[2]
FILES = ("gpu.json", "cpu.json", "gate.json", "layout.json", "adapter_r16/metrics.jsonl")


def report_of(path, folder, capsys) -> tuple[int, str]:
    """Exit code and standard error; SystemExit is what argparse raises."""
    status = main([str(path), "--output", str(folder)])
    return status, capsys.readouterr().err


def assert_refused(path, tmp_path, capsys, *words):
    status, error = report_of(path, tmp_path / "report", capsys)
    assert status == 2
    assert str(path) in error and "Traceback" not in error
    for word in words:
        assert word in error
    assert not (tmp_path / "report").exists()


def test_missing_file(tmp_path, capsys):
    assert_refused(tmp_path / "nowhere.json", tmp_path, capsys, "No such file")


def test_folder_without_results(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", tmp_path, capsys, "holds no result file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"a": 1}',
        b"\xff\xfe\x00",
        b"\x00" * 64,
        b"[" * 100000,
        b"1" * 5000,
        b'{"context": {}, "benchmarks": {}}',
        b'{"context": [], "benchmarks": []}',
        b'{"context": {}, "benchmarks": [1]}',
        b'{"context": {}, "benchmarks": [{"name": 1}]}',
        b'{"context": {}, "benchmarks": [{"name": "a"}]}',
        b'{"context": {}, "benchmarks": [{"name": "a", "real_time": NaN}]}',
        b'{"context": {}, "benchmarks": [{"name": "a", "real_time": -1}]}',
        b'{"context": {}, "benchmarks": [{"name": "a", "real_time": 1e999}]}',
        b'{"context": {}, "benchmarks": [{"name": "a", "real_time": true}]}',
        b'{"context": {}, "benchmarks": [{"name": "a", "real_time": 1, "time_unit": "weeks"}]}',
        b'{"context": {}, "benchmarks": [{"name": "a", "real_time": 1, "time_unit": []}]}',
        b'{"schema": "gate/2", "verdict": "PASS", "rows": []}',
        b'{"schema": "gate/1"}',
        b'{"schema": "gate/1", "verdict": "PASS", "rows": [{"name": "a", "outcome": "PASS", "estimate": {"low": 0}}]}',
        b'{"world_size": 2, "ranks": [{"rank": 0, "bytes": {"codes": 1}}]}',
        b'{"world_size": 1, "ranks": [{"rank": 0}]}',
        b'{"world_size": 1, "ranks": [{"rank": 0, "bytes": {"codes": -1}}]}',
        b'{"world_size": 1, "ranks": [{"rank": 0, "bytes": {}}]}',
    ],
)
def test_malformed_document(content, tmp_path, capsys):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    assert_refused(path, tmp_path, capsys)


@pytest.mark.parametrize(
    "content",
    ["", "\n", "{", "[]", '{"step": 1}', '{"loss": 1}', '{"step": 1, "loss": "low"}', '{"step": null, "loss": 1}'],
)
def test_malformed_metrics(content, tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    assert_refused(path, tmp_path, capsys)


def test_error_names_the_line_of_metrics(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert_refused(path, tmp_path, capsys, "line 2")


def test_one_bad_file_among_good_ones_is_named(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("{")
    status = main([str(DATA / "cpu.json"), str(tmp_path / "bad.json"), "--output", str(tmp_path / "report")])
    assert status == 2 and str(tmp_path / "bad.json") in capsys.readouterr().err


def test_one_broken_file_in_a_folder_is_listed_and_the_report_goes_on(tmp_path, capsys):
    (tmp_path / "bad.json").write_text('{"context": {}, "benchmarks": [1]}')
    (tmp_path / "layout.json").write_text((DATA / "layout.json").read_text())
    status, error = report_of(tmp_path, tmp_path / "report", capsys)
    assert status == 0 and f"left out: {tmp_path / 'bad.json'}" in error
    page = (tmp_path / "report" / "report.md").read_text()
    assert "## Memory by rank" in page and "bad.json" in page.replace("\\", "")


def test_a_folder_of_broken_files_alone_is_refused(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("{")
    assert_refused(tmp_path, tmp_path, capsys, "holds no result file", "bad.json")


def test_other_json_in_a_folder_is_listed_not_refused(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text('{"r": 16}')
    (tmp_path / "layout.json").write_text((DATA / "layout.json").read_text())
    status, _ = report_of(tmp_path, tmp_path / "report", capsys)
    assert status == 0
    assert "not a result file" in (tmp_path / "report" / "report.md").read_text()


def test_file_in_which_every_benchmark_failed(tmp_path, capsys):
    """Nothing can be drawn of it, and the page says why."""
    row = {"name": "a/provider:b", "error_occurred": True, "error_message": "no device", "real_time": 0}
    (tmp_path / "failed.json").write_text(json.dumps({"context": {}, "benchmarks": [row]}))
    status, _ = report_of(tmp_path / "failed.json", tmp_path / "report", capsys)
    assert status == 0
    assert "a/provider:b: reported an error: no device" in (tmp_path / "report" / "report.md").read_text()


def test_diverged_training_is_drawn_and_named(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": null}\n{"step": 3, "loss": NaN}\n'
    )
    status, _ = report_of(tmp_path / "metrics.jsonl", tmp_path / "report", capsys)
    assert status == 0
    assert "diverged: its loss is not a number at step 2" in (tmp_path / "report" / "report.md").read_text()


def test_throttled_repetitions_are_left_out_and_listed(tmp_path):
    rows = [{"name": "a", "real_time": 1 + i, "repetition_index": i, "throttled": float(i == 2)} for i in range(3)]
    (tmp_path / "hot.json").write_text(json.dumps({"context": {}, "benchmarks": rows}))
    (session,) = load([tmp_path / "hot.json"]).sessions
    assert session.benchmarks[0].seconds == pytest.approx([1e-9, 2e-9])
    assert session.omitted == ["a: repetition 2 ran while the device was throttled"]


def test_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    status, error = report_of(DATA / "layout.json", tmp_path / "file", capsys)
    assert status == 2 and str(tmp_path / "file") in error
    assert (tmp_path / "file").read_text() == "in the way"


def test_output_behind_a_link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "place")
    write(tmp_path / "link/figures/a.svg", b"picture")
    assert (tmp_path / "place/figures/a.svg").read_bytes() == b"picture"
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_another_report_holds(tmp_path, capsys):
    (tmp_path / "report").mkdir()
    with claimed(tmp_path / "report"):
        status, error = report_of(DATA / "layout.json", tmp_path / "report", capsys)
    assert status == 2 and str(tmp_path / "report") in error and "another report" in error
    assert not list((tmp_path / "report").iterdir())


def test_of_two_reports_at_once_the_first_is_whole_and_the_other_says_so(tmp_path):
    """The first one is stopped while it draws."""
    words = [sys.executable, "-m", "reports", str(DATA / "layout.json"), "--small", "--output", str(tmp_path / "report")]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as first:
        while "drawing" not in first.stderr.readline():
            pass
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        first.send_signal(signal.SIGCONT)
        first.stderr.read()
    assert second.returncode == 2 and "another report" in second.stderr
    assert first.returncode == 0
    assert main([str(DATA / "layout.json"), "--small", "--output", str(tmp_path / "alone")]) == 0
    assert files_of(tmp_path / "report") == files_of(tmp_path / "alone")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "report"):
        raise KeyboardInterrupt
    assert not (tmp_path / "report").exists()


def test_a_half_written_file_that_another_report_removed_is_made_again(tmp_path, monkeypatch):
    lock = fcntl.flock

    def remove_then_lock(file, operation):
        monkeypatch.undo()
        os.unlink(file.name)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_then_lock)
    write(tmp_path / "a.svg", b"picture")
    assert files_of(tmp_path) == {"a.svg": b"picture"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path, capsys):
    path = tmp_path / "secret.json"
    path.write_text("{}")
    path.chmod(0)
    assert_refused(path, tmp_path, capsys)


def load_only(path) -> None:
    """Loads `path`; nothing but ReportError may be raised."""
    try:
        load([path])
    except ReportError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("name", FILES)
def test_truncated_files(name, tmp_path):
    """Cut at 200 places; a cut metrics.jsonl may still be whole lines, and is then read."""
    content = (DATA / name).read_bytes()
    path = tmp_path / name.replace("/", "_")
    for step in range(200):
        path.write_bytes(content[: len(content) * step // 200])
        load_only(path)


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes(name, tmp_path):
    """A few bytes changed at random, 300 times; the seed is fixed, so a failure repeats."""
    content = (DATA / name).read_bytes()[:20000] if name.endswith("l") else (DATA / name).read_bytes()
    path = tmp_path / name.replace("/", "_")
    chance = random.Random(11)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b'"{}[]:,0-9eE.\\\xff\x00n')
        path.write_bytes(damaged)
        load_only(path)


VALUES = [None, True, -1, 0, 1, 1e-300, 1e300, 10**400, float("nan"), "", "text", "\ud800", [], {}, [[]], {"a": {}}]


def nodes(value, found: list):
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.append((value, key))
        nodes(item, found)
    return found


@pytest.mark.parametrize("name", ["cpu.json", "gate.json", "layout.json"])
def test_valid_json_with_surprising_values(name, tmp_path):
    """Any two members replaced by any values: refused with the file's name, or every figure is drawn."""
    text = (DATA / name).read_text()
    path = tmp_path / name
    chance = random.Random(13)
    for _ in range(25):
        document = json.loads(text)
        for container, key in chance.sample(nodes(document, []), 2):
            container[key] = chance.choice(VALUES)
        path.write_text(json.dumps(document))
        try:
            draw_all(load([path]))
        except ReportError as error:
            assert str(path) in str(error)


def draw_all(results) -> None:
    """Draws what depends on the results, without the time that writing PNG takes."""
    palette = Palette(results.providers())
    for kind in FIGURES:
        for subject in kind.subjects(results) if not kind.needs.startswith("nothing") else ():
            drawing = kind.draw(subject, palette)
            if drawing:
                frame(drawing.figure, drawing.title, provenance([drawing.contexts]).caption(drawing.contexts))
                drawing.figure.draw_without_rendering()


@pytest.mark.parametrize("change", [{"lane": 3}, {"layer": "0"}, {"end": -1.0}, {"begin": 9.0}, {"begin": None}])
def test_time_lines_that_cannot_be_drawn(tmp_path, capsys, change):
    document = json.loads((DATA / "layout.json").read_text())
    document["step"]["timeline"][1] |= change
    (tmp_path / "layout.json").write_text(json.dumps(document))
    assert_refused(tmp_path / "layout.json", tmp_path, capsys, "step.timeline[1]")


@pytest.mark.parametrize(
    ("key", "change"),
    [("knobs", {"gain": "much"}), ("knobs", {"change": 3}), ("memory", {"at": -1}), ("memory", {"gathered_bytes": None})],
)
def test_knobs_and_memory_that_cannot_be_drawn(tmp_path, capsys, key, change):
    document = json.loads((DATA / "layout.json").read_text())
    document["step"][key][1] |= change
    (tmp_path / "layout.json").write_text(json.dumps(document))
    assert_refused(tmp_path / "layout.json", tmp_path, capsys, f"step.{key}[1]")


@pytest.mark.parametrize("change", [{"same_as": 5}, {"same_as": -1}, {"messages": -1}, {"storage": 4}, {"held_bytes": None}])
def test_layouts_that_cannot_be_compared(tmp_path, capsys, change):
    document = json.loads((DATA / "layout.json").read_text())
    document["layouts"][2] |= change
    (tmp_path / "layout.json").write_text(json.dumps(document))
    assert_refused(tmp_path / "layout.json", tmp_path, capsys, "layouts[2]")


@pytest.mark.parametrize("megabytes", [60, 90, 150])
def test_too_little_address_space_is_exit_code_3_and_not_a_wait_or_a_traceback(megabytes):
    words = ["prlimit", f"--as={megabytes << 20}", sys.executable, "-m", "reports", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and done.stdout == "" and done.stderr.count("\n") == 1 and "ulimit -v" in done.stderr


@pytest.mark.parametrize("files", [5, 6])
def test_too_few_open_files_are_exit_code_3(files, tmp_path):
    """Or enough, where the libraries need less."""
    words = ["prlimit", f"--nofile={files}", sys.executable, "-m", "reports", str(DATA / "layout.json"), "--small"]
    done = subprocess.run([*words, "--output", tmp_path / "report"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 3) and "Traceback" not in done.stderr
    assert done.returncode == 0 or "Too many open files" in done.stderr
