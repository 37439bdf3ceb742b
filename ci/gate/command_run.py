"""`gate run`: runs both programs and judges the candidate."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from .early_notes import few_rounds
from .errors import InputError
from .instruction_rows import compare_instructions
from .launch_options import add_launch_options, launcher
from .launcher import Command
from .options import METRICS, bounded, rules, seconds
from .outputs import add_output_options, show
from .progress import Progress
from .rounds import Collector, Plan

ROUNDS = 32  # unless --rounds says otherwise


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
        "--rounds",
        type=bounded(int, 1, 1000),
        metavar="N",
        help=f"of every benchmark, exactly, whatever time they take (default: about {ROUNDS}, in the time said before)",
    )
    parser.add_argument(
        "--max-rounds",
        type=bounded(int, 1, 1000),
        metavar="N",
        help="cap for benchmarks whose verdict stays open (default: five times --rounds)",
    )
    parser.add_argument(
        "--budget",
        type=seconds,
        metavar="TIME",
        help="time that all rounds may take, as 90s, 5m or 1h: fewer rounds where they do not fit",
    )
    add_launch_options(parser, (*METRICS, "instructions"))
    parser.add_argument(
        "--whole",
        action="store_true",
        help="with --metric instructions: count the whole command, which may be any program, as one row",
    )
    add_output_options(parser)
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the run."""
    rounds = options.rounds or min(ROUNDS, options.max_rounds or ROUNDS)
    most = options.max_rounds if options.max_rounds is not None else 5 * rounds
    if most < rounds:
        raise InputError("--max-rounds", f"{most} is below --rounds {rounds}")
    base, candidate = Command(options.base, "--base"), Command(options.candidate, "--candidate")
    if options.metric == "instructions":
        result = compare_instructions(
            base, candidate, rules(options), options.whole, options.timeout, Progress(quiet=options.quiet)
        )
        show(result, options)
        return result.exit_code
    if options.whole:
        raise InputError("--whole", "needs --metric instructions", "times are taken from a benchmark program's results")
    hold_time = options.rounds is None and options.budget is None
    plan = Plan(rounds, 16, most, options.seed, options.budget, hold_time)
    progress, judged = Progress(quiet=options.quiet), rules(options)
    few_rounds(most, judged, progress)
    with ExitStack() as stack:
        _, result = Collector(base, candidate, launcher(options, stack), judged, progress).collect(plan)
    show(result, options)
    return result.exit_code
