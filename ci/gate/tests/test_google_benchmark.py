"""Reading of Google Benchmark's JSON."""

import json

import pytest

from gate.errors import InputError
from gate.google_benchmark import CounterRule, ReadOptions, read_process


def test_a_real_result(recorded):
    process = read_process(recorded, ReadOptions())
    assert list(process.rows) == ["BM_ok/64", "BM_ok/1024", "BM_err"]
    assert process.rows["BM_ok/64"].times == (229.7096241558576, 228.45959554614328, 227.32155176682846)
    assert process.rows["BM_ok/64"].unit == "ns"
    assert process.rows["BM_err"].error == "wrong result: 3 of 5 differ" and process.rows["BM_err"].times == ()
    assert process.context["library_build_type"] == "debug"


def test_the_metric_can_be_processor_time(recorded):
    assert read_process(recorded, ReadOptions(metric="cpu_time")).rows["BM_ok/64"].times[0] == 229.54916706174697


def test_only_aggregates_give_their_median(recorded, tmp_path):
    document = json.loads(recorded.read_text())
    document["benchmarks"] = [e for e in document["benchmarks"] if e["run_type"] == "aggregate"]
    path = tmp_path / "aggregates.json"
    path.write_text(json.dumps(document))
    assert read_process(path, ReadOptions()).rows["BM_ok/64"].times == (228.45959554614331,)


def test_throttled_repetitions_are_left_out_and_counted(write_result):
    entries = {"a": {"real_time": 5.0, "throttled": 1.0}, "b": 5.0}
    rows = read_process(write_result("x", entries), ReadOptions()).rows
    assert rows["a"].times == () and rows["a"].throttled == 1 and rows["b"].times == (5.0,)
    whole = read_process(write_result("y", {"b": 5.0}, {"throttled": "true"}), ReadOptions()).rows
    assert whole["b"].times == () and whole["b"].throttled == 1
    assert read_process(write_result("z", {"b": 5.0}, {"throttled": "0"}), ReadOptions()).rows["b"].times == (5.0,)


def test_skips_errors_and_empty_measurements(write_result):
    rows = read_process(
        write_result(
            "x",
            {
                "new skip": {"skipped": True, "skip_message": "no GPU"},
                "old skip": {"error_occurred": True, "error_message": "skipped: no GPU"},
                "error": {"error_occurred": True, "error_message": "out of memory"},
                "empty": {"real_time": 0.0},
            },
        ),
        ReadOptions(),
    ).rows
    assert rows["new skip"].skip == "no GPU" and rows["old skip"].skip == "skipped: no GPU"
    assert rows["error"].error == "out of memory" and rows["error"].skip is None
    assert "nothing was measured" in rows["empty"].invalid and rows["empty"].error is None


@pytest.mark.parametrize(
    "value, said",
    [
        ('"1"', "not a number"),
        ("true", "not a number"),
        ("NaN", "is NaN, not a number"),
        ("-1", "not a time"),
        ("1e999", "not a time"),
        ("1" + "0" * 400, "not a time"),
        ("5e-324", "not a time"),
        ("1e-30", "not a time"),
        ("0", "nothing was measured"),
    ],
)
def test_one_impossible_time_makes_its_row_alone_invalid(tmp_path, value, said):
    path = tmp_path / "x.json"
    entry = '{{"name": "{}", "real_time": {}, "cpu_time": 3, "time_unit": "ns"}}'
    path.write_text('{"benchmarks": [' + entry.format("a", value) + ", " + entry.format("b", 4) + "]}")
    rows = read_process(path, ReadOptions()).rows
    assert said in rows["a"].invalid and rows["a"].times == () and rows["b"].times == (4.0,)


def test_counters_become_rows(write_result):
    rules = (CounterRule("a*", "items", "up"), CounterRule("*", "bytes", "down"), CounterRule("a*", "items", "down"))
    entries = {"a": {"real_time": 5.0, "items": 70.0, "bytes": 3.0}, "b": {"real_time": 5.0, "items": 70.0, "bytes": -1}}
    rows = read_process(write_result("x", entries), ReadOptions(counters=rules)).rows
    assert list(rows) == ["a", "a [items]", "a [bytes]", "b", "b [bytes]"]
    assert rows["a [items]"].better == "up" and rows["a [items]"].times == (70.0,) and rows["a [items]"].benchmark == "a"
    assert "not a positive number" in rows["b [bytes]"].invalid


def test_fitted_curves_are_no_benchmarks(write_result):
    rows = read_process(
        write_result(
            "x",
            {
                "a": 1.0,
                "fit": {"run_type": "aggregate", "aggregate_name": "BigO", "cpu_coefficient": 1.0},
            },
        ),
        ReadOptions(),
    ).rows
    assert list(rows) == ["a"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is not complete JSON"),
        ("{", "is not complete JSON"),
        ("[1]", "is not a JSON object"),
        ("{}", "no list 'benchmarks'"),
        ('{"benchmarks": []}', "holds no benchmark"),
        ('{"context": 3, "benchmarks": [{}]}', "'context' is not an object"),
        ('{"benchmarks": [3]}', "benchmarks[0] is not an object"),
        ('{"benchmarks": [{"name": 7}]}', "benchmarks[0] has no name"),
        ('{"benchmarks": [{"name": "a", "real_time": 1.0}]}', "time_unit is missing"),
        ('{"benchmarks": [{"name": "a", "real_time": 1.0, "time_unit": ["ns"]}]}', "time_unit is not text"),
        ('{"benchmarks": [{"name": "a", "real_time": 1.0, "time_unit": "h"}]}', "unknown time_unit 'h'"),
        ('{"context": {"dry_run": "true"}, "benchmarks": [{"name": "a", "real_time": 1, "time_unit": "ns"}]}', "dry run"),
        ('{"benchmarks": [{"name": "a", "real_time": 1' + "0" * 5000 + ', "time_unit": "ns"}]}', "is not usable JSON"),
        ("[" * 100000, "is not usable JSON"),
        (
            '{"benchmarks": [{"name": "a", "real_time": 1, "time_unit": "ns"}, {"name": "a", "real_time": 1, "time_unit": "ns"}]}',
            "two benchmarks have this name",
        ),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, text, said):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_process(path, ReadOptions())
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_none(tmp_path):
    path = tmp_path / "bytes.json"
    path.write_bytes(b'{"benchmarks": "\xff\xfe"}')
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_process(path, ReadOptions())
    with pytest.raises(InputError, match="cannot be read"):
        read_process(tmp_path / "absent.json", ReadOptions())
    with pytest.raises(InputError, match="cannot be read"):
        read_process(tmp_path, ReadOptions())
