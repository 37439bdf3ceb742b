"""`gate instructions`: instruction counts against recorded ones; no timing, so every machine can block on it."""

from __future__ import annotations

import argparse
import json
import sys

from .callgrind import Profile, environment, profile
from .errors import ExitCode, InputError, one_line
from .files import write_file
from .instruction_record import Entry, Record, read_record, write_record
from .options import bounded


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "instructions",
        help="instruction counts by callgrind against a record",
        description="Runs each command of RECORD under callgrind in the current directory. Exit code 1 if a count has grown by "
        "more than the record's limit or was never recorded.",
    )
    parser.add_argument("record", metavar="RECORD", help="JSON file of commands and counts")
    parser.add_argument("--accept", action="store_true", help="record the counts of this run as the new ones")
    parser.add_argument(
        "--timeout", type=bounded(float, 0.01, 1e6), default=1800.0, metavar="SECONDS", help="of one command"
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON")
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the comparison."""
    record, here = read_record(options.record), environment()
    _refuse_other_machine(options, record, here)
    counts = count_all(record, options.record, options.timeout)
    rows = [(entry, counts[entry.name], judge(entry, counts[entry.name], record.limit)) for entry in record.entries]
    _show(rows)
    changed = [key for key in here if record.environment.get(key, here[key]) != here[key]]
    for key in changed:
        print(f"note: {key} is {here[key]}, the record was made with {record.environment[key]}")
    if options.json:
        document = {
            "schema": "gate-instruction-counts/1",
            "environment": here,
            "rows": [
                {"name": entry.name, "recorded": entry.instructions, "now": now, "verdict": verdict}
                for entry, now, verdict in rows
            ],
        }
        write_file(options.json, json.dumps(document, indent=1) + "\n")
    if options.accept:
        write_record(options.record, record.accept(counts, here))
        print(f"accepted: {len(counts)} counts are now recorded in {options.record}")
        return ExitCode.PASS
    bad = [entry.name for entry, _, verdict in rows if verdict in ("FAIL", "NEW")]
    head = f"{'FAIL' if bad else 'PASS'}: {len(bad)} of {len(rows)} counts"
    remedy = "; if that is meant, record it with --accept" if bad else ""
    print(f"{head} more than {100 * record.limit:g} % above the record or not recorded{remedy}")
    return ExitCode.REGRESSION if bad else ExitCode.PASS


def count_all(record: Record, where: str, timeout: float) -> dict[str, int]:
    """Instructions of each entry; a command that several entries share runs once."""
    profiles: dict[tuple[object, ...], Profile] = {}
    counts = {}
    for entry in record.entries:
        label = f"{where}: {entry.name}"
        run = (entry.command, *sorted(entry.variables.items()))
        if run not in profiles:
            print(f"gate: counting {one_line(entry.command, 120)}", file=sys.stderr)
            profiles[run] = profile(entry.command, entry.variables, label, timeout)
        found = profiles[run]
        count = found.per_call(entry.function) if entry.function else found.total
        if count is None:
            raise InputError(
                label, f"no call of a function like '{entry.function}'", "was it inlined, renamed or filtered out?"
            )
        counts[entry.name] = count
    return counts


def judge(entry: Entry, now: int, limit: float) -> str:
    """FAIL above the limit, FEWER below minus the limit, NEW without a record, else PASS."""
    if entry.instructions is None:
        return "NEW"
    if now > entry.instructions * (1 + limit):
        return "FAIL"
    return "FEWER" if now < entry.instructions * (1 - limit) else "PASS"


def _refuse_other_machine(options: argparse.Namespace, record: Record, here: dict[str, str]) -> None:
    recorded = record.environment.get("machine", here["machine"])
    if recorded != here["machine"] and not options.accept:
        what = f"was recorded with machine = {recorded}, this is {here['machine']}"
        raise InputError(options.record, what, "keep one record for each architecture")


def _show(rows: list[tuple[Entry, int, str]]) -> None:
    width = max((len(one_line(entry.name, 80)) for entry, _, _ in rows), default=5)
    print(f"{'count':<{width}}  {'recorded':>15}  {'now':>15}  {'change':>9}  verdict")
    for entry, now, verdict in rows:
        recorded = f"{entry.instructions:,}" if entry.instructions else "-"
        change = f"{100 * (now / entry.instructions - 1):+.2f} %" if entry.instructions else "-"
        print(f"{one_line(entry.name, 80):<{width}}  {recorded:>15}  {now:>15,}  {change:>9}  {verdict}")
