"""Shows a result everywhere that was asked for."""

from __future__ import annotations

import argparse
import os
import sys

from .files import write_file
from .outcome import GateResult
from .render_annotations import render_annotations
from .render_json import render_json
from .render_junit import render_junit
from .render_markdown import render_markdown
from .render_terminal import render_terminal


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Options on where a new result goes besides the terminal."""
    group = add_report_options(parser)
    group.add_argument("--json", metavar="FILE", help="everything, raw samples included; `gate show` prints it again")


def add_report_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Options on reports for people and CI services; returns their group."""
    group = parser.add_argument_group("output, besides the table on standard output")
    group.add_argument("--markdown", metavar="FILE", help="for a job summary or a comment")
    group.add_argument("--junit", metavar="FILE", help="one test case a benchmark")
    group.add_argument(
        "--annotations", action="store_true", help="GitHub annotations of the worst ten, on standard output"
    )
    return group


def show(result: GateResult, options: argparse.Namespace) -> None:
    """Writes the files first, then the table. Errors: InputError for a file that cannot be written."""
    for path, render in (
        (getattr(options, "json", None), render_json),
        (options.markdown, render_markdown),
        (options.junit, render_junit),
    ):
        if path:
            write_file(path, render(result))
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    sys.stdout.write(render_terminal(result, colour))
    if options.annotations:
        sys.stdout.write(render_annotations(result))
    sys.stdout.flush()
