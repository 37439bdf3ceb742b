"""Starts a benchmark program as a fresh process and reads what it measured."""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, one_line
from .google_benchmark import ReadOptions, read_process
from .process_tree import process_tree
from .samples import Process, Waits

NO_MATCH = "Failed to match any benchmarks"  # what Google Benchmark says where a filter chooses nothing
LONGEST_FILTER = 100_000  # bytes of one argument that Linux accepts, with a margin


@dataclass(frozen=True)
class Command:
    """A program with its arguments, as one shell-quoted string; it is not run through a shell."""

    text: str
    option: str

    def words(self) -> list[str]:
        """The argument vector. Errors: InputError for an empty or badly quoted command."""
        try:
            words = shlex.split(self.text)
        except ValueError as error:
            raise InputError(self.option, f"cannot be split into words: {error}", "check the quotes") from None
        if not words:
            raise InputError(self.option, "is empty", "give a benchmark program and its arguments")
        return words


@dataclass(frozen=True)
class Launcher:
    """directory: where each process's JSON is kept. repetitions, min_time: of a benchmark in one process (seconds of one
    repetition), unless the command says."""

    directory: Path
    read: ReadOptions = ReadOptions()
    repetitions: int = 7
    min_time: float = 0.01
    timeout: float = 1800.0

    def run(
        self,
        command: Command,
        label: str,
        asked: frozenset[str] | None = None,
        watch: Callable[[int], Callable[[], None]] | None = None,
    ) -> Process:
        """Runs `command` once, with only the benchmarks in `asked` if given. label: stem of the JSON's name. watch: called
        with the process id just after the start; what it returns is called when the process has ended.

        Errors: InputError if it cannot be started, takes longer than the timeout, dies or writes no usable JSON; a non-zero
        exit status is accepted only beside a complete result that reports an error itself.
        """
        output = self.directory / f"{label}.json"
        words = command.words() + self._arguments(command.words(), output, asked)
        with tempfile.TemporaryFile() as messages:
            status, waits = self._wait(command, words, messages, watch)
            if NO_MATCH in _said(messages):
                what = "the filter matches no benchmark" if asked is None else f"no benchmark {' or '.join(sorted(asked))}"
                raise InputError(command.option, one_line(what, 200), "list the names with --benchmark_list_tests")
            if status < 0 or not output.exists():
                raise InputError(command.option, self._death(words[0], label, status, messages), "run it by hand")
            process = dataclasses.replace(read_process(output, self.read, asked), waits=waits)
            if status != 0 and not any(row.error for row in process.rows.values()):
                raise InputError(command.option, self._death(words[0], label, status, messages), "run it by hand")
        return process

    def rehearse(self, command: Command, side: str) -> Process:
        """Runs `command` once and forgets its file. Errors: those of run()."""
        process = self.run(command, f"{side}-rehearsal")
        (self.directory / f"{side}-rehearsal.json").unlink(missing_ok=True)
        return process

    def _arguments(self, words: list[str], output: Path, asked: frozenset[str] | None) -> list[str]:
        arguments = [f"--benchmark_out={output}", "--benchmark_out_format=json"]
        if not any(word.startswith("--benchmark_repetitions") for word in words):
            arguments.append(f"--benchmark_repetitions={self.repetitions}")
        if not any(word.startswith("--benchmark_min_time") for word in words):
            arguments.append(f"--benchmark_min_time={self.min_time:g}")
        chosen = exact_filter(asked or ())
        if asked and len(chosen.encode()) < LONGEST_FILTER:
            arguments.append(chosen)
        return arguments

    def _wait(self, command: Command, words: list[str], messages, watch) -> tuple[int, Waits]:
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        with ExitStack() as stack:
            try:
                child = stack.enter_context(process_tree(words, stdout=subprocess.DEVNULL, stderr=messages))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise InputError(command.option, f"cannot start '{words[0]}': {reason}", "check the path") from None
            if watch:
                stack.callback(watch(child.pid))
            try:
                status = child.wait(self.timeout)
            except subprocess.TimeoutExpired:
                what = f"'{words[0]}' did not finish in {self.timeout:g} s"
                raise InputError(command.option, what, "give a narrower filter or --timeout SECONDS") from None
            return status, _waits(before, resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begin)

    @staticmethod
    def _death(program: str, label: str, status: int, messages) -> str:
        lines = _said(messages).strip().splitlines()[-3:]
        end = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        said = f"; it said: {one_line(' | '.join(lines), 400)}" if lines else ""
        return f"'{program}' ({label}) {end} without a usable result{said}"


def exact_filter(names: Collection[str]) -> str:
    """The argument that chooses exactly the benchmarks `names`."""
    return "--benchmark_filter=^(" + "|".join(_escape(name) for name in sorted(names)) + ")$"


def _said(messages) -> str:
    """The end of what the program wrote to standard error."""
    messages.seek(0, os.SEEK_END)
    messages.seek(max(0, messages.tell() - 2000))
    return messages.read().decode("utf-8", "replace")


def _waits(before: resource.struct_rusage, after: resource.struct_rusage, wall: float) -> Waits:
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Waits(after.ru_nvcsw - before.ru_nvcsw, after.ru_nivcsw - before.ru_nivcsw, max(0.0, wall - processor))


def _escape(name: str) -> str:
    """`name` as a pattern that matches itself in POSIX extended, ECMAScript and Python expressions."""
    return re.sub(r"([][\\^$.|?*+(){}])", r"\\\1", name)
