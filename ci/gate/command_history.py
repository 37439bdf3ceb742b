"""`gate history`: results over time, each against what came before on the same machine, with a figure of the trend."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from .errors import ExitCode, InputError, one_line
from .files import write_file
from .options import bounded
from .render_trend import trend_figure
from .stored_result import REMEDY, read_result_document
from .text import percent

SCHEMA = "gate-history/1"
MACHINE = ("host_name", "num_cpus", "device", "gpu", "build_type", "library_build_type")
EARLIER = 10  # entries that make the stored baseline


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "history",
        help="a stored baseline and the trend",
        description="Keeps the candidate's values of each result in FILE (a branch, an artifact or any file), a JSON object a "
        "line. What --add brings is shown against the median of up to ten earlier entries of the same machine: slow drift that "
        "no single comparison shows. Exit code 1 only with --max-drift.",
    )
    parser.add_argument("file", metavar="FILE", help="the history; made if it is absent")
    parser.add_argument("--add", metavar="RESULT", help="the JSON result of `gate run` or `gate compare`")
    parser.add_argument("--label", default="", help="what the result is of, for example a commit")
    parser.add_argument("--figure", metavar="SVG", help="draw the trend of every benchmark")
    parser.add_argument(
        "--max-drift",
        type=bounded(float, 0.01, 1000),
        metavar="PERCENT",
        help="exit code 1 if a benchmark is slower than the stored baseline by more",
    )
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the command."""
    entries = read_history(options.file)
    worst = 0.0
    if options.add:
        entry = entry_of(options.add, options.label)
        base = baseline(entries, entry["machine"])
        for name, value in sorted(entry["values"].items()):
            known = base.get(name)
            change = value / known - 1 if known else None
            worst = max(worst, change or 0.0)
            shown = percent(change) if change is not None else "first of this machine"
            print(f"{one_line(name, 80)}: {value:.5g}, {shown}")
        entries.append(entry)
        write_file(options.file, "".join(json.dumps(one) + "\n" for one in entries))
    if options.figure:
        write_file(options.figure, trend_figure(entries))
    print(f"{len(entries)} entries in {options.file}")
    limit = options.max_drift
    if limit is not None and worst > limit / 100:
        print(f"FAIL: slower than the stored baseline by {percent(worst)}, more than {limit:g} %")
        return ExitCode.REGRESSION
    return ExitCode.PASS


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """The entries in `path`, none if it is absent. Errors: InputError naming file and line."""
    if not Path(path).exists():
        return []
    entries = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("schema") != SCHEMA or not _are_values(entry.get("values")):
            raise InputError(path, f"line {number} is no entry of schema {SCHEMA}", "restore the file")
        entries.append(entry | {"label": str(entry.get("label", "")), "machine": str(entry.get("machine", ""))})
    return entries


def entry_of(result: str | Path, label: str) -> dict[str, Any]:
    """What the history keeps of a result: the candidate's value of each compared row."""
    document = read_result_document(result)
    rows, context = document["rows"], document["context"]
    values = {}
    for row in rows:
        estimate = row.get("estimate") if isinstance(row, dict) else None
        if isinstance(estimate, dict) and isinstance(row.get("name"), str):
            values[row["name"]] = estimate.get("candidate_time")
    if not values or not _are_values(values):
        raise InputError(result, "holds no compared row with a time", REMEDY)
    machine = "; ".join(f"{key} {one_line(context[key], 60)}" for key in MACHINE if key in context)
    return {"schema": SCHEMA, "label": one_line(label, 60), "machine": machine, "values": values}


def baseline(entries: list[dict[str, Any]], machine: str) -> dict[str, float]:
    """For each benchmark the median of its last EARLIER values on `machine`."""
    values: dict[str, list[float]] = {}
    for entry in entries:
        if entry["machine"] == machine:
            for name, value in entry["values"].items():
                values.setdefault(name, []).append(value)
    return {name: statistics.median(found[-EARLIER:]) for name, found in values.items()}


def _are_values(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e300 for value in values.values()
    )
