"""Collects rounds: from fresh processes in random order, with more rounds for what is unsure, or from files."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .context import refuse_differences
from .errors import InputError
from .google_benchmark import ReadOptions, read_process
from .launcher import Command, Launcher
from .outcome import GateResult, Outcome, RowResult
from .progress import Progress, duration
from .samples import Process, Round
from .statistic import minimum_rounds
from .verdict import Rules, judge


# Of a run that holds its time: what is said over the time of the first rounds, since verdicts that stay open take more; the
# share of these rounds that every benchmark has in any case, after which most verdicts stand; what such a run takes of the
# time said.
WITH_OPEN_ROWS = 1.3
IN_ANY_CASE = 1 / 2
SHORTEST, LONGEST = 0.75, 1.2


@dataclass(frozen=True)
class Plan:
    """first: rounds that every benchmark gets. step, most: further rounds for UNSURE ones, and the cap. budget: seconds that
    all rounds may take, None for no limit. hold_time: the time that is said before the first round holds: every benchmark has
    IN_ANY_CASE of the first rounds, those whose verdict stays open the time that is left, and all have it where none is open.
    """

    first: int
    step: int
    most: int
    seed: int
    budget: float | None = None
    hold_time: bool = False


def random_orders(rounds: int, generator: random.Random) -> list[bool]:
    """Whether the base goes first, for each round: both orders equally often in any two rounds, by coin."""
    orders: list[bool] = []
    while len(orders) < rounds:
        first = generator.random() < 0.5
        orders += [first, not first]
    return orders[:rounds]


def read_rounds(base: Sequence[str | Path], candidate: Sequence[str | Path], options: ReadOptions) -> list[Round]:
    """Rounds from files: the k-th base file and the k-th candidate file are round k.

    Errors: InputError for unequal numbers of files, a file given twice or an unreadable file.
    """
    if len(base) != len(candidate):
        what = f"{len(base)} base files and {len(candidate)} candidate files"
        raise InputError("--base, --candidate", what, "give one file a process and equally many on both sides")
    for side, files in (("--base", base), ("--candidate", candidate)):
        repeated = next((path for path in files if list(files).count(path) > 1), None)
        if repeated is not None:
            raise InputError(side, f"{repeated} is given twice", "one file is one process, so it counts once")
    return [Round(read_process(one, options), read_process(other, options)) for one, other in zip(base, candidate)]


def open_benchmarks(result: GateResult) -> frozenset[str]:
    """The benchmarks that more rounds could decide."""
    return frozenset(row.series.benchmark for row in result.rows if row.series is not None and is_open(row))


def is_open(row: RowResult) -> bool:
    """Whether more rounds could decide this row: it is UNSURE, or passes although it looks slower by more than the floor."""
    if row.estimate is None:
        return False
    return row.outcome is Outcome.UNSURE or (row.outcome is Outcome.PASS and row.estimate.change > row.estimate.floor)


class Collector:
    """Runs rounds of two commands until every verdict stands or the cap is reached."""

    def __init__(self, base: Command, candidate: Command, launcher: Launcher, rules: Rules, progress: Progress) -> None:
        self._commands = {"base": base, "candidate": candidate}
        self._launcher = launcher
        self._rules = rules
        self._progress = progress
        self._rounds: list[Round] = []
        self._last_round = 0.0

    def collect(self, plan: Plan) -> tuple[list[Round], GateResult]:
        """All rounds that were run and the verdicts on them. Errors: InputError from the processes or their contexts.

        Both programs run once before, unjudged: what that takes is what a round will take, and files are in memory then.
        """
        orders = random_orders(plan.most, random.Random(plan.seed))
        plan, said = self._fit(plan, self._rehearse())
        limit = LONGEST * said if plan.hold_time else plan.budget
        first = math.ceil(IN_ANY_CASE * plan.first) if plan.hold_time else plan.first
        begin = time.monotonic()

        def spent() -> float:
            return time.monotonic() - begin

        def fits() -> bool:
            return limit is None or spent() + self._last_round <= limit

        def is_early() -> bool:
            return plan.hold_time and spent() < SHORTEST * said

        while len(self._rounds) < first:
            if self._rounds and plan.budget is not None and not fits():
                self._progress.note(f"the budget holds {len(self._rounds)} rounds only")
                plan = dataclasses.replace(plan, most=len(self._rounds))
                break
            self._run(orders[len(self._rounds)], None)
        result = judge(self._rounds, self._rules)
        while len(self._rounds) < plan.most and (open_benchmarks(result) or is_early()):
            asked = open_benchmarks(result) or None
            target = min(len(self._rounds) + plan.step, plan.most)
            if asked:
                self._progress.extend(target, len(asked))
            while len(self._rounds) < target and (asked or is_early()):
                if not fits():
                    self._progress.note(f"the time is spent: {duration(spent())}")
                    plan = dataclasses.replace(plan, most=len(self._rounds))
                    break
                self._run(orders[len(self._rounds)], asked)
            result = judge(self._rounds, self._rules)
        self._progress.end(len(self._rounds))
        return self._rounds, result

    def _rehearse(self) -> float:
        """Runs both programs once and gives the seconds that took. Errors: InputError where they must not be compared."""
        begin = time.monotonic()
        done = {side: self._launcher.rehearse(self._commands[side], side) for side in ("base", "candidate")}
        refuse_differences([Round(done["base"], done["candidate"])], self._rules.context)
        return time.monotonic() - begin

    def _fit(self, plan: Plan, seconds: float) -> tuple[Plan, float]:
        """The plan cut to its budget, and the seconds that it will take, which are announced."""
        if plan.budget is not None:
            first = max(1, min(plan.first, int(0.9 * plan.budget / seconds)))
            plan = dataclasses.replace(plan, first=first, most=max(first, plan.most))
        said = (WITH_OPEN_ROWS if plan.hold_time else 1.0) * plan.first * seconds
        longest = said if plan.hold_time else min(plan.most * seconds, plan.budget or math.inf)
        self._progress.start(plan.first, plan.most, said, longest)
        needed = minimum_rounds(self._rules.settings.confidence)
        if plan.first < needed and plan.budget is not None:
            self._progress.warn(f"the budget holds {plan.first} rounds; a verdict needs {needed}")
        return plan, said

    def _run(self, base_first: bool, asked: frozenset[str] | None) -> None:
        number, begin = len(self._rounds) + 1, time.monotonic()
        sides = ("base", "candidate") if base_first else ("candidate", "base")
        done: dict[str, Process] = {}
        for side in sides:
            self._progress.show(number, side)
            done[side] = self._launcher.run(self._commands[side], f"{side}-{number:03d}", self._names_on(side, asked))
        self._rounds.append(Round(done["base"], done["candidate"]))
        self._last_round = time.monotonic() - begin

    def _names_on(self, side: str, asked: frozenset[str] | None) -> frozenset[str] | None:
        """The names that the candidate knows, as `side` knows them."""
        if asked is None or side == "candidate":
            return asked
        old_names = {new: old for old, new in self._rules.lineup.renamed.items()}
        return frozenset(old_names.get(name, name) for name in asked)
