"""What one benchmark process measured, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One benchmark of one process.

    times: every repetition that may be used, in `unit`, finite and above zero.
    processor: the processor time of the same repetitions where the program gave one, else empty.
    benchmark: the benchmark that the row belongs to; another name only for a counter's row.
    better: "down" for times, "up" for a counter that should grow.
    throttled: repetitions left out because the program marked them as throttled.
    error, skip: the program's own message when it did not measure. invalid: why what it gave is no measurement. With any of
    them `times` is empty.
    """

    name: str
    unit: str
    times: tuple[float, ...] = ()
    processor: tuple[float, ...] = ()
    benchmark: str = ""
    better: str = "down"
    throttled: int = 0
    error: str | None = None
    skip: str | None = None
    invalid: str | None = None


@dataclass(frozen=True)
class Waits:
    """What the system counted of one process. voluntary: times that it gave up the processor by itself. forced: times that it
    was made to. lost: seconds that it was not on a processor."""

    voluntary: int
    forced: int
    lost: float


@dataclass(frozen=True)
class Process:
    """One run of a benchmark program: the unit of replication.

    source: file that the run was read from, for messages.
    asked: the benchmarks that were asked for, None for all; a row outside it is not missing.
    waits: how it came off the processor; None for a file, which does not tell.
    """

    source: str
    context: dict[str, Any]
    rows: dict[str, Row]
    asked: frozenset[str] | None = None
    waits: Waits | None = None


@dataclass(frozen=True)
class Round:
    """Base and candidate, run next to each other in time."""

    base: Process
    candidate: Process


@dataclass
class Series:
    """One benchmark over all rounds in which both sides measured it.

    base, candidate: the repetitions of each round, in `unit`; equal lengths.
    benchmark: that they are of; another name only for a counter.
    metric: what they are: "real_time", "cpu_time", "instructions" or a counter's name.
    better: "down", or "up" for a counter that should grow.
    dropped: rounds left out because one side was throttled.
    """

    name: str
    unit: str
    base: list[tuple[float, ...]] = field(default_factory=list)
    candidate: list[tuple[float, ...]] = field(default_factory=list)
    benchmark: str = ""
    metric: str = "real_time"
    better: str = "down"
    dropped: int = 0
