"""Refuses to compare runs made under different conditions, and names the key that differs."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError, one_line
from .samples import Process, Round

CLOCK_TOLERANCE = 0.05  # a free-running clock reads a few percent differently in each process
MUST_AGREE = re.compile(
    r"host|num_cpus|caches|cpu_scaling|aslr|build_type|build_mode|compiler|flags|device|gpu|driver|cuda|nccl"
    r"|uuid|mig|power_limit|clock|mhz|governor|persistence",
    re.IGNORECASE,
)
CLOCK = re.compile(r"clock|mhz", re.IGNORECASE)
NEVER = re.compile(r"^(date|executable|load_avg|json_schema_version)$|ceiling|measured|date|hash|commit", re.IGNORECASE)


@dataclass(frozen=True)
class ContextRule:
    """require: further keys that must agree. ignore: keys that may differ."""

    require: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()

    def must_agree(self, key: str) -> bool:
        """Whether runs that differ in `key` are refused."""
        if key in self.ignore:
            return False
        return key in self.require or (MUST_AGREE.search(key) is not None and NEVER.search(key) is None)


def refuse_differences(rounds: Sequence[Round], rule: ContextRule) -> list[str]:
    """Checks that every process of both sides ran under the same conditions.

    Device, driver, build type and all that MUST_AGREE names must be equal in every process; a clock in MHz or
    Hz may differ by CLOCK_TOLERANCE between the medians of the two sides.
    Returns a line for each other key that differs, for the report. Errors: InputError naming key and files.
    """
    processes = [process for pair in rounds for process in (pair.base, pair.candidate)]
    keys = sorted({key for process in processes for key in process.context})
    notes = []
    for key in keys:
        if rule.must_agree(key):
            if not _clocks_agree(rounds, key):
                _refuse_first_difference(processes, key)
        elif NEVER.search(key) is None and len({repr(process.context.get(key)) for process in processes}) > 1:
            notes.append(f"context '{one_line(key, 80)}' differs between processes (not a reason to refuse)")
    return notes


def _clocks_agree(rounds: Sequence[Round], key: str) -> bool:
    """True if `key` is a clock that every process gives as a number and both sides' medians are close."""
    base = [number for pair in rounds if (number := _number(pair.base.context.get(key))) is not None]
    candidate = [number for pair in rounds if (number := _number(pair.candidate.context.get(key))) is not None]
    if CLOCK.search(key) is None or len(base) < len(rounds) or len(candidate) < len(rounds):
        return False
    one, other = statistics.median(base), statistics.median(candidate)
    return abs(one - other) <= CLOCK_TOLERANCE * max(one, other)


def _refuse_first_difference(processes: Sequence[Process], key: str) -> None:
    first = processes[0]
    for other in processes[1:]:
        if first.context.get(key) != other.context.get(key):
            values = [_shown(process, key) for process in (first, other)]
            what = f"context key '{one_line(key, 80)}' differs: {values[0]} here, {values[1]} in {other.source}"
            remedy = f"measure both under the same conditions, or allow it with --ignore-context {one_line(key, 80)}"
            raise InputError(first.source, what, remedy)


def _shown(process: Process, key: str) -> str:
    return one_line(process.context[key], 80) if key in process.context else "absent"


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
