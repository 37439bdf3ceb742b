"""Error rates of the gate on simulated noise, through the code that judges real runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .outcome import Outcome, RowResult
from .rounds import is_open
from .samples import Series
from .verdict import Settings, judge_series


@dataclass(frozen=True)
class Noise:
    """Standard deviations, as fractions of the time.

    sample: of one repetition, half-normal, since noise only slows down. offset: of a process, private to it (address layout,
    clock at the start). drift: of a round, shared by its two processes.
    """

    sample: float
    offset: float
    drift: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """Rounds that are run, and how they are extended while the verdict is UNSURE; by default those of `gate run` where the time
    that it says leaves room for the most of them."""

    first: int = 16
    step: int = 16
    most: int = 120
    samples: int = 7


def draw_series(noise: Noise, schedule: Schedule, slowdown: float, generator: np.random.Generator, name: str) -> Series:
    """One benchmark over `schedule.most` rounds whose candidate is slower by the fraction `slowdown`."""
    shape = (schedule.most, schedule.samples)
    drift = noise.drift * generator.standard_normal(schedule.most)

    def side(factor: float) -> list[tuple[float, ...]]:
        level = drift + noise.offset * generator.standard_normal(schedule.most)
        repetitions = np.abs(noise.sample * generator.standard_normal(shape))
        return [tuple(row) for row in (factor * np.exp(level)[:, None] * (1 + repetitions)).tolist()]

    return Series(name, "ns", side(1.0), side(1.0 + slowdown))


def final_rows(drawn: list[Series], schedule: Schedule, settings: Settings) -> list[RowResult]:
    """The rows as they end: every series has the first rounds, an open one gets more until the cap."""
    rounds = {series.name: schedule.first for series in drawn}
    while True:
        seen = [Series(s.name, s.unit, s.base[: rounds[s.name]], s.candidate[: rounds[s.name]]) for s in drawn]
        rows = judge_series(seen, [settings] * len(seen), {})
        more = [row.name for row in rows if is_open(row) and rounds[row.name] < schedule.most]
        if not more:
            return rows
        for name in more:
            rounds[name] = min(rounds[name] + schedule.step, schedule.most)


def rates(
    noise: Noise,
    slowdown: float,
    trials: int,
    seed: int,
    schedule: Schedule = Schedule(),
    settings: Settings = Settings(),
) -> dict[Outcome, float]:
    """Share of `trials` gates over one benchmark that end PASS, FAIL and UNSURE. Deterministic for a seed."""
    generator = np.random.default_rng(seed)
    ends = [
        final_rows([draw_series(noise, schedule, slowdown, generator, "row")], schedule, settings)[0].outcome
        for _ in range(trials)
    ]
    return {outcome: ends.count(outcome) / trials for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.FASTER, Outcome.UNSURE)}


def family_false_alarm_rate(
    noise: Noise,
    benchmarks: int,
    trials: int,
    seed: int,
    schedule: Schedule = Schedule(),
    settings: Settings = Settings(),
) -> float:
    """Share of `trials` A/A gates over many benchmarks in which at least one row FAILs."""
    generator = np.random.default_rng(seed)
    alarms = 0
    for _ in range(trials):
        drawn = [draw_series(noise, schedule, 0.0, generator, f"row {k}") for k in range(benchmarks)]
        alarms += any(row.outcome is Outcome.FAIL for row in final_rows(drawn, schedule, settings))
    return alarms / trials


def power_table(trials: int, seed: int) -> str:
    """Markdown: share of gates that FAIL, by the offset of a process, the rounds, and the true slowdown."""
    slowdowns = (0.0, 0.01, 0.02, 0.03, 0.05, 0.10)
    lines = ["| offset of a process | rounds | " + " | ".join(f"{100 * s:+g} %" for s in slowdowns) + " |"]
    lines.append("|---|---|" + "--:|" * len(slowdowns))
    for offset in (0.0025, 0.005, 0.01, 0.02):
        for first, most in ((8, 8), (24, 24), (24, 120)):
            schedule = Schedule(first=first, most=most)
            caught = [rates(Noise(0.005, offset), s, trials, seed, schedule)[Outcome.FAIL] for s in slowdowns]
            label = str(first) if first == most else f"{first} to {most}"
            lines.append(f"| {100 * offset:g} % | {label} | " + " | ".join(f"{rate:.3f}" for rate in caught) + " |")
    return "\n".join(lines) + "\n"
