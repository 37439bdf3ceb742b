"""The arithmetic of the gate against slow, independent forms of it."""

import itertools

import numpy as np
import pytest

from gate.modes import two_modes
from gate.statistic import (
    minimum_rounds,
    pair_scatter,
    rejected,
    round_value,
    run_scatter,
    signed_rank_p_value,
    signed_rank_shift,
)


def sums_of_ranks(rounds):
    """The sum of the positive ranks for each of the 2^rounds ways to give them signs."""
    return [sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in itertools.product((0, 1), repeat=rounds)]


@pytest.mark.parametrize("rounds", [1, 2, 5, 9])
def test_the_p_value_counts_all_ways_to_give_signs(rounds):
    values = np.random.default_rng(rounds).standard_normal(rounds)
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    seen = int(ranks[values > 0].sum())
    expected = np.mean([total >= seen for total in sums_of_ranks(rounds)])
    assert signed_rank_p_value(values, 0.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rounds", [8, 9, 11])
def test_the_interval_holds_exactly_the_shifts_that_the_test_does_not_reject(rounds):
    values = np.random.default_rng(rounds).standard_normal(rounds)
    found = signed_rank_shift(values, 0.99)
    for bound in np.linspace(values.min() - 0.1, values.max() + 0.1, 301):
        is_low = signed_rank_p_value(values, bound) <= 0.005
        is_high = signed_rank_p_value(-values, -bound) <= 0.005
        assert (found.low <= bound <= found.high) == (not is_low and not is_high)


def test_the_centre_is_the_median_of_pairwise_averages():
    values = [3.0, -1.0, 10.0]
    averages = [3.0, -1.0, 10.0, 1.0, 6.5, 4.5]
    assert float(signed_rank_shift(np.array(values), 0.99).centre) == np.median(averages)


@pytest.mark.parametrize("rounds", [8, 12, 24, 72])
def test_the_interval_covers_the_shift_as_often_as_promised(rounds):
    """Two modes and long tails, drawn 1,000 times: at most 1 % are missed, four standard errors of that count allowed."""
    generator = np.random.default_rng(rounds)
    drawn = generator.standard_t(2, (1000, rounds)) + 8 * generator.integers(0, 2, (1000, rounds)) - 4
    found = signed_rank_shift(drawn, 0.99)
    assert np.mean((found.low > 0) | (found.high < 0)) <= 0.01 + 4 * (0.01 * 0.99 / 1000) ** 0.5


def test_a_round_is_its_lower_quartile():
    assert round_value([5.0, 1.0, 2.0, 9.0, 3.0]) == 2.0 and round_value([7.0]) == 7.0


def test_two_modes_are_told_and_one_is_not():
    generator = np.random.default_rng(2)
    one = 100 * np.exp(0.05 * generator.standard_normal((400, 24)))
    assert sum(two_modes(values) is not None for values in one) <= 4
    both = np.where(np.arange(24) % 3 == 0, 114.0, 100.0) + generator.standard_normal(24)
    found = two_modes(both)
    assert (found.low_rounds, found.high_rounds) == (16, 8) and "16 rounds near" in found.text("ns")
    assert two_modes(both[:8]) is None and two_modes([1.0] * 23 + [2.0]) is None


def test_minimum_rounds():
    assert [minimum_rounds(c) for c in (0.90, 0.95, 0.99)] == [5, 6, 8]
    assert all(1 - 2 ** (1 - minimum_rounds(c)) >= c for c in (0.5, 0.9, 0.99, 0.999))


def test_benjamini_hochberg_by_hand():
    assert rejected([0.01, 0.02, 0.03, 0.04], 0.05) == [True] * 4  # the largest p value carries the others
    assert rejected([0.04, 0.03, 0.02, 0.05], 0.05) == [True] * 4
    assert rejected([0.011, 0.5, 0.6, 0.7, 0.8], 0.05) == [False] * 5  # 0.011 > 0.05 / 5
    assert rejected([0.009, 0.5, 0.6, 0.7, 0.8], 0.05) == [True] + [False] * 4
    assert rejected([], 0.05) == []


def test_scatter_is_the_standard_deviation_of_a_pair():
    generator = np.random.default_rng(3)
    assert pair_scatter(0.02 * generator.standard_normal(20000)) == pytest.approx(0.02, rel=0.03)
    base, candidate = (100 * np.exp(0.01 * generator.standard_normal(20000)) for _ in range(2))
    assert run_scatter(base, np.log(1.3 * candidate / base)) == pytest.approx(0.01 * 2**0.5, rel=0.03)


def test_scatter_is_raised_neither_by_drift_nor_by_the_candidate_alone():
    generator = np.random.default_rng(4)
    private = [0.01 * generator.standard_normal(5000) for _ in range(2)]
    drift = 0.2 * generator.standard_normal(5000)
    assert run_scatter(np.exp(drift + private[0]), private[1] - private[0]) < 0.016
    noisy = 0.2 * generator.standard_normal(5000)
    assert run_scatter(np.exp(private[0]), noisy - private[0]) < 0.016
