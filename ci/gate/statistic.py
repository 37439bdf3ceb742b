"""The arithmetic of the gate: a round's value, the shift between both sides with its interval, A/A scatter, false-discovery
rule."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEDIAN_OVER_MEAN = math.sqrt(math.pi / 2)  # standard error of a median over that of a mean, normal noise
MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, normal noise


@dataclass(frozen=True)
class Shift:
    """How far values lie from zero, by Wilcoxon's signed ranks; shapes [...].

    centre: the Hodges-Lehmann estimate, the median of all averages of two values (a value with itself included). low, high:
    the interval around it.
    """

    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray


def signed_rank_shift(values: np.ndarray, confidence: float) -> Shift:
    """The shift of `values`, shape [..., rounds], with an interval that covers it in at least a share `confidence` of cases.

    Exact for any distribution that is symmetric about its shift, and log ratios of two runs of one program are: which of the
    two is called base is arbitrary. With fewer rounds than minimum_rounds(confidence) the interval is all that was seen.
    (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, sections 3.1 to 3.3.)
    """
    values = np.asarray(values, dtype=np.float64)
    rounds = values.shape[-1]
    one, other = np.triu_indices(rounds)
    averages = np.sort(0.5 * (values[..., one] + values[..., other]), axis=-1)
    cut = _cut(rounds, confidence)
    return Shift(np.median(averages, axis=-1), averages[..., cut], averages[..., averages.shape[-1] - 1 - cut])


def signed_rank_p_value(values: Sequence[float] | np.ndarray, bound: float) -> float:
    """Probability of signed ranks as high as these if the shift were at `bound`: small where it is above."""
    differences = np.asarray(values, dtype=np.float64) - bound
    one, other = np.triu_indices(len(differences))
    positive = int(np.count_nonzero(differences[one] + differences[other] > 0))
    return float(1.0 if positive == 0 else 1.0 - _distribution(len(differences))[positive - 1])


@functools.lru_cache(maxsize=256)
def _distribution(rounds: int) -> np.ndarray:
    """Probability that the sum of the positive signed ranks is at most 0, 1, ..., rounds (rounds + 1) / 2."""
    chances = np.zeros(rounds * (rounds + 1) // 2 + 1)
    chances[0] = 1.0
    for rank in range(1, rounds + 1):
        moved = np.zeros_like(chances)
        moved[rank:] = chances[: len(chances) - rank]
        chances = 0.5 * (chances + moved)
    return np.cumsum(chances)


def _cut(rounds: int, confidence: float) -> int:
    """How many averages are left out at each end."""
    return max(0, int(np.count_nonzero(_distribution(rounds) <= (1 - confidence) / 2 + 1e-12)) - 1)


def round_value(repetitions: Sequence[float]) -> float:
    """What one process says of a benchmark: the lower quartile of its repetitions.

    Other work on the machine only adds time, so the faster repetitions are nearer to the benchmark's own; the very fastest
    would follow a single freak.
    """
    ordered = sorted(repetitions)
    place = (len(ordered) - 1) / 4
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def minimum_rounds(confidence: float) -> int:
    """Fewest rounds for which an interval with this coverage exists.

    All of n values lie on one side of their shift with probability 2^(1-n), so not even [smallest, largest] covers it more
    often than 1 - 2^(1-n). 99 % needs 8 rounds.
    """
    return math.ceil(1 - math.log2(1 - confidence))


def run_scatter(base_medians: Sequence[float], log_ratios: Sequence[float]) -> float:
    """Scatter of one round's A/A log ratio as the run itself shows it (nan below 3 rounds).

    Two robust estimates, of which the smaller counts. Neighbouring rounds of the base are A/A pairs whose log ratios
    have median zero, but they also hold the drift from round to round, which pairs cancel. Log ratios of base and
    candidate about their own median are free of that drift, but a candidate that is noisy itself enlarges them; the
    smaller one can therefore not be raised by the candidate alone, nor by drift alone.
    """
    if len(base_medians) < 3:
        return math.nan
    steps = np.diff(np.log(np.asarray(base_medians, dtype=np.float64)))
    ratios = np.asarray(log_ratios, dtype=np.float64)
    return min(pair_scatter(steps), pair_scatter(ratios - np.median(ratios)))


def pair_scatter(log_ratios: Sequence[float] | np.ndarray) -> float:
    """Standard deviation of log ratios whose true median is zero: 1.4826 times the median of their absolute values, which a
    few hiccups do not change."""
    return float(MAD_TO_SIGMA * np.median(np.abs(np.asarray(log_ratios, dtype=np.float64))))


def median_scatter(round_scatter: float, rounds: int) -> float:
    """Standard error of the median over `rounds` log ratios that each have `round_scatter`."""
    return MEDIAN_OVER_MEAN * round_scatter / math.sqrt(rounds)


def rejected(p_values: Sequence[float], rate: float) -> list[bool]:
    """Benjamini-Hochberg: which hypotheses are rejected at false-discovery rate `rate`.

    The largest k with p_(k) <= rate * k / m rejects the k smallest p values.
    """
    m = len(p_values)
    order = sorted(range(m), key=lambda index: p_values[index])
    count = max((k for k in range(1, m + 1) if p_values[order[k - 1]] <= rate * k / m), default=0)
    chosen = set(order[:count])
    return [index in chosen for index in range(m)]
