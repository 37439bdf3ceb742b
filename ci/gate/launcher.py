"""Starts a benchmark program as a fresh process and reads what it measured."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, one_line
from .google_benchmark import ReadOptions, read_process
from .samples import Process

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
    """directory: where each process's JSON is kept. repetitions: in one process, unless the command says. watch: called

    with the process id just after the start; what it returns is called just before the process is waited for no longer.
    """

    directory: Path
    read: ReadOptions = ReadOptions()
    repetitions: int = 3
    timeout: float = 1800.0

    def run(
        self,
        command: Command,
        label: str,
        asked: frozenset[str] | None = None,
        watch: Callable[[int], Callable[[], None]] | None = None,
    ) -> Process:
        """Runs `command` once, with only the benchmarks in `asked` if given. label: stem of the JSON's name.

        Errors: InputError if it cannot be started, takes longer than the timeout, dies or writes no usable JSON; a non-zero
        exit status is accepted only beside a complete result that reports an error itself.
        """
        output = self.directory / f"{label}.json"
        words = command.words() + self._arguments(command.words(), output, asked)
        with tempfile.TemporaryFile() as messages:
            status = self._wait(command, words, messages, watch)
            if status < 0 or not output.exists():
                raise InputError(command.option, self._death(words[0], label, status, messages), "run it by hand")
            process = read_process(output, self.read, asked)
            if status != 0 and not any(row.error for row in process.rows.values()):
                raise InputError(command.option, self._death(words[0], label, status, messages), "run it by hand")
        return process

    def _arguments(self, words: list[str], output: Path, asked: frozenset[str] | None) -> list[str]:
        arguments = [f"--benchmark_out={output}", "--benchmark_out_format=json"]
        if not any(word.startswith("--benchmark_repetitions") for word in words):
            arguments.append(f"--benchmark_repetitions={self.repetitions}")
        pattern = "^(" + "|".join(_escape(name) for name in sorted(asked or ())) + ")$"
        if asked and len(pattern.encode()) < LONGEST_FILTER:
            arguments.append(f"--benchmark_filter={pattern}")
        return arguments

    def _wait(self, command: Command, words: list[str], messages, watch) -> int:
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(command.option, f"cannot start '{words[0]}': {reason}", "check the path") from None
        stop_watching = watch(child.pid) if watch else lambda: None
        try:
            return child.wait(self.timeout)
        except subprocess.TimeoutExpired:
            what = f"'{words[0]}' did not finish in {self.timeout:g} s"
            raise InputError(command.option, what, "give a narrower filter or --timeout SECONDS") from None
        finally:
            stop_watching()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    @staticmethod
    def _death(program: str, label: str, status: int, messages) -> str:
        messages.seek(0, os.SEEK_END)
        messages.seek(max(0, messages.tell() - 2000))
        lines = messages.read().decode("utf-8", "replace").strip().splitlines()[-3:]
        end = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        said = f"; it said: {one_line(' | '.join(lines), 400)}" if lines else ""
        return f"'{program}' ({label}) {end} without a usable result{said}"


def _escape(name: str) -> str:
    """`name` as a pattern that matches itself in POSIX extended, ECMAScript and Python expressions."""
    return re.sub(r"([][\\^$.|?*+(){}])", r"\\\1", name)
