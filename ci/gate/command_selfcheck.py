"""`gate selfcheck`: how often the gate is wrong on this machine."""

from __future__ import annotations

import argparse
import shlex
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

from .delay import DelayInjector
from .errors import ExitCode
from .files import write_file
from .launch_options import add_launch_options, launcher
from .launcher import Command
from .options import bounded, rules
from .outcome import Outcome
from .progress import Progress
from .render_selfcheck import as_json, report
from .scatter_file import write_scatter
from .selfcheck import check_rows, judge_pairs, run_pairs

PROBE = shlex.join(
    [sys.executable, sys.argv[0], "probe"]
    if zipfile.is_zipfile(sys.argv[0])
    else [sys.executable, "-P", str(Path(__file__).with_name("probe.py"))]
)


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "selfcheck",
        help="false alarms and power on this machine",
        description="Runs one program on both sides (every FAIL is a false alarm), then again with the candidate stopped for a "
        "known share of its time. Exit code 1 if a row of the first FAILs or a row of the second does not.",
    )
    parser.add_argument("--command", dest="program", metavar="CMD", help="default: a built-in probe")
    parser.add_argument("--rounds", type=bounded(int, 8, 1000), default=12, help="default %(default)s")
    parser.add_argument(
        "--inject",
        type=bounded(float, 0, 1000),
        default=5.0,
        metavar="PERCENT",
        help="delay of the second part, 0 to leave that out (default %(default)g); it slows wall time only",
    )
    parser.add_argument("--record", metavar="FILE", help="write the scatter for `gate run --scatter FILE`")
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON")
    add_launch_options(parser)
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the self-check. A delay is of wall time, so that is what a self-check with one judges."""
    if options.inject and options.metric == "auto":
        options.metric = "real_time"
    command, judged, progress = (
        Command(options.program or PROBE, "--command"),
        rules(options),
        Progress(quiet=options.quiet),
    )
    injector = DelayInjector(options.inject / 100) if options.inject else None
    delayed = None
    with ExitStack() as stack:
        start = launcher(options, stack)
        progress.note("the same program on both sides")
        pairs = run_pairs(command, start, options.rounds, options.seed, "same", progress)
        result = judge_pairs(pairs, judged)
        if injector is not None:
            progress.note(f"the same program, candidate slowed down by {options.inject:g} %")
            slowed = run_pairs(command, start, options.rounds, options.seed + 1, "delayed", progress, injector)
            delayed = judge_pairs(slowed, judged)
    checks = check_rows(result, judged.settings, delayed)
    share = injector.measured if injector else None
    if options.record:
        write_scatter(options.record, {check.name: check.scatter for check in checks}, result.context)
    if options.json:
        write_file(options.json, as_json(checks, share))
    sys.stdout.write(report(result, checks, share))
    missed = [check for check in checks if check.injected not in (None, Outcome.FAIL)]
    return ExitCode.REGRESSION if missed or result.verdict in (Outcome.FAIL, Outcome.WRONG) else ExitCode.PASS
