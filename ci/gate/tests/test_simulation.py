"""Error rates that the gate promises, on simulated noise, through the code that judges real runs."""

import pytest

from gate.outcome import Outcome
from gate.simulation import Noise, Schedule, family_false_alarm_rate, rates

SETTINGS = [
    Noise(0.005, 0.0),
    Noise(0.005, 0.002),
    Noise(0.005, 0.005),
    Noise(0.005, 0.01),
    Noise(0.005, 0.02),
    Noise(0.02, 0.01),
    Noise(0.005, 0.0025, drift=0.01),
]


@pytest.mark.parametrize("noise", SETTINGS, ids=str)
def test_false_alarms_of_identical_programs(noise):
    assert rates(noise, 0.0, trials=600, seed=101)[Outcome.FAIL] <= 0.01


@pytest.mark.parametrize("rounds", [8, 20])
def test_false_alarms_with_fewer_and_more_rounds(rounds):
    schedule = Schedule(first=rounds, most=rounds)
    assert rates(Noise(0.005, 0.02), 0.0, 600, 102, schedule)[Outcome.FAIL] <= 0.01


def test_five_percent_at_half_a_percent_offset_is_caught_with_twelve_rounds():
    schedule = Schedule(first=12, most=12)
    assert rates(Noise(0.005, 0.005), 0.05, 1000, 103, schedule)[Outcome.FAIL] >= 0.99


def test_drift_that_both_sides_share_does_not_hide_three_percent():
    schedule = Schedule(first=12, most=12)
    assert rates(Noise(0.005, 0.0025, drift=0.01), 0.03, 400, 104, schedule)[Outcome.FAIL] >= 0.99


def test_identical_programs_mostly_pass():
    assert rates(Noise(0.005, 0.005), 0.0, 400, 105)[Outcome.PASS] >= 0.95


def test_fifty_benchmarks_together_raise_no_more_alarms_than_one():
    assert family_false_alarm_rate(Noise(0.005, 0.01), benchmarks=50, trials=40, seed=106) <= 0.01


def test_one_slow_benchmark_among_fifty_is_found():
    import numpy as np

    from gate.simulation import draw_series, final_rows
    from gate.verdict import Settings

    generator, schedule = np.random.default_rng(107), Schedule()
    for _ in range(10):
        drawn = [
            draw_series(Noise(0.005, 0.005), schedule, 0.05 if k == 7 else 0.0, generator, f"row {k}")
            for k in range(50)
        ]
        found = [row.name for row in final_rows(drawn, schedule, Settings()) if row.outcome is Outcome.FAIL]
        assert found == ["row 7"]


def test_the_simulation_can_fail():
    """A gate without floor and interval, any slower median fails, would not keep the promise."""
    import numpy as np

    from gate.simulation import draw_series

    generator, schedule = np.random.default_rng(108), Schedule()
    drawn = [draw_series(Noise(0.005, 0.005), schedule, 0.0, generator, "row") for _ in range(200)]
    slower = [np.median(np.log(np.median(s.candidate, axis=1) / np.median(s.base, axis=1))) > 0 for s in drawn]
    assert np.mean(slower) > 0.2
