"""Google Benchmark's JSON as benchmarks with raw repetitions (reports/results/README.md gives names and counters)."""

import re
from pathlib import Path

from reports.errors import ReportError
from reports.loading.json_file import as_text, is_plausible, member, number
from reports.model import Benchmark, Context, path_name
from reports.selection import LADDER

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}

# Parts that Google Benchmark itself appends to a name: how it timed, not what it timed.
LIBRARY_FLAGS = {"manual_time", "real_time", "process_time"}
LIBRARY_KEYS = {"iterations", "repeats", "min_time", "min_warmup_time"}

# A step of a teaching ladder that runs as a provider of its kernel: number and version.
LADDER_PROVIDER = re.compile(r"provider:ladder-([0-9]{1,3})-(.+)")

FITTED_CURVES = ("BigO", "RMS")  # rows that belong to no benchmark

# Members of a row that are no user counters.
LIBRARY_MEMBERS = {
    "family_index",
    "per_family_instance_index",
    "repetitions",
    "repetition_index",
    "threads",
    "iterations",
    "real_time",
    "cpu_time",
}


def load(document: dict, path: Path) -> tuple[Context, list[Benchmark], list[str]]:
    """The context, the benchmarks and the rows that cannot be drawn (text: name and reason).

    Errors: a context or row that is not what Google Benchmark writes.
    """
    context = Context(path_name(path), _context_values(member(document, "context", dict, path)))
    benchmarks: dict[str, Benchmark] = {}
    aggregated: dict[str, None] = {}
    omitted = []
    for index, row in enumerate(member(document, "benchmarks", list, path)):
        where = f"benchmarks[{index}]"
        if not isinstance(row, dict):
            raise ReportError(path, f"'{where}' is not an object")
        name = own_name(str(row.get("run_name") or member(row, "name", str, path, where)))
        reason = _no_sample(row)
        if row.get("aggregate_name") in FITTED_CURVES:
            continue
        if row.get("run_type") == "aggregate":
            aggregated[name] = None
        elif reason:
            omitted.append(f"{name}: {reason}")
        elif (time := number(row, "real_time", path, where)) > 0.0:
            _add(benchmarks.setdefault(name, _named(name, context)), row, path, where)
        elif time == 0.0:
            omitted.append(f"{name}: its time is 0, so nothing was measured")
        else:
            raise ReportError(path, f"'{where}.real_time' is negative")
    for name in aggregated:
        if name not in benchmarks and not any(line.startswith(f"{name}: ") for line in omitted):
            omitted.append(f"{name}: only aggregates were kept; run without --benchmark_report_aggregates_only")
    return context, list(benchmarks.values()), omitted


def own_name(name: str) -> str:
    """The name without the parts that Google Benchmark appends, and a ladder's step under the ladder's stem."""
    stem, *parts = name.split("/")
    kept = []
    for part in parts:
        if step := LADDER_PROVIDER.fullmatch(part):
            stem += LADDER
            kept += ["provider:qshard", f"step:{step[1]}", f"version:{step[2].replace('-', '_')}"]
        elif part not in LIBRARY_FLAGS and part.partition(":")[0] not in LIBRARY_KEYS:
            kept.append(part)
    return "/".join([stem, *kept])


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """`stem/key:value/...` as stem and keys; a part without a colon is kept as the key `argument<position>`."""
    stem, *parts = name.split("/")
    keys = {}
    for position, part in enumerate(parts, start=1):
        key, colon, value = part.partition(":")
        keys[key if colon else f"argument{position}"] = value if colon else part
    return stem, keys


def _named(name: str, context: Context) -> Benchmark:
    stem, keys = split_name(name)
    return Benchmark(name, stem, keys, context)


def _context_values(table: dict) -> dict[str, str]:
    """Scalars only. A table of custom context, if a program nests one, is read as if it stood at the top."""
    nested = table.get("custom")
    merged = {**table, **nested} if isinstance(nested, dict) else table
    return {str(key): text for key, value in merged.items() if (text := as_text(value))}


def _no_sample(row: dict) -> str:
    if row.get("error_occurred"):
        return f"reported an error: {row.get('error_message') or 'without a message'}"
    if row.get("skipped"):
        return f"was skipped: {row.get('skip_message') or 'without a message'}"
    if is_plausible(row.get("throttled")) and row["throttled"] > 0:
        return f"repetition {row.get('repetition_index', '?')} ran while the device was throttled"
    return ""


def _add(benchmark: Benchmark, row: dict, path: Path, where: str) -> None:
    unit = row.get("time_unit", "ns")
    if not isinstance(unit, str) or unit not in SECONDS:
        raise ReportError(path, f"'{where}.time_unit' is {unit!r}, not one of {', '.join(SECONDS)}")
    benchmark.seconds.append(number(row, "real_time", path, where) * SECONDS[unit])
    benchmark.label = str(row.get("label") or benchmark.label)
    for key, value in row.items():
        if key not in LIBRARY_MEMBERS and is_plausible(value):
            benchmark.counters.setdefault(key, []).append(float(value))
