"""Options that several commands share, and what they become."""

from __future__ import annotations

import argparse
import re

from .context import ContextRule
from .errors import InputError
from .google_benchmark import ReadOptions
from .lineup import WRONG_RESULT, LineupRule
from .scatter_file import Scatter, read_scatter
from .verdict import Rules, Settings

DEFAULT = Settings()


def bounded(kind: type, low: float, high: float):
    """An argparse type: a number of `kind` in [low, high]."""

    def parse(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "number"
    return parse


def add_verdict_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide verdicts."""
    group = parser.add_argument_group("verdict")
    group.add_argument("--strict", action="store_true", help="UNSURE ends in exit code 5 instead of 0")
    group.add_argument(
        "--floor",
        type=bounded(float, 0.01, 100),
        default=100 * DEFAULT.floor,
        metavar="PERCENT",
        help="smallest slowdown that matters (default %(default)g)",
    )
    group.add_argument(
        "--max-floor",
        type=bounded(float, 0.01, 1000),
        default=100 * DEFAULT.max_floor,
        metavar="PERCENT",
        help="no PASS where noise lifts the floor above this (default %(default)g)",
    )
    group.add_argument(
        "--scatter",
        metavar="FILE",
        help="A/A scatter of this machine, from `gate selfcheck --record FILE`; "
        "default: the scatter that the run itself shows",
    )
    group.add_argument(
        "--confidence",
        type=bounded(float, 50, 99.99),
        default=100 * DEFAULT.confidence,
        metavar="PERCENT",
        help="coverage of the interval (default %(default)g)",
    )
    group.add_argument(
        "--seed", type=bounded(int, 0, 2**32 - 1), default=DEFAULT.seed, help="of the bootstrap and the order"
    )
    group.add_argument(
        "--max-dropped",
        type=bounded(float, 0, 90),
        default=100 * DEFAULT.max_dropped,
        metavar="PERCENT",
        help="share of rounds that may be dropped as throttled (default %(default)g)",
    )
    group.add_argument(
        "--allow-missing",
        action="append",
        default=[],
        metavar="PATTERN",
        help="names that the candidate may lack, as a shell pattern; repeatable",
    )
    group.add_argument(
        "--renamed",
        nargs=2,
        action="append",
        default=[],
        metavar=("OLD", "NEW"),
        help="compare the base's OLD with the candidate's NEW; repeatable",
    )
    group.add_argument(
        "--wrong-result",
        default=WRONG_RESULT,
        metavar="REGEX",
        help="error messages that mean wrong results, exit code 3 (default: %(default)s)",
    )
    group.add_argument("--ignore-context", action="append", default=[], metavar="KEY", help="may differ; repeatable")
    group.add_argument(
        "--require-context", action="append", default=[], metavar="KEY", help="must not differ; repeatable"
    )


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """Options on what is taken from a result file."""
    default = ReadOptions()
    parser.add_argument(
        "--metric", choices=["real_time", "cpu_time"], default=default.metric, help="default %(default)s"
    )
    parser.add_argument(
        "--throttle-counter",
        default=default.throttle_counter,
        metavar="NAME",
        help="counter or context key that is not 0 in throttled repetitions (default %(default)s)",
    )


def read_options(options: argparse.Namespace) -> ReadOptions:
    """What add_read_options parsed."""
    return ReadOptions(options.metric, options.throttle_counter)


def rules(options: argparse.Namespace) -> Rules:
    """What add_verdict_options parsed. Errors: InputError for a bad expression or scatter file."""
    try:
        re.compile(options.wrong_result)
    except re.error as error:
        raise InputError("--wrong-result", f"is not a regular expression: {error}") from None
    settings = Settings(
        floor=options.floor / 100,
        confidence=options.confidence / 100,
        seed=options.seed,
        max_dropped=options.max_dropped / 100,
        max_floor=options.max_floor / 100,
    )
    context = ContextRule(frozenset(options.require_context), frozenset(options.ignore_context))
    lineup = LineupRule(tuple(options.allow_missing), dict(options.renamed), options.wrong_result)
    scatter = read_scatter(options.scatter) if options.scatter else Scatter()
    return Rules(settings, context, lineup, scatter, options.strict)
