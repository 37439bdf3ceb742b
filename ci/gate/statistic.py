"""The arithmetic of the gate: median log ratio, bootstrap interval, A/A scatter, false-discovery rule."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEDIAN_OVER_MEAN = math.sqrt(math.pi / 2)  # standard error of a median over that of a mean, normal noise
MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, normal noise


@dataclass(frozen=True)
class MedianDistribution:
    """Medians of bootstrap resamples: sorted `values` [..., k] and how many of all resamples lie at or below each."""

    values: np.ndarray
    cumulative: np.ndarray

    @property
    def resamples(self) -> int:
        """Number of resamples."""
        return int(self.cumulative.flat[-1])

    def lower_end(self, tail: float) -> np.ndarray:
        """The value with at most a fraction `tail` of the medians below it, shape [...]."""
        return self._ranked(math.floor(tail * self.resamples))

    def upper_end(self, tail: float) -> np.ndarray:
        """The value with at most a fraction `tail` of the medians above it, shape [...]."""
        return self._ranked(self.resamples - 1 - math.floor(tail * self.resamples))

    def share_at_most(self, bound: float) -> np.ndarray:
        """Share of the medians that are at or below `bound`, shape [...]."""
        counts = np.where(self.values <= bound, self.cumulative, 0)
        return counts.max(axis=-1) / self.resamples

    def _ranked(self, rank: int) -> np.ndarray:
        index = np.count_nonzero(self.cumulative <= rank, axis=-1)
        return np.take_along_axis(self.values, np.asarray(index)[..., None], axis=-1)[..., 0]


@functools.lru_cache(maxsize=64)
def _median_positions(rounds: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which two order statistics make the median of a resample of `rounds` values drawn with replacement, for each
    distinct pair, and in how many resamples they do."""
    drawn = np.random.default_rng([seed, rounds]).integers(0, rounds, size=(resamples, rounds))
    middle = [(rounds - 1) // 2, rounds // 2]
    drawn.partition(middle, axis=1)
    pairs, counts = np.unique(drawn[:, middle[0]] * rounds + drawn[:, middle[1]], return_counts=True)
    return pairs // rounds, pairs % rounds, counts


def bootstrap_medians(values: np.ndarray, resamples: int, seed: int) -> MedianDistribution:
    """Medians of `resamples` bootstrap resamples of `values`, shape [..., rounds].

    The same seed gives the same bytes; the draws depend on the number of rounds only, so a row's interval does not
    depend on the other rows.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    low, high, counts = _median_positions(ordered.shape[-1], resamples, seed)
    medians = 0.5 * (ordered[..., low] + ordered[..., high])
    order = np.argsort(medians, axis=-1, kind="stable")
    return MedianDistribution(np.take_along_axis(medians, order, axis=-1), np.cumsum(counts[order], axis=-1))


def minimum_rounds(confidence: float) -> int:
    """Fewest rounds for which any interval of a median can have this coverage.

    All of n values lie on one side of their distribution's median with probability 2^(1-n), so not even
    [smallest, largest] covers it more often than 1 - 2^(1-n). 99 % needs 8 rounds.
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
