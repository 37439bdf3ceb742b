"""The arithmetic of the gate against slow, independent forms of it."""

import numpy as np
import pytest

from gate.statistic import bootstrap_medians, minimum_rounds, pair_scatter, rejected, run_scatter


@pytest.mark.parametrize("rounds", [1, 2, 3, 8, 12, 13])
def test_bootstrap_medians_are_the_medians_of_resamples(rounds):
    values = np.random.default_rng(5).standard_normal(rounds)
    drawn = np.random.default_rng([7, rounds]).integers(0, rounds, size=(500, rounds))
    expected = np.sort(np.median(np.sort(values)[drawn], axis=1))
    found = bootstrap_medians(values, 500, 7)
    assert np.repeat(found.values, np.diff(found.cumulative, prepend=0)).tobytes() == expected.tobytes()
    for tail in (0.0, 0.005, 0.1):
        assert (
            found.lower_end(tail) == expected[int(tail * 500)]
            and found.upper_end(tail) == expected[499 - int(tail * 500)]
        )
    for bound in (-9.0, expected[100], 0.0, 9.0):
        assert found.share_at_most(bound) == np.mean(expected <= bound)


def test_bootstrap_is_the_same_for_the_same_seed_and_another_for_another():
    values = np.linspace(0, 1, 12) ** 2
    one, same, other = (bootstrap_medians(values, 400, seed).cumulative.tobytes() for seed in (1, 1, 2))
    assert one == same and one != other


def test_interval_covers_the_true_median_about_as_often_as_promised():
    generator = np.random.default_rng(11)
    medians = bootstrap_medians(generator.standard_normal((4000, 12)), 2000, 1)
    covered = np.mean((medians.lower_end(0.005) <= 0) & (medians.upper_end(0.005) >= 0))
    assert 0.97 <= covered <= 1.0  # a bootstrap of twelve values is a little narrow


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
