"""What one benchmark process measured, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One benchmark of one process.

    times: every repetition that may be used, in `unit`, finite and above zero.
    throttled: repetitions left out because the program marked them as throttled.
    error, skip: the program's own message when it did not measure; then `times` is empty.
    """

    name: str
    unit: str
    times: tuple[float, ...] = ()
    throttled: int = 0
    error: str | None = None
    skip: str | None = None


@dataclass(frozen=True)
class Process:
    """One run of a benchmark program: the unit of replication.

    source: file that the run was read from, for messages.
    asked: the benchmarks that were asked for, None for all; a row outside it is not missing.
    """

    source: str
    context: dict[str, Any]
    rows: dict[str, Row]
    asked: frozenset[str] | None = None


@dataclass(frozen=True)
class Round:
    """Base and candidate, run next to each other in time."""

    base: Process
    candidate: Process


@dataclass
class Series:
    """One benchmark over all rounds in which both sides measured it.

    base, candidate: the repetitions of each round, in `unit`; equal lengths.
    dropped: rounds left out because one side was throttled.
    """

    name: str
    unit: str
    base: list[tuple[float, ...]] = field(default_factory=list)
    candidate: list[tuple[float, ...]] = field(default_factory=list)
    dropped: int = 0
