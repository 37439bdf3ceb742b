"""Measures on this machine how often the gate is wrong: the same program on both sides, and with a known delay."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .delay import DelayInjector
from .errors import InputError
from .launcher import Command, Launcher
from .outcome import GateResult, Outcome
from .progress import Progress
from .rounds import random_orders
from .samples import Round, Series
from .statistic import median_scatter, pair_scatter, round_value, signed_rank_shift
from .verdict import Rules, Settings, judge

SLOWDOWNS = (0.02, 0.03, 0.05, 0.10)


@dataclass(frozen=True)
class RowCheck:
    """One benchmark on this machine. scatter: of one A/A round. floor: that it leads to. false_alarms, power: shares of
    relabelled A/A experiments that end above the floor, as they are and with each of SLOWDOWNS added."""

    name: str
    scatter: float
    floor: float
    false_alarms: float
    power: tuple[float, ...]
    injected: Outcome | None


def run_pairs(
    command: Command,
    launcher: Launcher,
    rounds: int,
    seed: int,
    label: str,
    progress: Progress,
    injector: DelayInjector | None = None,
) -> list[Round]:
    """`rounds` rounds of one program on both sides in random order; with an injector the candidate is slowed down."""
    pairs = []
    progress.start(rounds, rounds)
    for number, base_first in enumerate(random_orders(rounds, random.Random(seed)), start=1):
        done = {}
        for side in ("base", "candidate") if base_first else ("candidate", "base"):
            progress.show(number, side)
            watch = injector.watch if injector is not None and side == "candidate" else None
            done[side] = launcher.run(command, f"{label}-{side}-{number:03d}", watch=watch)
        pairs.append(Round(done["base"], done["candidate"]))
    progress.end(rounds)
    return pairs


def log_ratios(series: Series) -> np.ndarray:
    """Log ratio of the rounds' values, shape [rounds]."""
    return np.array(
        [math.log(round_value(c)) - math.log(round_value(b)) for b, c in zip(series.base, series.candidate)]
    )


def relabelled_alarms(ratios: np.ndarray, shift: float, floor: float, settings: Settings, trials: int, seed: int = 1) -> float:
    """Share of `trials` experiments that find a slowdown when `shift` is added to A/A log ratios.

    Which side of an A/A round is called base is arbitrary, so each experiment flips the sign of each log ratio
    by a coin and draws the rounds anew.
    """
    generator = np.random.default_rng([seed, len(ratios)])
    drawn = generator.choice(ratios, size=(trials, len(ratios))) * generator.choice(
        (-1.0, 1.0), size=(trials, len(ratios))
    )
    low = signed_rank_shift(drawn + shift, settings.confidence).low
    return float(np.mean(low > math.log1p(floor)))


def check_rows(
    result: GateResult, settings: Settings, injected: GateResult | None, trials: int = 1000
) -> list[RowCheck]:
    """Scatter, floor and error rates of each benchmark of an A/A `result`, with its verdict under the injected delay."""
    outcomes = {row.name: row.outcome for row in injected.rows} if injected else {}
    checks = []
    for row in sorted(result.compared, key=lambda one: one.name):
        if row.series is None:
            continue
        ratios = log_ratios(row.series)
        scatter = pair_scatter(ratios)
        noise = math.expm1(settings.scatter_multiple * median_scatter(scatter, len(ratios)))
        floor = max(settings.floor, noise)
        alarms = [relabelled_alarms(ratios, math.log1p(s), floor, settings, trials) for s in (0.0, *SLOWDOWNS)]
        checks.append(RowCheck(row.name, scatter, floor, alarms[0], tuple(alarms[1:]), outcomes.get(row.name)))
    return checks


def judge_pairs(pairs: Sequence[Round], rules: Rules) -> GateResult:
    """The gate's verdict on A/A pairs. Errors: InputError if nothing could be compared."""
    result = judge(pairs, rules)
    if not result.compared:
        raise InputError(pairs[0].base.source, "no benchmark was measured on both sides", "see its error messages")
    return result
