"""Reads Google Benchmark's JSON (1.5 and later) into a Process, trusting nothing in it."""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError, one_line
from .samples import Process, Row

REMEDY = "write it again with --benchmark_out=FILE --benchmark_out_format=json"
DRY_RUN = "is of a dry run (--benchmark_dry_run): one first call of each benchmark, which is no measurement"
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SHORTEST, LONGEST = 1e-18, 1e9  # seconds; outside of that a time is impossible
COMPLEXITY = ("BigO", "RMS")  # fitted curves, which are rows of no benchmark
SKIP_MESSAGE = re.compile(r"skip|not supported|unsupported", re.IGNORECASE)


@dataclass(frozen=True)
class CounterRule:
    """A counter that is judged like a time. match: shell pattern of benchmarks. better: "up" or "down"."""

    match: str
    name: str
    better: str


@dataclass(frozen=True)
class ReadOptions:
    """metric: the time that is judged, "auto" for what metric.py chooses. throttle_counter: user counter or context key
    that marks throttling. counters: user counters that get rows of their own."""

    metric: str = "auto"
    throttle_counter: str = "throttled"
    counters: tuple[CounterRule, ...] = ()


def read_process(path: str | Path, options: ReadOptions, asked: frozenset[str] | None = None) -> Process:
    """The run recorded in `path`. Errors: InputError naming the file, whatever its bytes are."""
    document = read_json_object(path, REMEDY)
    entries = document.get("benchmarks")
    if not isinstance(entries, list):
        raise InputError(path, "no list 'benchmarks', so this is not a Google Benchmark result", REMEDY)
    if not entries:
        raise InputError(path, "holds no benchmark", "check the filter that the program was run with")
    context = document.get("context", {})
    if not isinstance(context, dict):
        raise InputError(path, "'context' is not an object", REMEDY)
    groups: dict[str, list[dict[str, Any]]] = {}
    for index, entry in enumerate(entries):
        name = _name_of(path, index, entry)
        if entry.get("aggregate_name") not in COMPLEXITY:
            groups.setdefault(name, []).append(entry)
    if _is_set(context.get("dry_run")):
        raise InputError(path, DRY_RUN, "run it without that")
    whole_run_throttled = _is_set(context.get(options.throttle_counter))
    rows = {}
    for name, group in groups.items():
        rows[name] = _row(path, name, group, options, whole_run_throttled)
        rows |= {row.name: row for row in _counter_rows(rows[name], group, options)}
    return Process(str(path), context, rows, asked)


