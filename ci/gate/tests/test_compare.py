"""`gate compare` from files to exit codes: verdicts, and everything that must never be silent."""

import json
import re

import pytest

WOBBLE = [0.0, 0.004, -0.003, 0.002, -0.004, 0.001, 0.003, -0.001, 0.002, -0.002, 0.004, -0.003]


def rows(factor=1.0, **others):
    """Round -> rows with a little scatter; `factor` slows down the benchmark `heavy`."""
    return lambda k: {
        "light": 100 * (1 + WOBBLE[k % 12]),
        "heavy": 1000 * factor * (1 - WOBBLE[(k + 5) % 12]),
        **others,
    }


def test_the_same_passes(compare):
    code, out, err = compare(rows(), rows())
    assert code == 0 and "PASS: 2 PASS" in out and err == ""


def test_a_slowdown_fails_and_is_named(compare):
    code, out, _ = compare(rows(), rows(1.10))
    assert code == 1 and "FAIL: 1 FAIL, 1 PASS" in out
    line = next(line for line in out.splitlines() if line.startswith("heavy"))
    assert line.endswith("FAIL") and "+10.0" in line


def test_a_speedup_is_faster_and_does_not_fail(compare):
    code, out, _ = compare(rows(), rows(0.5))
    assert code == 0 and "-50.0" in out and "PASS: 1 FASTER, 1 PASS" in out
    assert compare(rows(), rows(0.5), "--strict")[0] == 0


def test_a_pass_says_what_it_could_hide(compare):
    _, out, _ = compare(rows(), rows())
    line = next(line for line in out.splitlines() if line.startswith("light"))
    assert "[" in line and re.search(r"\+0\.\d\d %", line)


def test_a_largest_slowdown_fails_only_above_and_passes_only_below(compare):
    """The interval of the row is about 1 % wide around 4 %."""
    assert compare(rows(), rows(1.04))[0] == 1
    assert compare(rows(), rows(1.04), "--max-slowdown", "6", "--strict")[0] == 0
    assert compare(rows(), rows(1.04), "--max-slowdown", "4", "--strict")[0] == 5
    assert compare(rows(), rows(1.04), "--max-slowdown", "3", "--strict")[0] == 1


def test_300_regressions_are_still_exit_code_1(compare):
    many = {f"row {k}": 100.0 for k in range(300)}
    code, out, _ = compare(lambda k: many, lambda k: {name: 2 * time for name, time in many.items()}, rounds=8)
    assert code == 1 and "300 FAIL" in out


def test_a_straddling_interval_is_unsure(compare):
    noisy = [0.95, 1.05, 1.0, 1.08, 0.97, 1.02, 1.06, 0.94, 1.03, 1.01, 0.99, 1.07]
    candidate = lambda k: {"light": 100.0 * noisy[k] ** 1.5}  # noqa: E731
    base = lambda k: {"light": 100.0}  # noqa: E731
    assert compare(base, candidate)[0] == 0
    code, out, _ = compare(base, candidate, "--strict")
    assert code == 5 and "UNSURE: 1 UNSURE" in out


def test_fewer_rounds_than_the_confidence_needs_are_unsure_even_for_a_huge_slowdown(compare):
    code, out, _ = compare(rows(), rows(2.0), "--strict", rounds=7)
    assert code == 5 and "7 rounds; a verdict needs 8" in out


def test_added_removed_and_renamed_are_listed(compare):
    base = rows(**{"attention/forward/128": 7.0, "gone": 3.0})
    candidate = rows(**{"attention/fwd/128": 7.0, "fresh": 4.0})
    code, out, _ = compare(base, candidate)
    assert code == 1 and "2 MISSING" in out and "2 NEW" in out
    assert "renamed to attention/fwd/128" in out
    arguments = ("--allow-missing", "gone", "--renamed", "attention/forward/128", "attention/fwd/128")
    code, out, _ = compare(base, candidate, *arguments)
    assert code == 0 and "3 PASS, 1 NEW, 1 SKIPPED" in out


def test_a_rename_of_nothing_is_refused(compare):
    code, _, err = compare(rows(), rows(), "--renamed", "nothing", "light")
    assert code == 2 and "base has no benchmark nothing" in err


def test_a_row_absent_from_one_process_fails(compare):
    code, out, _ = compare(rows(), lambda k: {"light": 100.0} if k == 3 else rows()(k))
    assert code == 1 and "absent from 1 of 12 candidate processes" in out
    code, out, _ = compare(lambda k: {"light": 100.0} if k == 3 else rows()(k), rows())
    assert code == 1 and "absent from 1 of 12 base processes" in out


