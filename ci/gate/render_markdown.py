"""Markdown for a job summary or a pull-request comment."""

from __future__ import annotations

from .errors import one_line
from .outcome import GateResult, Outcome, RowResult
from .text import EXPLANATION, at_most, change, interval, percent, remarks, summary, timing

LARGEST = 60_000  # bytes; a comment holds 64 KiB and a job summary 1 MiB
HEAD = (
    "| benchmark | base | candidate | change | interval | at most | floor | rounds | verdict |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|---|"
)
QUIET = (Outcome.PASS, Outcome.NEW, Outcome.SKIPPED)


def render_markdown(result: GateResult) -> str:
    """The verdict, a table of what needs a look, and the rest folded; rows that do not fit are counted."""
    loud = [row for row in result.rows if row.outcome not in QUIET]
    quiet = [row for row in result.rows if row.outcome in QUIET]
    parts = [f"### Gate: {_escape(summary(result))}", ""]
    room = LARGEST - 2000
    if loud:
        table, room = _table(loud, room)
        parts += [table, ""]
    if quiet:
        table, room = _table(quiet, room)
        parts += [f"<details><summary>{len(quiet)} rows without a finding</summary>", "", table, "", "</details>", ""]
    parts += [f"- {_escape(note)}" for note in result.notes[:20]]
    return "\n".join([*parts, "", f"<sub>{EXPLANATION}</sub>", ""])


def _table(rows: list[RowResult], room: int) -> tuple[str, int]:
    lines = [HEAD]
    for index, row in enumerate(rows):
        line = _line(row)
        room -= len(line.encode()) + 1
        if room < 0:
            lines.append(f"\n{len(rows) - index} more rows do not fit here; the JSON result holds them.")
            return "\n".join(lines), 0
        lines.append(line)
    return "\n".join(lines), room


def _line(row: RowResult) -> str:
    found, cells = row.estimate, [""] * 7
    if found is not None and row.series is not None:
        unit = row.series.unit
        cells = [
            timing(found.base_time, found.base_spread, unit),
            timing(found.candidate_time, found.candidate_spread, unit),
            change(row),
            interval(row),
            at_most(row),
            percent(found.floor, sign=False),
            str(found.rounds),
        ]
    verdict = f"**{row.outcome.value}**" if row.outcome.fails else row.outcome.value
    reason = f" ({_escape(remarks(row))})" if remarks(row) else ""
    return f"| {_code(row.name)} | {' | '.join(cells)} | {verdict}{reason} |"


def _escape(text: str) -> str:
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    return "".join(f"\\{c}" if c in "\\`*_[]~" else c for c in safe)


def _code(name: str) -> str:
    return "<code>" + _escape(one_line(name, 120)) + "</code>"
