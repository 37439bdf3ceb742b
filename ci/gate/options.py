"""Options that several commands share, and what they become."""

from __future__ import annotations

import argparse
import re

from .context import ContextRule
from .errors import InputError
from .google_benchmark import CounterRule, ReadOptions
from .lineup import WRONG_RESULT, LineupRule
from .row_rules import RowRule, parse_counter, read_row_rules
from .scatter_file import Scatter, read_scatter
from .verdict import Rules, Settings

DEFAULT = Settings()
METRICS = ("auto", "real_time", "cpu_time")


def bounded(kind: type, low: float, high: float):
    """An argparse type: a number of `kind` in [low, high]."""

    def parse(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "number"
    return parse


def seconds(text: str) -> float:
    """An argparse type: a time as 90s, 5m, 1.5h or plain seconds."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*(s|m|min|h|)", text.strip())
    value = float(found[1]) * {"h": 3600, "m": 60, "min": 60}.get(found[2], 1) if found else 0.0
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time like 90s, 5m or 1h")
    return value


def add_verdict_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide verdicts."""
    group = parser.add_argument_group("verdict")
    group.add_argument("--strict", action="store_true", help="UNSURE ends in exit code 5 instead of 0")
    group.add_argument(
        "--floor",
        type=bounded(float, 0.01, 100),
        default=100 * DEFAULT.floor,
        metavar="PERCENT",
        help="smallest slowdown that matters: a FAIL shows more (default %(default)g)",
    )
    group.add_argument(
        "--bound",
        type=bounded(float, 0.01, 1000),
        default=100 * DEFAULT.bound,
        metavar="PERCENT",
        help="no PASS where a slowdown of this size could hide (default %(default)g)",
    )
    group.add_argument(
        "--max-slowdown",
        type=bounded(float, 0.01, 1000),
        metavar="PERCENT",
        help="FAIL only where more than this is shown, PASS where the interval ends below it; in place of --floor and --bound",
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
        "--seed", type=bounded(int, 0, 2**32 - 1), default=1, help="of the order in which the two sides run"
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
        help="error messages that mean wrong results (default: %(default)s)",
    )
    group.add_argument("--ignore-context", action="append", default=[], metavar="KEY", help="may differ; repeatable")
    group.add_argument(
        "--require-context", action="append", default=[], metavar="KEY", help="must not differ; repeatable"
    )


def add_read_options(parser: argparse.ArgumentParser, metrics: tuple[str, ...] = METRICS) -> None:
    """Options on what is taken from a result file."""
    default = ReadOptions()
    parser.add_argument(
        "--metric",
        choices=metrics,
        default=default.metric,
        help="what is judged; auto: cpu_time for a benchmark that never waits, so that other work on the machine does not "
        "count, else real_time (default %(default)s)",
    )
    parser.add_argument(
        "--counter",
        action="append",
        default=[],
        type=_counter,
        metavar="NAME:up|down",
        help="judge this user counter too; up: more is better; repeatable",
    )
    parser.add_argument(
        "--rules", metavar="FILE", help="thresholds, counters and permissions by pattern (TOML; see README)"
    )
    parser.add_argument(
        "--throttle-counter",
        default=default.throttle_counter,
        metavar="NAME",
        help="counter or context key that is not 0 in throttled repetitions (default %(default)s)",
    )


def _counter(text: str) -> CounterRule:
    try:
        return parse_counter(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def row_rules(options: argparse.Namespace) -> tuple[RowRule, ...]:
    """The rules of --rules, none without it. Errors: InputError for a bad file."""
    return read_row_rules(options.rules) if options.rules else ()


def read_options(options: argparse.Namespace) -> ReadOptions:
    """What add_read_options parsed. Errors: InputError for a bad file of rules."""
    counters = [counter for rule in row_rules(options) for counter in rule.counters]
    return ReadOptions(options.metric, options.throttle_counter, (*options.counter, *counters))


def rules(options: argparse.Namespace) -> Rules:
    """What add_read_options and add_verdict_options parsed. Errors: InputError for a bad expression, scatter file or file of
    rules."""
    try:
        re.compile(options.wrong_result)
    except re.error as error:
        raise InputError("--wrong-result", f"is not a regular expression: {error}") from None
    settings = Settings(
        floor=options.floor / 100,
        confidence=options.confidence / 100,
        max_dropped=options.max_dropped / 100,
        bound=options.bound / 100,
        max_slowdown=None if options.max_slowdown is None else options.max_slowdown / 100,
    )
    rows = row_rules(options)
    allowed = (*options.allow_missing, *(rule.match for rule in rows if rule.allow_missing))
    context = ContextRule(frozenset(options.require_context), frozenset(options.ignore_context))
    lineup = LineupRule(allowed, dict(options.renamed), options.wrong_result, options.metric)
    scatter = read_scatter(options.scatter) if options.scatter else Scatter()
    return Rules(settings, rows, context, lineup, scatter, options.strict)
