"""Lines up the benchmarks of both sides over all rounds; nothing that is on one side only gets lost."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .errors import InputError, one_line
from .outcome import Outcome, RowResult
from .metric import choose
from .samples import Process, Round, Row, Series

WRONG_RESULT = r"wrong|verif|mismatch|incorrect|not equal|differs? from"


@dataclass(frozen=True)
class LineupRule:
    """allow_missing: patterns of names that may be absent. renamed: base name to candidate name.

    wrong_result: an error message that matches means wrong results instead of a failed run. metric: the time that is judged.
    """

    allow_missing: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    wrong_result: str = WRONG_RESULT
    metric: str = "auto"


def line_up(rounds: Sequence[Round], rule: LineupRule) -> tuple[list[Series], list[RowResult]]:
    """The series that can be compared, and a result for each benchmark that cannot.

    Order: first appearance on the base side, then on the candidate's. Errors: InputError if one benchmark has
    different units on the two sides or a renamed benchmark does not exist.
    """
    _check_renamed(rounds, rule)
    names: dict[str, None] = {}
    for pair in rounds:
        names.update(dict.fromkeys(rule.renamed.get(name, name) for name in pair.base.rows))
    for pair in rounds:
        names.update(dict.fromkeys(pair.candidate.rows))
    old_names = {new: old for old, new in rule.renamed.items()}
    series, others = [], []
    for name in names:
        base = _rows([pair.base for pair in rounds], old_names.get(name, name))
        candidate = _rows([pair.candidate for pair in rounds], name)
        result = _not_comparable(name, base, candidate, rule)
        if result is None:
            series.append(_series(name, rounds, base, candidate, rule))
        else:
            others.append(result)
    return series, _point_out_renames(others)


def _rows(processes: Sequence[Process], name: str) -> list[Row | None]:
    """The row `name` of each process, None where it is absent; a process that was not asked for it gives an empty row."""
    benchmark = next((process.rows[name].benchmark for process in processes if name in process.rows), name)
    empty = Row(name, "")
    return [
        process.rows.get(name, None if process.asked is None or benchmark in process.asked else empty)
        for process in processes
    ]


def _not_comparable(
    name: str, base: list[Row | None], candidate: list[Row | None], rule: LineupRule
) -> RowResult | None:
    """Why this benchmark has no series, or None if it has one."""
    base_error, error = _first(base, "error"), _first(candidate, "error")
    if error is not None:
        wrong = re.search(rule.wrong_result, error, re.IGNORECASE) is not None
        also = " (the base reports an error too)" if base_error is not None else ""
        return RowResult(name, Outcome.WRONG if wrong else Outcome.ERROR, error + also)
    for side, rows in (("candidate", candidate), ("base", base)):
        if invalid := _first(rows, "invalid"):
            return RowResult(name, Outcome.INVALID, f"{invalid} ({side})")
    base_skip, skip = _first(base, "skip"), _first(candidate, "skip")
    if skip is not None:
        if base_skip is not None or not _present(base):
            return RowResult(name, Outcome.SKIPPED, skip)
        return _missing(name, f"skipped by the candidate only: {skip}", rule)
    absent, asked = candidate.count(None), len(candidate) - sum(row is not None and not row.unit for row in candidate)
    if absent == asked:
        return _missing(name, "removed", rule)
    if absent:
        return _missing(name, f"absent from {absent} of {asked} candidate processes", rule)
    if not _present(base):
        return RowResult(name, Outcome.NEW, "added")
    if base_error is not None or base_skip is not None:
        return RowResult(name, Outcome.NEW, f"not measured by the base: {base_error or base_skip}")
    if None in base:
        asked = len(base) - sum(row is not None and not row.unit for row in base)
        return RowResult(name, Outcome.ERROR, f"absent from {base.count(None)} of {asked} base processes")
    return None


def _missing(name: str, reason: str, rule: LineupRule) -> RowResult:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in rule.allow_missing):
        return RowResult(name, Outcome.SKIPPED, f"{reason}, as allowed")
    return RowResult(name, Outcome.MISSING, reason)


def _series(
    name: str, rounds: Sequence[Round], base: list[Row | None], candidate: list[Row | None], rule: LineupRule
) -> Series:
    units = {row.unit for row in base + candidate if row is not None and row.unit}
    if len(units) != 1:
        where = rounds[0].candidate.source
        what = f"{one_line(name)}: time_unit differs between the runs: {', '.join(sorted(units))}"
        raise InputError(where, what, "give the benchmark one unit on both sides")
    measured = [
        (pair, one, other)
        for pair, one, other in zip(rounds, base, candidate)
        if one is not None and other is not None and one.unit and other.unit
    ]
    used = [(pair, one, other) for pair, one, other in measured if one.times and other.times]
    unit, better = units.pop(), next(row.better for row in base if row is not None and row.unit)
    is_counter = any(row.name != row.benchmark for _, row, _ in used)
    metric = unit if is_counter else metric_of(used, rule)
    benchmark = next((row.benchmark for _, row, _ in used), name)
    series = Series(name, unit, benchmark=benchmark, metric=metric, better=better, dropped=len(measured) - len(used))
    for _, one, other in used:
        series.base.append(one.processor if metric == "cpu_time" and one.processor else one.times)
        series.candidate.append(other.processor if metric == "cpu_time" and other.processor else other.times)
    return series


def metric_of(used: Sequence[tuple[Round, Row, Row]], rule: LineupRule) -> str:
    """The clock that judges one benchmark."""
    if rule.metric != "auto":
        return rule.metric
    return choose([(pair.base, one) for pair, one, _ in used], [(pair.candidate, other) for pair, _, other in used])


def _first(rows: Sequence[Row | None], attribute: str) -> str | None:
    return next((text for row in rows if row is not None and (text := getattr(row, attribute)) is not None), None)


def _present(rows: Sequence[Row | None]) -> bool:
    return any(row is not None and row.unit for row in rows)


def _check_renamed(rounds: Sequence[Round], rule: LineupRule) -> None:
    for old, new in rule.renamed.items():
        for side, name in (("base", old), ("candidate", new)):
            if not any(name in getattr(pair, side).rows for pair in rounds):
                raise InputError(f"--renamed {old} {new}", f"the {side} has no benchmark {one_line(name)}")


def _point_out_renames(results: list[RowResult]) -> list[RowResult]:
    """Adds to each removed benchmark the added one whose name is nearest, if one is near."""
    added = [result.name for result in results if result.outcome is Outcome.NEW and result.reason == "added"]
    for result in results:
        if result.outcome is Outcome.MISSING and result.reason == "removed":
            near = difflib.get_close_matches(result.name[:500], added[:500], n=1, cutoff=0.75)
            if near:
                result.reason = f"removed, or renamed to {near[0]} (then give --renamed OLD NEW)"
    return results