def failed(message):
    return {"error_occurred": True, "error_message": message, "real_time": 0.0}


def test_errors_fail_and_wrong_results_have_their_own_code(compare):
    code, out, _ = compare(rows(), rows(x=failed("out of memory")))
    assert code == 1 and "ERROR" in out and "out of memory" in out
    code, out, _ = compare(rows(), rows(x=failed("verification failed: 3 elements")))
    assert code == 1 and "1 WRONG" in out
    code, out, _ = compare(rows(), rows(1.1, x=failed("bad checksum")), "--wrong-result", "checksum")
    assert code == 1 and "1 WRONG, 1 FAIL" in out


def test_an_error_on_the_candidate_side_in_one_round_only_is_still_an_error(compare):
    code, out, _ = compare(rows(x=5.0), lambda k: rows(x=failed("wrong result") if k == 11 else 5.0)(k))
    assert code == 1 and "wrong result" in out


def test_an_error_of_the_base_alone_is_listed_and_does_not_fail(compare):
    code, out, _ = compare(rows(x=failed("wrong result")), rows(x=5.0))
    assert code == 0 and "not measured by the base: wrong result" in out and "1 NEW" in out


def test_skips(compare):
    skip = {"skipped": True, "skip_message": "no GPU", "real_time": 0.0}
    code, out, _ = compare(rows(x=skip), rows(x=skip))
    assert code == 0 and "1 SKIPPED" in out and "no GPU" in out
    code, out, _ = compare(rows(x=5.0), rows(x=skip))
    assert code == 1 and "skipped by the candidate only: no GPU" in out


def test_a_run_that_compared_nothing_does_not_pass(compare):
    skip = {"x": {"skipped": True, "skip_message": "no GPU", "real_time": 0.0}}
    code, out, _ = compare(lambda k: skip, lambda k: skip, "--strict")
    assert code == 5 and "nothing was compared" in out and "PASS: 1" not in out


@pytest.mark.parametrize(
    "key, one, other",
    [
        ("host_name", "one", "two"),
        ("library_build_type", "release", "debug"),
        ("cpu_scaling_enabled", False, True),
        ("device", "H100", "H200"),
        ("gpu_driver_version", "550.1", "560.2"),
        ("compiler", "gcc 12", "gcc 13"),
        ("sm_clock_mhz", 1980, 1200),
        ("mhz_per_cpu", "2600", "3400"),
    ],
)
def test_other_conditions_are_refused_with_the_key(compare, key, one, other):
    code, _, err = compare(rows(), rows(), contexts=({key: one}, {key: other}))
    assert code == 2 and f"context key '{key}' differs: {one} here, {other}" in err and len(err.splitlines()) == 1
    code, _, _ = compare(rows(), rows(), "--ignore-context", key, contexts=({key: one}, {key: other}))
    assert code == 0


def test_a_key_that_is_on_one_side_only_is_refused(compare):
    code, _, err = compare(rows(), rows(), contexts=({"device": "H200"}, {}))
    assert code == 2 and "'device'" in err and "absent" in err


def test_what_may_differ(compare):
    contexts = (
        {"date": "1", "load_avg": [1], "source_hash": "a", "mhz_per_cpu": 2600, "label": "x"},
        {"date": "2", "load_avg": [2], "source_hash": "b", "mhz_per_cpu": 2605, "label": "y"},
    )
    code, out, _ = compare(rows(), rows(), contexts=contexts)
    assert code == 0 and "context 'label' differs" in out
    code, _, err = compare(rows(), rows(), "--require-context", "label", contexts=contexts)
    assert code == 2 and "'label'" in err


def test_one_process_of_another_machine_among_many_is_found(compare, write_result, run_gate):
    files = [write_result(f"p{k}", rows()(k), {"host_name": "two" if k == 5 else "one"}) for k in range(16)]
    code, _, err = run_gate("compare", "--base", *files[:8], "--candidate", *files[8:])
    assert code == 2 and "p5.json" in err and "host_name" in err


def test_other_units_are_refused(compare):
    code, _, err = compare(rows(), rows(), units=("ns", "us"))
    assert code == 2 and "time_unit differs" in err and "light" in err


