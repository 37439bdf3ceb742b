"""From lined-up rounds to verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .context import ContextRule, refuse_differences
from .lineup import LineupRule, line_up
from .modes import two_modes
from .outcome import Estimate, GateResult, Outcome, RowResult
from .row_rules import RowRule, thresholds
from .samples import Round, Series
from .scatter_file import Scatter
from .statistic import (
    MAD_TO_SIGMA,
    median_scatter,
    minimum_rounds,
    rejected,
    round_value,
    run_scatter,
    signed_rank_p_value,
    signed_rank_shift,
)


FALSE_DISCOVERIES = 0.05  # largest expected share of false ones among the rows that FAIL


@dataclass(frozen=True)
class Settings:
    """floor: smallest slowdown that matters. bound: a PASS needs the upper end of the interval below this. max_slowdown:
    if given, both of them, whatever the scatter. scatter_multiple: without it the floor is at least this many standard
    errors of the A/A median. confidence: coverage of the interval.
    max_dropped: share of rounds that may be dropped as throttled.
    """

    floor: float = 0.01
    bound: float = 0.05
    max_slowdown: float | None = None
    scatter_multiple: float = 1.0
    confidence: float = 0.99
    max_dropped: float = 0.25


@dataclass(frozen=True)
class Rules:
    """Everything that decides a verdict besides the measurements. rows: thresholds by pattern, the first match counts."""

    settings: Settings = Settings()
    rows: tuple[RowRule, ...] = ()
    context: ContextRule = ContextRule()
    lineup: LineupRule = LineupRule()
    scatter: Scatter = Scatter()
    strict: bool = False

    def settings_of(self, name: str) -> Settings:
        """The settings with the thresholds of the row `name`."""
        return dataclasses.replace(self.settings, **thresholds(self.rows, name))


def judge(rounds: Sequence[Round], rules: Rules) -> GateResult:
    """Verdicts on all benchmarks of `rounds`; the same rounds and rules give the same result to the bit.

    Errors: InputError where the two sides must not be compared.
    """
    notes = refuse_differences(rounds, rules.context)
    rules.scatter.refuse_other_machine(rounds[0].base.context)
    series, others = line_up(rounds, rules.lineup)
    rows = judge_series(series, [rules.settings_of(one.name) for one in series], rules.scatter.by_name) + others
    rows.sort(key=_worst_first)
    own_time = sum(one.metric == "cpu_time" for one in series)
    if own_time and rules.lineup.metric == "auto":
        notes.append(f"{own_time} of {len(series)} rows are judged by cpu_time: they do not wait for anything")
    settings = dataclasses.asdict(rules.settings) | {"strict": rules.strict, "rounds": len(rounds)}
    return GateResult(rows, settings, dict(rounds[0].candidate.context), notes, rules.strict)


def judge_series(
    series: Sequence[Series], settings: Sequence[Settings], scatter: Mapping[str, float]
) -> list[RowResult]:
    """A verdict for each series, each with its settings: FAIL if the whole interval lies above the floor, also after the
    false-discovery correction over all series; FASTER if it lies as far below; PASS if its upper end is below the bound; else
    UNSURE."""
    estimates = [estimate(one, own, scatter.get(one.name)) for one, own in zip(series, settings)]
    tested = {index: one.p_value for index, one in enumerate(estimates) if one is not None}
    slower = dict(zip(tested, rejected(list(tested.values()), FALSE_DISCOVERIES)))
    rows = []
    for index, (one, own, found) in enumerate(zip(series, settings, estimates)):
        outcome, reason = _verdict(one, found, slower.get(index, False), own)
        rows.append(RowResult(one.name, outcome, reason, one, found, _notes(one)))
    return rows


def estimate(series: Series, settings: Settings, recorded_scatter: float | None) -> Estimate | None:
    """The measured change of one benchmark, None if no round is left."""
    rounds = len(series.base)
    if rounds == 0:
        return None
    base = np.array([round_value(times) for times in series.base])
    candidate = np.array([round_value(times) for times in series.candidate])
    log_ratios = np.log(candidate) - np.log(base)
    if series.better == "up":
        log_ratios = -log_ratios
    shift = signed_rank_shift(log_ratios, settings.confidence)
    floor, source = _floor(base, log_ratios, recorded_scatter, settings)
    return Estimate(
        change=math.expm1(float(shift.centre)),
        low=math.expm1(float(shift.low)),
        high=math.expm1(float(shift.high)),
        floor=floor,
        floor_source=source,
        bound=settings.bound if settings.max_slowdown is None else settings.max_slowdown,
        p_value=signed_rank_p_value(log_ratios, math.log1p(floor)),
        rounds=rounds,
        base_time=float(np.median(base)),
        candidate_time=float(np.median(candidate)),
        base_spread=_spread(base),
        candidate_spread=_spread(candidate),
    )


def _floor(base: np.ndarray, log_ratios: np.ndarray, recorded: float | None, settings: Settings) -> tuple[float, str]:
    if settings.max_slowdown is not None:
        return settings.max_slowdown, "largest slowdown allowed"
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
    if slower and found.low > found.floor:
        return Outcome.FAIL, dropped
    if math.log1p(found.high) < -math.log1p(max(found.floor, settings.floor)):
        return Outcome.FASTER, dropped
    if found.high < found.bound:
        return Outcome.PASS, dropped
    if found.low > found.floor:
        return Outcome.UNSURE, "slower on its own, not after the correction for the number of rows"
    return Outcome.UNSURE, f"could be {100 * found.high:.3g} % slower; a PASS needs less than {100 * found.bound:g} %"


def _notes(series: Series) -> list[str]:
    notes = []
    for side, rounds in (("base", series.base), ("candidate", series.candidate)):
        modes = two_modes([round_value(times) for times in rounds])
        if modes:
            notes.append(f"two modes in the {side}: {modes.text(series.unit)}")
    return notes


def _spread(round_values: np.ndarray) -> float:
    middle = float(np.median(round_values))
    return float(MAD_TO_SIGMA * np.median(np.abs(round_values - middle)) / middle)


def _worst_first(row: RowResult) -> tuple[int, float]:
    rank = list(Outcome).index(row.outcome)
    return rank, -row.estimate.change if row.estimate else 0.0
