"""The time that is said before the first round holds, on a simulated clock: what a process takes is given, nothing waits."""

import io
import random
import re
import time
from dataclasses import dataclass

import pytest

from gate.launcher import Command
from gate.progress import Progress
from gate.rounds import Collector, Plan
from gate.samples import Process, Row
from gate.verdict import Rules

NAMES = ("mix", "divide", "sum", "sort", "root", "text")
DEFAULT = {"first": 32, "step": 16, "most": 160, "seed": 1}


@dataclass
class Machine:
    """A clock, and a launcher whose processes move it.

    noise: of a row's time in a process, by row. load: what a process takes over what it takes on the idle machine, where
    `begun` seconds have passed. jitter: of that, from process to process.
    """

    generator: random.Random
    noise: dict[str, float]
    load: object
    jitter: float = 0.15
    now: float = 1000.0

    def rehearse(self, command: Command, side: str) -> Process:
        return self.run(command, side)

    def run(self, command: Command, label: str, asked: frozenset[str] | None = None) -> Process:
        names = NAMES if asked is None else sorted(asked)
        own = 0.2 + 0.3 * len(names)  # the start, and the rows
        self.now += own * self.load(self.now - 1000.0) * self.generator.lognormvariate(0, self.jitter)
        rows = {}
        for name in names:
            level = 100.0 * self.generator.lognormvariate(0, self.noise[name])
            rows[name] = Row(name, "us", (level,) * 7, (level,) * 7, name)
        return Process(label, {}, rows, asked)


def run(monkeypatch, seed: int, load, open_rows: int, plan: dict) -> tuple[float, float, int]:
    """Seconds said and taken, and rounds run, of one comparison of a program with itself."""
    noise = {name: 0.2 if index < open_rows else 0.004 for index, name in enumerate(NAMES)}
    machine = Machine(random.Random(seed), noise, load)
    monkeypatch.setattr(time, "monotonic", lambda: machine.now)
    text = io.StringIO()
    both = Command("base", "--base"), Command("candidate", "--candidate")
    rounds, _ = Collector(*both, machine, Rules(), Progress(text)).collect(Plan(**(DEFAULT | plan)))
    lines = text.getvalue().splitlines()
    said = seconds(re.search(r"about ((?:\d+ (?:min|s) ?)+)", lines[0])[1])
    return said, seconds(re.search(r"rounds in (.*)", lines[-1])[1]), len(rounds)


def seconds(text: str) -> float:
    return sum(int(count) * {"min": 60, "s": 1}[unit] for count, unit in re.findall(r"(\d+) (min|s)", text))


@pytest.mark.parametrize(
    "load",
    [lambda _: 1.0, lambda begun: 1 + begun / 80, lambda begun: max(0.6, 1 - begun / 80), lambda begun: 1 + (begun // 20) % 2],
    ids=["steady", "rising", "falling", "in turns"],
)
@pytest.mark.parametrize("open_rows", [0, 1, 2, 6])
def test_a_default_run_takes_what_was_said_within_thirty_percent(monkeypatch, load, open_rows):
    """Whether verdicts stay open, and whatever the load does meanwhile."""
    for seed in range(6):
        said, took, rounds = run(monkeypatch, seed, load, open_rows, {"hold_time": True})
        assert 0.7 <= took / said <= 1.3, f"seed {seed}: said {said}, took {took} in {rounds} rounds"
        assert rounds >= 16


def test_given_rounds_are_run_whatever_they_take(monkeypatch):
    said, took, rounds = run(monkeypatch, 1, lambda begun: 1.0 if begun < 6 else 3.0, 0, {"first": 30, "most": 30})
    assert rounds == 30 and took > 1.5 * said


def test_a_budget_is_kept(monkeypatch):
    for load in (lambda _: 1.0, lambda begun: 1 + begun / 30):
        _, took, rounds = run(monkeypatch, 1, load, 2, {"first": 200, "most": 1000, "budget": 100.0})
        assert 80 <= took <= 101 and rounds >= 8
