"""Rules of a project in a small TOML file: thresholds, counters and permissions by a pattern of the benchmark's name."""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError, one_line
from .google_benchmark import CounterRule

REMEDY = "see 'Rules of a project' in the gate's README"
PERCENTS = ("floor", "bound", "max_slowdown")
KEYS = ("match", *PERCENTS, "counters", "allow_missing")


@dataclass(frozen=True)
class RowRule:
    """What holds for the rows that the shell pattern `match` names. floor, bound, max_slowdown: fractions, None for what the
    command line says. counters: further numbers to judge. allow_missing: the candidate may lack such rows."""

    match: str
    floor: float | None = None
    bound: float | None = None
    max_slowdown: float | None = None
    counters: tuple[CounterRule, ...] = ()
    allow_missing: bool = False


def thresholds(rules: Sequence[RowRule], name: str) -> dict[str, float]:
    """The thresholds of the row `name`: each key from the first matching rule that has it."""
    found: dict[str, float] = {}
    for rule in rules:
        if fnmatch.fnmatchcase(name, rule.match):
            for key in PERCENTS:
                value = getattr(rule, key)
                if value is not None:
                    found.setdefault(key, value)
    return found


def read_row_rules(path: str | Path) -> tuple[RowRule, ...]:
    """The rules in `path`, tables [[rows]] in their order. Errors: InputError naming file, table and key."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"is not TOML: {error}", REMEDY) from None
    _refuse_unknown(path, "the file", document, ("rows",))
    tables = document.get("rows", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(path, "'rows' is not a list of tables [[rows]]", REMEDY)
    return tuple(_rule(path, f"rows[{index}]", table) for index, table in enumerate(tables))


def parse_counter(text: str, match: str = "*") -> CounterRule:
    """`items_per_second:up` or `bytes:down`. Errors: ValueError saying what is wrong."""
    name, colon, better = text.rpartition(":")
    if not colon or not name or better not in ("up", "down"):
        raise ValueError(f"'{one_line(text, 60)}' is not NAME:up or NAME:down (the direction that is better)")
    return CounterRule(match, name, better)


def _rule(path: str | Path, where: str, table: dict[str, Any]) -> RowRule:
    _refuse_unknown(path, where, table, KEYS)
    match = table.get("match")
    if not isinstance(match, str) or not match:
        raise InputError(path, f"{where}.match is not a pattern", REMEDY)
    percents = {key: _percent(path, f"{where}.{key}", table[key]) for key in PERCENTS if key in table}
    counters = table.get("counters", [])
    if not isinstance(counters, list) or not all(isinstance(one, str) for one in counters):
        raise InputError(path, f"{where}.counters is not a list of texts", REMEDY)
    try:
        parsed = tuple(parse_counter(one, match) for one in counters)
    except ValueError as error:
        raise InputError(path, f"{where}.counters: {error}", REMEDY) from None
    allow = table.get("allow_missing", False)
    if not isinstance(allow, bool):
        raise InputError(path, f"{where}.allow_missing is neither true nor false", REMEDY)
    return RowRule(match, percents.get("floor"), percents.get("bound"), percents.get("max_slowdown"), parsed, allow)


def _percent(path: str | Path, where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1000:
        raise InputError(path, f"{where} is not a number of percent above 0", REMEDY)
    return value / 100


def _refuse_unknown(path: str | Path, where: str, table: dict[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise InputError(path, f"{where} has an unknown key '{one_line(key, 60)}'", hint)
