"""From lined-up rounds to verdicts."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .context import ContextRule, refuse_differences
from .lineup import LineupRule, line_up
from .outcome import Estimate, GateResult, Outcome, RowResult
from .samples import Round, Series
from .scatter_file import Scatter
from .statistic import (
    MAD_TO_SIGMA,
    bootstrap_medians,
    median_scatter,
    minimum_rounds,
    rejected,
    run_scatter,
)


@dataclass(frozen=True)
class Settings:
    """floor: smallest slowdown that matters. scatter_multiple: the floor is at least this many standard errors of

    the A/A median. confidence: coverage of the interval and, for the half above, of the false-discovery rule.
    max_dropped: share of rounds that may be dropped as throttled. max_floor: no PASS where noise lifts the floor above it.
    """

    floor: float = 0.01
    scatter_multiple: float = 3.0
    confidence: float = 0.99
    resamples: int = 10_000
    seed: int = 1
    max_dropped: float = 0.25
    max_floor: float = 0.10


@dataclass(frozen=True)
class Rules:
    """Everything that decides a verdict besides the measurements."""

    settings: Settings = Settings()
    context: ContextRule = ContextRule()
    lineup: LineupRule = LineupRule()
    scatter: Scatter = Scatter()
    strict: bool = False


def judge(rounds: Sequence[Round], rules: Rules) -> GateResult:
    """Verdicts on all benchmarks of `rounds`; the same rounds and rules give the same result to the bit.

    Errors: InputError where the two sides must not be compared.
    """
    notes = refuse_differences(rounds, rules.context)
    rules.scatter.refuse_other_machine(rounds[0].base.context)
    series, others = line_up(rounds, rules.lineup)
    rows = judge_series(series, rules.settings, rules.scatter.by_name) + others
    rows.sort(key=_worst_first)
    settings = dataclasses.asdict(rules.settings) | {"strict": rules.strict, "rounds": len(rounds)}
    return GateResult(rows, settings, dict(rounds[0].candidate.context), notes, rules.strict)


def judge_series(series: Sequence[Series], settings: Settings, scatter: Mapping[str, float]) -> list[RowResult]:
    """A verdict for each series: FAIL if the whole interval lies above the floor, also after the false-discovery
    correction over all series; PASS if none of it does; else UNSURE."""
    estimates = [estimate(one, settings, scatter.get(one.name)) for one in series]
    tested = {index: one.p_value for index, one in enumerate(estimates) if one is not None}
    slower = dict(zip(tested, rejected(list(tested.values()), (1 - settings.confidence) / 2)))
    rows = []
    for index, (one, found) in enumerate(zip(series, estimates)):
        outcome, reason = _verdict(one, found, slower.get(index, False), settings)
        rows.append(RowResult(one.name, outcome, reason, one, found))
    return rows


def estimate(series: Series, settings: Settings, recorded_scatter: float | None) -> Estimate | None:
    """The measured change of one benchmark, None if no round is left."""
    rounds = len(series.base)
    if rounds == 0:
        return None
    base = np.array([statistics.median(times) for times in series.base])
    candidate = np.array([statistics.median(times) for times in series.candidate])
    log_ratios = np.log(candidate) - np.log(base)
    medians = bootstrap_medians(log_ratios, settings.resamples, settings.seed)
    tail = (1 - settings.confidence) / 2
    floor, source = _floor(base, log_ratios, recorded_scatter, settings)
    return Estimate(
        change=math.expm1(float(np.median(log_ratios))),
        low=math.expm1(float(medians.lower_end(tail))),
        high=math.expm1(float(medians.upper_end(tail))),
        floor=floor,
        floor_source=source,
        p_value=float(medians.share_at_most(math.log1p(floor))),
        rounds=rounds,
        base_time=float(np.median(base)),
        candidate_time=float(np.median(candidate)),
        base_spread=_spread(base),
        candidate_spread=_spread(candidate),
    )


def _floor(base: np.ndarray, log_ratios: np.ndarray, recorded: float | None, settings: Settings) -> tuple[float, str]:
    source = "scatter of this run" if recorded is None else "recorded self-check"
    round_scatter = run_scatter(base.tolist(), log_ratios.tolist()) if recorded is None else recorded
    noise = math.expm1(settings.scatter_multiple * median_scatter(round_scatter, len(base)))
    if noise > settings.floor:
        return noise, source
    return settings.floor, "smallest change that matters"


def _verdict(series: Series, found: Estimate | None, slower: bool, settings: Settings) -> tuple[Outcome, str]:
    measured = len(series.base)
    if series.dropped > settings.max_dropped * (measured + series.dropped):
        return Outcome.UNSURE, f"throttled: {series.dropped} of {measured + series.dropped} rounds dropped"
    needed = minimum_rounds(settings.confidence)
    if found is None or measured < needed:
        return Outcome.UNSURE, f"{measured} rounds; a verdict needs {needed}"
    dropped = f"{series.dropped} throttled rounds dropped" if series.dropped else ""
    if slower:
        return Outcome.FAIL, dropped
    if found.high <= found.floor:
        blind = found.floor > max(settings.max_floor, settings.floor)
        return (Outcome.UNSURE, "too noisy for a PASS") if blind else (Outcome.PASS, dropped)
    if found.low > found.floor:
        return Outcome.UNSURE, "slower on its own, not after the correction for the number of rows"
    return Outcome.UNSURE, dropped


def _spread(round_medians: np.ndarray) -> float:
    middle = float(np.median(round_medians))
    return float(MAD_TO_SIGMA * np.median(np.abs(round_medians - middle)) / middle)


def _worst_first(row: RowResult) -> tuple[int, float]:
    rank = list(Outcome).index(row.outcome)
    return rank, -row.estimate.change if row.estimate else 0.0
