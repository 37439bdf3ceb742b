"""`gate show`: the reports of a result that is stored as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from .errors import InputError
from .outputs import add_report_options, show
from .stored_result import read_result


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "show",
        help="print a stored result again",
        description="Prints the table of a result that `gate run --json FILE` or `gate compare --json FILE` wrote, with its "
        "verdicts and its exit code; nothing is judged again.",
    )
    parser.add_argument("result", metavar="RESULT")
    add_report_options(parser)
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the stored result."""
    for path in (options.markdown, options.junit):
        if path and Path(path).resolve() == Path(options.result).resolve():
            raise InputError(path, "is the result itself", "choose another path")
    result = read_result(options.result)
    show(result, options)
    return result.exit_code
