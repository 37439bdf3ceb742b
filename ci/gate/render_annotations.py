"""GitHub annotations for the worst rows."""

from __future__ import annotations

from .errors import one_line
from .outcome import GateResult, Outcome, RowResult
from .text import describe

MOST = 10  # GitHub shows ten of a kind for each step


def render_annotations(result: GateResult) -> str:
    """`::error` lines for the worst failing rows and `::warning` lines for UNSURE ones, ten together, and the count of the rest."""
    rows = [row for row in result.rows if row.outcome.fails or row.outcome is Outcome.UNSURE]
    lines = [_line(row) for row in rows[:MOST]]
    if len(rows) > MOST:
        lines.append(f"{len(rows) - MOST} more rows are in the table")
    return "".join(line + "\n" for line in lines)


def _line(row: RowResult) -> str:
    kind = "error" if row.outcome.fails else "warning"
    title = _escape(f"{row.outcome.value} {one_line(row.name, 120)}").replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_escape(describe(row))}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
