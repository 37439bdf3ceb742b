"""`gate compare`: verdicts on result files that exist already."""

from __future__ import annotations

import argparse

from .early_notes import few_rounds
from .options import add_read_options, add_verdict_options, read_options, rules
from .outputs import add_output_options, show
from .progress import Progress
from .rounds import read_rounds
from .verdict import judge


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "compare",
        help="compare recorded results",
        description="Compares Google Benchmark JSON files, one file a process; the k-th of each side are round k, so run and "
        "name them in that order, base and candidate in turn.",
    )
    parser.add_argument("--base", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--candidate", nargs="+", required=True, metavar="FILE")
    add_read_options(parser)
    add_verdict_options(parser)
    add_output_options(parser)
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the comparison."""
    judged = rules(options)
    few_rounds(min(len(options.base), len(options.candidate)), judged, Progress())
    result = judge(read_rounds(options.base, options.candidate, read_options(options)), judged)
    show(result, options)
    return result.exit_code
