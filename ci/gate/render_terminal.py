"""The table for people at a terminal, after the model of benchstat."""

from __future__ import annotations

import textwrap

from .errors import one_line
from .outcome import GateResult, Outcome, RowResult
from .text import EXPLANATION, at_most, change, interval, percent, remarks, summary, timing

COLUMNS = ("benchmark", "base", "candidate", "change", "interval", "at most", "floor", "rounds", "verdict")
COLOURS = {Outcome.PASS: "32", Outcome.FASTER: "32;1", Outcome.NEW: "36", Outcome.SKIPPED: "36", Outcome.UNSURE: "33"}
FAILING_COLOUR = "31"
NARROWEST = 80  # columns that the explanation fills where the table is narrower


def render_terminal(result: GateResult, colour: bool = False) -> str:
    """The table, notes and verdict, with a newline at the end. colour: ANSI colours for verdicts."""
    lines = [_cells(row) for row in result.rows]
    widths = [max(len(line[column]) for line in [COLUMNS, *lines]) for column in range(len(COLUMNS))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = [_join(COLUMNS, widths), rule]
    for row, line in zip(result.rows, lines):
        reason = f"  ({remarks(row)})" if remarks(row) else ""
        text.append(_paint(_join(line, widths), row.outcome, colour) + reason)
    explanation = textwrap.wrap(EXPLANATION, max(NARROWEST, len(rule)))
    text += [rule, *[f"note: {note}" for note in result.notes], *explanation, summary(result)]
    return "\n".join(text) + "\n"


def _cells(row: RowResult) -> tuple[str, ...]:
    name, found = one_line(row.name, 100), row.estimate
    if found is None or row.series is None:
        return (name, "", "", "", "", "", "", "", row.outcome.value)
    return (
        name,
        timing(found.base_time, found.base_spread, row.series.unit),
        timing(found.candidate_time, found.candidate_spread, row.series.unit),
        change(row),
        interval(row),
        at_most(row),
        percent(found.floor, sign=False),
        str(found.rounds),
        row.outcome.value,
    )


def _join(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *middle, last = (
        cell.ljust(w) if i in (0, len(COLUMNS) - 1) else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))
    )
    return "  ".join([first, *middle, last.rstrip()])


def _paint(line: str, outcome: Outcome, colour: bool) -> str:
    if not colour:
        return line
    head, word = line[: -len(outcome.value)], outcome.value
    code = FAILING_COLOUR if outcome.fails else COLOURS[outcome]
    return f"{head}\x1b[{code}m{word}\x1b[0m"
