"""Options of the commands that start benchmark programs, and the launcher that they make."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from .errors import InputError
from .files import make_directory
from .launcher import Launcher
from .options import METRICS, add_read_options, add_verdict_options, bounded, read_options


def add_launch_options(parser: argparse.ArgumentParser, metrics: tuple[str, ...] = METRICS) -> None:
    """Options on how processes are started, and on what becomes of their results."""
    parser.add_argument(
        "--repetitions",
        type=bounded(int, 1, 10000),
        default=Launcher.repetitions,
        help="of a benchmark in one process (default %(default)s)",
    )
    parser.add_argument(
        "--min-time",
        type=bounded(float, 0, 1e6),
        default=Launcher.min_time,
        metavar="SECONDS",
        help="least time of one repetition (default %(default)g); the benchmark's own MinTime stays",
    )
    parser.add_argument(
        "--timeout",
        type=bounded(float, 0.01, 1e6),
        default=1800.0,
        metavar="SECONDS",
        help="of one process (default %(default)g)",
    )
    parser.add_argument("--keep", metavar="DIR", help="keep the JSON of every process here")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    add_read_options(parser, metrics)
    add_verdict_options(parser)


def launcher(options: argparse.Namespace, stack: ExitStack) -> Launcher:
    """A launcher that keeps its files in --keep, or until `stack` ends."""
    directory = (
        make_directory(options.keep)
        if options.keep
        else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-")))
    )
    if any(directory.iterdir()):
        raise InputError(options.keep, "holds files already", "give --keep an empty or new directory")
    return Launcher(
        directory.resolve(), read_options(options), options.repetitions, options.min_time, options.timeout
    )
