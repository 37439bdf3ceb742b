"""Tells where the rounds of a benchmark fall into two groups, of which a median tells only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_GAP = 0.02  # of the time; closer groups are of no concern
LEAST_SHARE = 0.2  # of the rounds in the smaller group
LEAST_ROUNDS = 12


@dataclass(frozen=True)
class Modes:
    """Two groups of rounds: their medians and how many rounds are in each."""

    low: float
    high: float
    low_rounds: int
    high_rounds: int

    def text(self, unit: str) -> str:
        """For a report."""
        return f"{self.low_rounds} rounds near {self.low:.4g} {unit}, {self.high_rounds} near {self.high:.4g} {unit}"


def two_modes(values: Sequence[float]) -> Modes | None:
    """The two groups that `values` (positive) fall into, None if they are one.

    They are cut at the widest gap between neighbours that leaves LEAST_SHARE on both sides. They are two groups if the gap is
    at least LEAST_GAP of the time and wider than each group is from its lowest to its highest value. Rounds from one normal
    distribution do that in about one of a hundred cases at 12 rounds, and in fewer at more.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    least = max(2, int(np.ceil(LEAST_SHARE * count)))
    if count < LEAST_ROUNDS:
        return None
    gaps = np.diff(ordered)
    cut = least - 1 + int(np.argmax(gaps[least - 1 : count - least]))
    low, high = ordered[: cut + 1], ordered[cut + 1 :]
    wide = gaps[cut] >= LEAST_GAP * ordered[cut] and gaps[cut] > max(np.ptp(low), np.ptp(high))
    return Modes(float(np.median(low)), float(np.median(high)), len(low), len(high)) if wide else None