def test_throttled_rounds_are_dropped_counted_and_capped(compare):
    hot = {"real_time": 9999.0, "throttled": 1}
    code, out, _ = compare(rows(x=5.0), lambda k: rows(x=hot if k < 3 else 5.0)(k))
    assert code == 0 and "3 throttled rounds dropped" in out
    code, out, _ = compare(rows(x=5.0), lambda k: rows(x=hot if k < 4 else 5.0)(k), "--strict")
    assert code == 5 and "throttled: 4 of 12 rounds dropped" in out
    code, out, _ = compare(rows(x=5.0), lambda k: rows(x=hot)(k), "--strict")
    assert code == 5 and "throttled: 12 of 12 rounds dropped" in out and "nan" not in out


def test_noise_that_would_hide_a_large_slowdown_is_no_pass(compare):
    wild = [0.6, 1.5, 1.0, 0.7, 1.4, 0.8, 1.6, 0.9, 1.3, 1.1, 0.65, 1.2]
    base = lambda k: {"a": 100 * wild[k]}  # noqa: E731
    candidate = lambda k: {"a": 100 * wild[(5 * k + 3) % 12]}  # noqa: E731
    code, out, _ = compare(base, candidate, "--strict")
    assert code == 5 and "could be" in out and "a PASS needs less than 5 %" in out
    assert compare(base, candidate, "--strict", "--bound", "1000")[0] == 0


def test_unequal_or_repeated_files_are_refused(write_result, run_gate):
    one, other = write_result("a", {"x": 1.0}), write_result("b", {"x": 1.0})
    code, _, err = run_gate("compare", "--base", one, other, "--candidate", one)
    assert code == 2 and "2 base files and 1 candidate files" in err
    code, _, err = run_gate("compare", "--base", one, one, "--candidate", one, other)
    assert code == 2 and "is given twice" in err


def test_the_result_is_reproducible_and_keeps_raw_samples(compare, tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in files:
        compare(rows(), rows(1.03), "--json", str(path))
    assert files[0].read_bytes() == files[1].read_bytes()
    document = json.loads(files[0].read_text())
    heavy = next(row for row in document["rows"] if row["name"] == "heavy")
    assert len(heavy["rounds"]) == 12 and heavy["rounds"][0]["candidate"] == [1000 * 1.03 * (1 - WOBBLE[5])]
    assert heavy["estimate"]["low"] <= heavy["estimate"]["change"] <= heavy["estimate"]["high"]


def test_a_recorded_scatter_sets_the_floor_and_belongs_to_its_machine(compare, tmp_path):
    path = tmp_path / "scatter.json"
    path.write_text(json.dumps({"context": {"host_name": "one"}, "round_scatter": {"heavy": 0.2}}))
    code, out, _ = compare(rows(), rows(1.05), "--scatter", str(path))
    assert code == 0 and "7.5" in out  # 0.2 * sqrt(pi / 2 / 12)
    path.write_text(json.dumps({"context": {"host_name": "two"}, "round_scatter": {"heavy": 0.2}}))
    code, _, err = compare(rows(), rows(1.05), "--scatter", str(path))
    assert code == 2 and "host_name" in err and "scatter.json" in err


def test_a_counter_with_a_direction_is_judged_and_its_fall_fails(compare):
    def side(rate):
        return lambda k: {"a": {"real_time": 5.0, "items": rate * (1 + WOBBLE[k % 12])}}

    assert compare(side(100.0), side(80.0))[0] == 0
    code, out, _ = compare(side(100.0), side(80.0), "--counter", "items:up")
    assert code == 1 and "a [items]" in out and "+25." in out
    code, out, _ = compare(side(100.0), side(80.0), "--counter", "items:down")
    assert code == 0 and "1 FASTER" in out
    assert compare(side(100.0), side(80.0), "--counter", "items")[0] == 2


def test_an_impossible_time_of_one_process_is_bad_input_of_its_row_alone(compare):
    def impossible(k):
        return rows(**{"light": 5e-324} if k == 2 else {})(k)

    for side, sides in (("candidate", (rows(), impossible)), ("base", (impossible, rows()))):
        code, out, err = compare(*sides)
        assert code == 2 and err == "" and "INVALID: 1 INVALID, 1 PASS" in out
        assert "5e-324 ns, which is not a time" in out and f"({side})" in out


def test_an_impossible_time_does_not_hide_a_regression(compare):
    code, out, _ = compare(rows(), lambda k: rows(heavy=2000.0, **{"light": 5e-324} if k == 2 else {})(k))
    assert code == 1 and "FAIL: 1 FAIL, 1 INVALID" in out


def test_two_modes_are_said(compare):
    code, out, _ = compare(rows(), lambda k: rows(light=100.0 if k % 2 else 112.0)(k))
    assert "two modes in the candidate: 6 rounds near 100 ns, 6 near 112 ns" in out
