"""`gate history`: a stored baseline on the same machine, drift, and the figure."""

import json
import xml.etree.ElementTree as ElementTree

import pytest


@pytest.fixture
def add(tmp_path, compare, run_gate):
    """Adds a result whose candidate takes `time`, on `host`; returns (exit code, output)."""

    def run(time: float, *arguments: str, host: str = "one"):
        rows = lambda k: {"a": 100.0 if k < 0 else time}  # noqa: E731
        contexts = ({"host_name": host}, {"host_name": host})
        compare(rows, rows, "--json", str(tmp_path / "result.json"), contexts=contexts)
        code, out, err = run_gate("history", tmp_path / "h.jsonl", "--add", tmp_path / "result.json", "--label", "x<y", *arguments)
        return code, out + err

    return run


def test_a_result_is_compared_with_the_median_of_earlier_ones_of_its_machine(add, tmp_path):
    assert "first of this machine" in add(100.0)[1]
    for time in (101.0, 99.0):
        add(time)
    assert "+7.00 %" in add(107.0)[1]
    assert "first of this machine" in add(300.0, host="two")[1]
    assert len((tmp_path / "h.jsonl").read_text().splitlines()) == 5


def test_slow_drift_fails_where_a_limit_is_given(add):
    for time in (100.0, 101.0, 102.0):
        assert add(time, "--max-drift", "5")[0] == 0
    code, out = add(108.0, "--max-drift", "5")
    assert code == 1 and "FAIL: slower than the stored baseline by +6.93 %" in out


def test_the_figure_is_whole_and_holds_every_benchmark(add, tmp_path):
    add(100.0)
    add(110.0, "--figure", str(tmp_path / "trend.svg"))
    root = ElementTree.fromstring((tmp_path / "trend.svg").read_text())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a" in texts and "110.0 %" in texts and "x<y" in texts


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "gate-history/1", "values": {"a": 0}}', '{"values": {}}'])
def test_a_damaged_history_is_refused_by_line(run_gate, tmp_path, text):
    (tmp_path / "h.jsonl").write_text(text + "\n")
    code, _, err = run_gate("history", tmp_path / "h.jsonl")
    assert code == 2 and "line 1" in err and (tmp_path / "h.jsonl").read_text() == text + "\n"


@pytest.mark.parametrize("document", [{}, {"schema": "gate/1", "rows": [], "context": {}}, {"schema": "gate/1", "rows": 3}])
def test_what_is_no_result_is_not_added(run_gate, tmp_path, document):
    (tmp_path / "r.json").write_text(json.dumps(document))
    code, _, err = run_gate("history", tmp_path / "h.jsonl", "--add", tmp_path / "r.json")
    assert code == 2 and "r.json" in err and not (tmp_path / "h.jsonl").exists()
