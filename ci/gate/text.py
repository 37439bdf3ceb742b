"""Wording that all reports share."""

from __future__ import annotations

import math

from .errors import one_line
from .outcome import GateResult, Outcome, RowResult

EXPLANATION = (
    "change: of candidate/base over rounds, above 0 is slower; interval: 99 % unless told otherwise; at most: what the row "
    "could still hide; FAIL: the whole interval is above the floor; PASS: it ends below the bound; ~: it contains 0; "
    "±: scatter from process to process"
)


def percent(fraction: float, sign: bool = True) -> str:
    """0.0123 as `+1.23 %`."""
    value = 100 * fraction
    digits = 2 if abs(value) < 99.95 else 0
    return f"{value:+.{digits}f} %" if sign else f"{value:.{digits}f} %"


def interval(row: RowResult) -> str:
    """The interval of the change, or nothing."""
    found = row.estimate
    return f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}] %" if found else ""


def at_most(row: RowResult) -> str:
    """The slowdown that the row could still hide, or nothing."""
    found = row.estimate
    return percent(found.high) if found else ""


def remarks(row: RowResult) -> str:
    """Reason and notes of the row, joined; empty if there are none."""
    return "; ".join(one_line(text) for text in [row.reason, *row.notes] if text)


def change(row: RowResult) -> str:
    """The change, marked with ~ if its interval contains zero, or nothing."""
    found = row.estimate
    if found is None:
        return ""
    return ("~ " if found.low <= 0 <= found.high else "") + percent(found.change)


def timing(value: float, spread: float, unit: str) -> str:
    """A time with its scatter: `228.4 ns ± 0.5 %`."""
    if value >= 1e6 or value < 1e-3:
        return f"{value:.4g} {unit} ± {100 * spread:.1f} %"
    digits = max(0, 3 - math.floor(math.log10(value))) if value > 0 else 3
    return f"{value:.{min(digits, 6)}f} {unit} ± {100 * spread:.1f} %"


def describe(row: RowResult) -> str:
    """One sentence about the row, for annotations and JUnit."""
    found = row.estimate
    if found is None:
        return one_line(row.reason or row.outcome.value)
    more = f"; {remarks(row)}" if remarks(row) else ""
    return (
        f"{percent(found.change)}, at most {percent(found.high)}, interval {interval(row)}, "
        f"floor {percent(found.floor, sign=False)}, {found.rounds} rounds{more}"
    )


def geometric_mean(result: GateResult) -> float | None:
    """Geometric mean of candidate/base over the compared rows minus 1, or None."""
    logs = [math.log1p(row.estimate.change) for row in result.rows if row.estimate]
    return math.expm1(math.fsum(logs) / len(logs)) if logs else None


def summary(result: GateResult) -> str:
    """The verdict with the number of rows of each outcome."""
    counts = ", ".join(f"{result.count(outcome)} {outcome.value}" for outcome in Outcome if result.count(outcome))
    mean = geometric_mean(result)
    mean_text = f"; geometric mean of {len(result.compared)} ratios {percent(mean)}" if mean is not None else ""
    nothing = "" if result.compared else "; nothing was compared"
    return f"{result.verdict.value}: {counts or 'no benchmark'}{mean_text}{nothing}"
