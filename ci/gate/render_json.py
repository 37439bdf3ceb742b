"""The whole result as JSON, with the raw samples of every round, so that it can be judged again."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from .outcome import GateResult, RowResult
from .text import geometric_mean


def render_json(result: GateResult) -> str:
    """Schema 1, described in README.md; numbers in `estimate` are fractions, times are in the row's unit."""
    document = {
        "schema": "gate/1",
        "verdict": result.verdict.value,
        "exit_code": int(result.exit_code),
        "geometric_mean_change": geometric_mean(result),
        "settings": result.settings,
        "context": _finite(result.context),
        "notes": result.notes,
        "rows": [_row(row) for row in result.rows],
    }
    return json.dumps(document, indent=1) + "\n"


def _finite(value: Any) -> Any:
    """`value` with numbers that JSON cannot hold as text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _row(row: RowResult) -> dict[str, Any]:
    document: dict[str, Any] = {"name": row.name, "outcome": row.outcome.value, "reason": row.reason}
    if row.estimate is not None:
        document["estimate"] = dataclasses.asdict(row.estimate)
    if row.series is not None:
        series = row.series
        document |= {"unit": series.unit, "metric": series.metric, "better": series.better, "notes": row.notes}
        document["dropped_rounds"] = series.dropped
        document["rounds"] = [{"base": list(b), "candidate": list(c)} for b, c in zip(series.base, series.candidate)]
    return document
