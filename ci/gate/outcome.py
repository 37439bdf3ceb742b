"""What the gate concludes about one benchmark and about all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .errors import ExitCode
from .samples import Series


class Outcome(Enum):
    """PASS, FAIL, FASTER, UNSURE are verdicts on a measured change; the others say why there is none.

    MISSING: removed, or skipped by the candidate only. ERROR: the benchmark failed to run. WRONG: it computed a
    wrong result. INVALID: a side gave a number that is no measurement. NEW: the base has not measured it. SKIPPED: both
    sides skip it, or its absence is allowed.
    """

    WRONG = "WRONG"
    ERROR = "ERROR"
    MISSING = "MISSING"
    FAIL = "FAIL"
    INVALID = "INVALID"
    UNSURE = "UNSURE"
    FASTER = "FASTER"
    PASS = "PASS"
    NEW = "NEW"
    SKIPPED = "SKIPPED"

    @property
    def fails(self) -> bool:
        """Whether one such row ends the gate with another exit code than 0, whatever the options."""
        return self in _FAILING


_FAILING = {  # and the verdict on the whole run that such a row makes
    Outcome.WRONG: Outcome.WRONG,
    Outcome.ERROR: Outcome.FAIL,
    Outcome.MISSING: Outcome.FAIL,
    Outcome.FAIL: Outcome.FAIL,
    Outcome.INVALID: Outcome.INVALID,
}


@dataclass(frozen=True)
class Estimate:
    """A measured change. All of change, low, high, floor, bound are fractions: 0.05 is 5 % slower, or worse.

    change: of the rounds' log ratios (signed_rank_shift), as exp() - 1. low, high: ends of its interval, so that high is what
    the row could still hide. floor: a FAIL needs more than this shown. bound: a PASS needs high below it. p_value: of a change
    at or below the floor. base_time, candidate_time: medians over rounds of the rounds' values, in the row's
    unit; base_spread, candidate_spread: their relative scatter from round to round.
    """

    change: float
    low: float
    high: float
    floor: float
    floor_source: str
    bound: float
    p_value: float
    rounds: int
    base_time: float
    candidate_time: float
    base_spread: float
    candidate_spread: float


@dataclass
class RowResult:
    """One line of every report. reason: why the outcome is what it is. notes: what else a reader should know."""

    name: str
    outcome: Outcome
    reason: str = ""
    series: Series | None = None
    estimate: Estimate | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class GateResult:
    """All that a report shows. rows: worst first. settings: what the verdicts depend on. notes: remarks for people."""

    rows: list[RowResult]
    settings: dict[str, object]
    context: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    strict: bool = False

    def count(self, outcome: Outcome) -> int:
        """Number of rows with this outcome."""
        return sum(row.outcome is outcome for row in self.rows)

    @property
    def compared(self) -> list[RowResult]:
        """Rows with a measured change."""
        return [row for row in self.rows if row.estimate is not None]

    @property
    def verdict(self) -> Outcome:
        """WRONG, FAIL, INVALID, UNSURE or PASS for the whole run; a run that compared nothing is UNSURE."""
        failing = {_FAILING[row.outcome] for row in self.rows if row.outcome.fails}
        for verdict in (Outcome.WRONG, Outcome.FAIL, Outcome.INVALID):
            if verdict in failing:
                return verdict
        if self.count(Outcome.UNSURE) or not self.compared:
            return Outcome.UNSURE
        return Outcome.PASS

    @property
    def exit_code(self) -> ExitCode:
        """The verdict as exit status."""
        unsure = ExitCode.UNSURE if self.strict else ExitCode.PASS
        codes = {
            Outcome.WRONG: ExitCode.REGRESSION,
            Outcome.FAIL: ExitCode.REGRESSION,
            Outcome.INVALID: ExitCode.BAD_INPUT,
            Outcome.UNSURE: unsure,
        }
        return codes.get(self.verdict, ExitCode.PASS)