def read_json_object(path: str | Path, remedy: str) -> dict[str, Any]:
    """The JSON object in `path`. Errors: InputError naming the file and, for bad JSON, the line."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
        document = json.loads(text, parse_constant=str)  # NaN and Infinity stay words
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"is not UTF-8 text (byte {error.start})", remedy) from None
    except json.JSONDecodeError as error:
        raise InputError(path, f"is not complete JSON: {error.msg} at line {error.lineno}", remedy) from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not usable JSON: {error}", remedy) from None
    if not isinstance(document, dict):
        raise InputError(path, "is not a JSON object", remedy)
    return document


def _name_of(path: str | Path, index: int, entry: Any) -> str:
    if not isinstance(entry, dict):
        raise InputError(path, f"benchmarks[{index}] is not an object", REMEDY)
    name = entry.get("run_name", entry.get("name"))
    if not isinstance(name, str) or not name:
        raise InputError(path, f"benchmarks[{index}] has no name", REMEDY)
    return name


def _row(path: str | Path, name: str, group: list[dict[str, Any]], options: ReadOptions, throttled: bool) -> Row:
    if any(not isinstance(entry.get("time_unit", ""), str) for entry in group):
        raise InputError(path, f"{one_line(name)}: time_unit is not text", REMEDY)
    units = {entry["time_unit"] for entry in group if "time_unit" in entry}
    for entry in group:
        message = _not_measured(entry)
        if message is not None:
            is_skip = bool(entry.get("skipped")) or SKIP_MESSAGE.match(message) is not None
            unit = min(units, default="ns")
            return Row(name, unit, benchmark=name, **{"skip" if is_skip else "error": message})
    unit = _unit_of(path, name, units, group)
    measured = [entry for entry in group if entry.get("run_type", "iteration") == "iteration"]
    if not measured:
        measured = [entry for entry in group if entry.get("aggregate_name") == "median"]
    if not measured:
        raise InputError(path, f"{one_line(name)}: neither repetitions nor a median", REMEDY)
    _refuse_duplicates(path, name, measured)
    used = [entry for entry in measured if not throttled and not _is_set(entry.get(options.throttle_counter))]
    metric = "real_time" if options.metric == "auto" else options.metric
    for entry in used:
        impossible = _impossible(entry.get(metric), metric, unit)
        if impossible:
            return Row(name, unit, benchmark=name, invalid=impossible)
    times = tuple(float(entry[metric]) for entry in used)
    processor: tuple[float, ...] = ()
    if options.metric == "auto" and all(not _impossible(entry.get("cpu_time"), "cpu_time", unit) for entry in used):
        processor = tuple(float(entry["cpu_time"]) for entry in used)
    return Row(name, unit, times, processor, benchmark=name, throttled=len(measured) - len(used))


def _not_measured(entry: dict[str, Any]) -> str | None:
    if entry.get("skipped"):
        return one_line(entry.get("skip_message") or "skipped without a reason")
    if entry.get("error_occurred"):
        return one_line(entry.get("error_message") or "error without a message")
    return None


def _unit_of(path: str | Path, name: str, units: set[str], group: list[dict[str, Any]]) -> str:
    if len(units) != 1 or any("time_unit" not in entry for entry in group):
        raise InputError(path, f"{one_line(name)}: time_unit is missing or differs between entries", REMEDY)
    unit = units.pop()
    if unit not in SECONDS:
        known = f"known: {', '.join(SECONDS)}"
        raise InputError(path, f"{one_line(name)}: unknown time_unit '{one_line(unit)}'", known)
    return unit


def _refuse_duplicates(path: str | Path, name: str, entries: list[dict[str, Any]]) -> None:
    indices = [repr(entry.get("repetition_index")) for entry in entries]
    if len(set(indices)) != len(indices):
        raise InputError(path, f"{one_line(name)}: two benchmarks have this name", "give each its own name")


def _impossible(value: Any, metric: str, unit: str) -> str:
    """Why `value` is no time that a program can take; empty if it is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{metric} is {one_line(value, 40)}, not a number"
    if value == 0:
        return f"{metric} is 0: nothing was measured"
    if abs(value) > 1e300 or not SHORTEST <= value * SECONDS[unit] <= LONGEST:
        return f"{metric} is {one_line(value, 40)} {unit}, which is not a time that a program can take"
    return ""


def _counter_rows(row: Row, group: list[dict[str, Any]], options: ReadOptions) -> list[Row]:
    """A row for each counter that is asked for; none where the benchmark was not measured or lacks the counter."""
    used = [
        entry
        for entry in group
        if entry.get("run_type", "iteration") == "iteration" and not _is_set(entry.get(options.throttle_counter))
    ]
    found: dict[str, Row] = {}
    for rule in options.counters:
        name = f"{row.name} [{rule.name}]"
        values = [entry[rule.name] for entry in used if rule.name in entry]
        if name in found or not row.times or not values or not fnmatch.fnmatchcase(row.name, rule.match):
            continue
        bad = next((value for value in values if not _is_positive(value)), None)
        invalid = None if bad is None else f"{rule.name} is {one_line(bad, 40)}, not a positive number"
        times = tuple(float(value) for value in values) if invalid is None else ()
        found[name] = Row(name, rule.name, times, (), row.benchmark, rule.better, row.throttled, invalid=invalid)
    return list(found.values())


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 1e-300 < value < 1e300


def _is_set(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "no", "none")
    return bool(value)
