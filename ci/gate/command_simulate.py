"""`gate simulate`: the power table."""

from __future__ import annotations

import argparse
import sys

from .options import bounded
from .simulation import power_table


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "simulate",
        help="print the power table",
        description="Share of simulated gates that FAIL, by noise, rounds and true slowdown.",
    )
    parser.add_argument("--trials", type=bounded(int, 1, 1_000_000), default=1000)
    parser.add_argument("--seed", type=bounded(int, 0, 2**32 - 1), default=1)
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Prints the table."""
    sys.stdout.write(power_table(options.trials, options.seed))
    return 0
