"""`gate show`, and that the README's picture is what it prints."""

import json
import random
import re
from pathlib import Path

import pytest

from gate.tests.test_fuzz import SEED, check, mutated_bytes, mutated_documents

PACKAGE = Path(__file__).resolve().parents[1]
RECORDED = "tests/data/five_percent_slower.json"


def test_a_stored_result_prints_what_was_printed_when_it_was_made(compare, run_gate, tmp_path):
    stored = tmp_path / "result.json"
    base = lambda k: {"a": 100.0 + k % 3, "b": 7.0, "gone": 1.0}  # noqa: E731
    candidate = lambda k: {"a": 106.0 + k % 3, "b": 7.0, "added": 1.0}  # noqa: E731
    code, out, _ = compare(base, candidate, "--json", str(stored), "--annotations", "--markdown", str(tmp_path / "one.md"))
    again = run_gate("show", stored, "--annotations", "--markdown", tmp_path / "two.md")
    assert again == (code, out, "") and code == 1 and "MISSING" in out
    assert (tmp_path / "one.md").read_text() == (tmp_path / "two.md").read_text()


def test_the_exit_code_is_that_of_the_run(compare, run_gate, tmp_path):
    stored = tmp_path / "result.json"
    noisy = lambda k: {"a": 100.0 + 20 * (k % 2)}  # noqa: E731
    for arguments, expected in (((), 0), (("--strict",), 5)):
        code, _, _ = compare(noisy, lambda k: noisy(k + k // 2), "--json", str(stored), *arguments)
        assert code == expected == run_gate("show", stored)[0]


def test_the_result_is_not_overwritten(run_gate):
    code, _, err = run_gate("show", PACKAGE / RECORDED, "--markdown", PACKAGE / RECORDED)
    assert code == 2 and "is the result itself" in err


def test_the_picture_in_the_readme_is_what_the_gate_prints(run_gate):
    picture = re.search(r"^```\n\$ gate run [^\n]*\n(.*?)^```$", (PACKAGE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    code, out, _ = run_gate("show", PACKAGE / RECORDED)
    assert picture[1] == out
    assert code == 1 and re.search(r"^mix .*  FAIL$", out, re.MULTILINE) and "FAIL: 1 FAIL, " in out


def test_damaged_results_are_refused_by_name(compare, run_gate, tmp_path):
    stored, bad = tmp_path / "result.json", tmp_path / "bad.json"
    compare(lambda k: {"a": 100.0, "b": 1.0}, lambda k: {"a": 107.0}, "--json", str(stored))
    text, generator, refused = stored.read_text(), random.Random(SEED), 0
    for data in [*mutated_documents(text, 120, generator), *mutated_bytes(text, 40, generator)]:
        bad.write_bytes(data)
        code, out, err = run_gate("show", bad, "--annotations", "--markdown", tmp_path / "o.md", "--junit", tmp_path / "o.xml")
        check(code, out, err, bad)
        refused += code == 2
    assert refused > 20


@pytest.mark.parametrize(
    "place, value",
    [("low", -1.0), ("change", None), ("high", "1"), ("rounds", 2.5), ("floor_source", 1), ("base_time", 10**400)],
)
def test_an_estimate_that_no_run_gives_is_refused(compare, run_gate, tmp_path, place, value):
    stored = tmp_path / "result.json"
    compare(lambda k: {"a": 100.0}, lambda k: {"a": 107.0}, "--json", str(stored))
    document = json.loads(stored.read_text())
    document["rows"][0]["estimate"][place] = value
    stored.write_text(json.dumps(document))
    code, _, err = run_gate("show", stored)
    assert code == 2 and "rows[0] has no whole estimate" in err
