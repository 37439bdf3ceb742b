"""What a self-check found, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from .errors import one_line
from .outcome import GateResult, Outcome
from .selfcheck import SLOWDOWNS, RowCheck


def report(result: GateResult, checks: Sequence[RowCheck], delay: float | None) -> str:
    """Table and summary for people. delay: share that was really injected."""
    head = ["benchmark", "scatter", "floor", "false alarms", *(f"power +{100 * s:g} %" for s in SLOWDOWNS), "injected"]
    lines = [head]
    for check in checks:
        cells = [f"{100 * check.scatter:.2f} %", f"{100 * check.floor:.2f} %", f"{check.false_alarms:.3f}"]
        cells += [f"{power:.3f}" for power in check.power]
        lines.append([one_line(check.name, 80), *cells, check.injected.value if check.injected else "-"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    ]
    rounds = result.settings["rounds"]
    alarms = result.count(Outcome.FAIL)
    text.append(f"same program on both sides, {rounds} rounds: {alarms} of {len(checks)} rows FAIL (false alarms)")
    if delay is not None:
        caught = sum(check.injected is Outcome.FAIL for check in checks)
        text.append(f"same program slowed down by {100 * delay:.2f} %: {caught} of {len(checks)} rows FAIL (power)")
    text.append(
        "scatter: of one A/A round; false alarms, power: A/A rounds relabelled and redrawn, slowdown added by arithmetic"
    )
    return "\n".join(text) + "\n"


def as_json(checks: Sequence[RowCheck], delay: float | None) -> str:
    """The checks as JSON. delay: share that was really injected."""
    rows = [
        dataclasses.asdict(check) | {"injected": check.injected.value if check.injected else None} for check in checks
    ]
    return (
        json.dumps({"schema": "gate-selfcheck/1", "slowdowns": SLOWDOWNS, "delay": delay, "rows": rows}, indent=1)
        + "\n"
    )
