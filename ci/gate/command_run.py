"""`gate run`: runs both programs and judges the candidate."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from .errors import InputError
from .launch_options import add_launch_options, launcher
from .launcher import Command
from .options import bounded, rules
from .outputs import add_output_options, show
from .progress import Progress
from .rounds import Collector, Plan


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="run base and candidate in turn and judge",
        description="Starts both programs as fresh processes in random order, round after round. A command is split into words "
        "like a shell does but not run by one; the gate adds --benchmark_out, and --benchmark_repetitions if it is absent.",
    )
    parser.add_argument("--base", required=True, metavar="CMD")
    parser.add_argument("--candidate", required=True, metavar="CMD")
    parser.add_argument(
        "--rounds", type=bounded(int, 1, 1000), default=12, help="of every benchmark (default %(default)s)"
    )
    parser.add_argument(
        "--max-rounds",
        type=bounded(int, 1, 1000),
        metavar="N",
        help="cap for benchmarks that are UNSURE (default: twice --rounds)",
    )
    add_launch_options(parser)
    add_output_options(parser)
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the run."""
    most = options.max_rounds if options.max_rounds is not None else 2 * options.rounds
    if most < options.rounds:
        raise InputError("--max-rounds", f"{most} is below --rounds {options.rounds}")
    base, candidate = Command(options.base, "--base"), Command(options.candidate, "--candidate")
    plan = Plan(options.rounds, step=4, most=most, seed=options.seed)
    with ExitStack() as stack:
        collector = Collector(base, candidate, launcher(options, stack), rules(options), Progress(quiet=options.quiet))
        _, result = collector.collect(plan)
    show(result, options)
    return result.exit_code
