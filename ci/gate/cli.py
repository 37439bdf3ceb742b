"""The command line: one table of subcommands, errors caught once."""

from __future__ import annotations

import argparse
import difflib
import errno
import signal
import sys
from collections.abc import Callable, Sequence

from . import (
    __version__,
    command_compare,
    command_history,
    command_instructions,
    command_run,
    command_sass,
    command_selfcheck,
    command_show,
    command_simulate,
    probe,
)
from .errors import ExitCode, InputError, one_line

COMMANDS = (
    command_run,
    command_compare,
    command_show,
    command_history,
    command_selfcheck,
    command_simulate,
    command_instructions,
    command_sass,
)
EPILOG = (
    "exit codes: 0 pass (UNSURE included unless --strict); 1 regression, wrong result, missing or errored benchmark; "
    "2 bad usage or input, times that are none; 3 memory or disk is full; 5 UNSURE under --strict"
)


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser and those of the commands by name; each command module adds its own with a `handle` default."""
    parser = argparse.ArgumentParser(
        prog="gate", description="Regression gate for Google Benchmark programs.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser, subparsers.choices


def refuse_unknown(command: str, parser: argparse.ArgumentParser, word: str) -> None:
    """Ends with code 2: names the option that was meant, or where the benchmark program's own options go."""
    known = [option for action in parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(word.split("=")[0], known, n=1, cutoff=0.7)
    if word.startswith(("--benchmark_", "--filter")):
        advice = "options of the benchmark program go into its command: --base 'PROGRAM --benchmark_filter=REGEX'"
    elif near:
        advice = f"did you mean {near[0]}?"
    else:
        advice = f"gate {command} --help lists what it takes"
    raise InputError(word, f"no option or argument of gate {command}", advice)


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code; bad input ends in one line on standard error and code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± must not end the gate
    if list(arguments[:1]) == ["probe"]:  # the self-check's own program, for where it is no file of its own
        return probe.main(list(arguments[1:]))
    parser, commands = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job must end the benchmark process too
    handle: Callable[[argparse.Namespace], int] = options.handle
    try:
        if unknown:
            refuse_unknown(options.command, commands[options.command], unknown[0])
        return int(handle(options))
    except InputError as error:
        print(f"gate: error: {error}", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    except (OSError, MemoryError) as error:
        print(f"gate: error: {one_line(error) or 'not enough memory'}", file=sys.stderr)
        if isinstance(error, MemoryError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM):
            return ExitCode.OUT_OF_RESOURCES
    except KeyboardInterrupt:
        print("\ngate: interrupted; the results of finished processes are kept", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return ExitCode.BAD_INPUT
