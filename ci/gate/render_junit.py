"""JUnit XML: one test case a benchmark."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from .errors import one_line
from .google_benchmark import SECONDS
from .outcome import GateResult, Outcome, RowResult
from .text import describe


def render_junit(result: GateResult) -> str:
    """FAIL and MISSING are failures, ERROR, INVALID and WRONG errors, SKIPPED is skipped; UNSURE fails under strict only and is
    skipped otherwise, since nothing was decided."""
    elements = [(_kind(row, result.strict), row) for row in result.rows]
    suite = ElementTree.Element("testsuite", name="gate", tests=str(len(elements)))
    for word, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(plural, str(sum(kind == word for kind, _ in elements)))
    for kind, row in elements:
        suite.append(_case(kind, row))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _kind(row: RowResult, strict: bool) -> str | None:
    if row.outcome in (Outcome.FAIL, Outcome.MISSING):
        return "failure"
    if row.outcome in (Outcome.ERROR, Outcome.INVALID, Outcome.WRONG):
        return "error"
    if row.outcome is Outcome.UNSURE:
        return "failure" if strict else "skipped"
    return "skipped" if row.outcome is Outcome.SKIPPED else None


def _case(kind: str | None, row: RowResult) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname="benchmark", name=one_line(row.name))
    if row.estimate and row.series and row.series.unit in SECONDS:
        seconds = SECONDS[row.series.unit] * row.estimate.candidate_time
        case.set("time", f"{seconds:.9g}")
    text = f"{row.outcome.value}: {describe(row)}"
    if kind is None:
        ElementTree.SubElement(case, "system-out").text = text
    else:
        ElementTree.SubElement(case, kind, message=text, type=row.outcome.value)
    return case
