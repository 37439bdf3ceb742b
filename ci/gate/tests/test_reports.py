"""Every printer of a result."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from gate.outcome import Estimate, GateResult, Outcome, RowResult
from gate.render_annotations import render_annotations
from gate.render_json import render_json
from gate.render_junit import render_junit
from gate.render_markdown import LARGEST, render_markdown
from gate.render_terminal import render_terminal
from gate.samples import Series

NASTY = "a|b<c>&`d`\n::error::\x1b[31m\ud800%"


def measured(name, outcome, change=0.1):
    found = Estimate(change, change - 0.01, change + 0.01, 0.01, "", 0.05, 0.0, 12, 100.0, 100 * (1 + change), 0.003, 0.004)
    return RowResult(name, outcome, "", Series(name, "us", [(100.0,)], [(100 * (1 + change),)]), found)


def result(*rows, strict=False):
    return GateResult(list(rows), {"rounds": 12}, {"device": "x", "bad": float("inf")}, ["a note"], strict)


@pytest.fixture
def mixed():
    return result(
        RowResult("w", Outcome.WRONG, "wrong result"),
        RowResult("e", Outcome.ERROR, "died"),
        RowResult("m", Outcome.MISSING, "removed"),
        measured(NASTY, Outcome.FAIL),
        RowResult("i", Outcome.INVALID, "5e-324 ns"),
        measured("u", Outcome.UNSURE, 0.012),
        measured("f", Outcome.FASTER, -0.2),
        measured("p", Outcome.PASS, -0.001),
        RowResult("n", Outcome.NEW, "added"),
        RowResult("s", Outcome.SKIPPED, "no GPU"),
    )


def test_terminal_shows_every_row_and_no_raw_control_characters(mixed):
    text = render_terminal(mixed)
    for outcome in Outcome:
        assert outcome.value in text
    assert "+11.00 %" in text  # what the FAIL row could be at most
    assert "\x1b" not in text and "\ud800" not in text and "note: a note" in text
    assert "100.0 us ± 0.3 %" in text and "+10.00 %" in text and "[+9.00, +11.00] %" in text and "~ -0.10 %" in text
    assert text.splitlines()[-1].startswith(
        "WRONG: 1 WRONG, 1 ERROR, 1 MISSING, 1 FAIL, 1 INVALID, 1 UNSURE, 1 FASTER, 1 PASS, 1 NEW, 1 SKIPPED"
    )


def test_colour_is_only_there_when_asked_for(mixed):
    assert "\x1b[31mFAIL\x1b[0m" in render_terminal(mixed, colour=True)


def test_geometric_mean_is_of_ratios_of_compared_rows(mixed):
    only = result(
        measured("a", Outcome.FAIL, 1.0), measured("b", Outcome.PASS, -0.5), RowResult("n", Outcome.NEW, "added")
    )
    assert "geometric mean of 2 ratios +0.00 %" in render_terminal(only)


def test_markdown_escapes_and_folds(mixed):
    text = render_markdown(mixed)
    assert "a&#124;b&lt;c&gt;&amp;" in text and "<details>" in text and "**FAIL**" in text
    assert text.index("<code>f</code>") < text.index("<details>") < text.index("<code>p</code>")  # FASTER is unfolded
    rows = [line for line in text.splitlines() if line.startswith("| <code>")]
    assert len(rows) == 10 and all(line.replace("\\|", "").count("|") == 10 for line in rows)


def test_markdown_stays_below_the_limit_of_a_comment_and_counts_the_rest():
    text = render_markdown(result(*[measured(f"row {k} " + "x" * 90, Outcome.FAIL) for k in range(2000)]))
    assert len(text.encode()) <= LARGEST and "more rows do not fit" in text


@pytest.mark.parametrize("strict, failures, skipped", [(False, 2, 2), (True, 3, 1)])
def test_junit(mixed, strict, failures, skipped):
    mixed.strict = strict
    suite = ElementTree.fromstring(render_junit(mixed).encode())
    assert (
        suite.attrib | {"tests": "10", "failures": str(failures), "errors": "3", "skipped": str(skipped)} == suite.attrib
    )
    assert len(suite.findall("testcase")) == 10 and len(suite.findall("testcase/failure")) == failures
    assert suite.find("testcase/failure[@type='MISSING']").get("message") == "MISSING: removed"


def test_annotations_are_the_worst_ten_one_line_each(mixed):
    lines = render_annotations(mixed).splitlines()
    assert (
        len(lines) == 6
        and lines[0].startswith("::error title=WRONG w::")
        and lines[5].startswith("::warning title=UNSURE u::")
    )
    assert "%25" in lines[3] and lines[3].count("::") == 2 and "%3A%3Aerror" in lines[3]
    many = render_annotations(result(*[measured(f"row {k}", Outcome.FAIL) for k in range(25)])).splitlines()
    assert len(many) == 11 and many[-1] == "15 more rows are in the table"


def test_json_is_strict_json_and_complete(mixed):
    document = json.loads(render_json(mixed), parse_constant=pytest.fail)
    assert document["verdict"] == "WRONG" and document["exit_code"] == 1 and len(document["rows"]) == 10
    assert document["rows"][3]["estimate"]["change"] == 0.1 and document["rows"][3]["rounds"][0]["base"] == [100.0]


def test_an_output_that_cannot_be_written_is_refused_and_leaves_nothing(compare, tmp_path):
    (tmp_path / "file").write_text("kept")
    code, _, err = compare(lambda k: {"a": 1.0}, lambda k: {"a": 1.0}, "--json", str(tmp_path / "file" / "out.json"))
    assert code == 2 and "cannot be written" in err and (tmp_path / "file").read_text() == "kept"
