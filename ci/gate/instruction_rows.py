"""`gate run --metric instructions`: each benchmark's instructions on both sides, a metric without noise."""

from __future__ import annotations

import math
import os
import shlex

from .callgrind import Profile, profile
from .errors import InputError, one_line
from .launcher import Command, exact_filter
from .lineup import line_up
from .outcome import Estimate, GateResult, Outcome, RowResult
from .perf import count as count_by_processor
from .perf import is_available
from .progress import Progress
from .samples import Process, Round, Row, Series
from .tool import run_tool
from .verdict import Rules, Settings

UNIT = "instructions"
BENCHMARK_FUNCTION = "*(benchmark::State&)*"  # demangled names of the functions that hold a benchmark's loop
FEW, MANY = 1, 11  # iterations of the two runs whose difference is that of ten iterations
LEAST_COUNTED = 20_000_000  # instructions between two runs that the processor counts, so that its start is no part of it
WHOLE = "whole command"


def compare_instructions(
    base: Command, candidate: Command, rules: Rules, whole: bool, timeout: float, progress: Progress
) -> GateResult:
    """Counts both programs and judges the ratios. whole: one row for all of each command, which may be any program.

    The processor counts where it can (`perf stat`), otherwise callgrind does. A benchmark is counted for one iteration: as the
    difference of two runs with Google Benchmark 1.8 and later, which take a number of iterations; before that as one call of
    the function that holds its loop, at one iteration. Errors: InputError for a program that cannot be counted.
    """
    if whole:
        rows = {}
        for side, command in (("base", base), ("candidate", candidate)):
            progress.count(len(rows) + 1, 2, f"{side} ({WHOLE})")
            rows[side] = {WHOLE: _row(WHOLE, _total(command.text, command.option, timeout))}
        how = "the processor" if is_available() else "callgrind"
    else:
        names = {side: _names(command, timeout) for side, command in (("base", base), ("candidate", candidate))}
        exact = all(_takes_iterations(command, timeout) for command in (base, candidate))
        counter = _count_by_difference if exact else _count_one_call
        how = "the processor" if exact and is_available() else "callgrind"
        rows = {"base": {}, "candidate": {}}
        runs = [(side, command, name) for side, command in (("base", base), ("candidate", candidate)) for name in names[side]]
        for number, (side, command, name) in enumerate(sorted(runs, key=lambda run: run[2]), start=1):
            progress.count(number, len(runs), f"{one_line(name, 60)} ({side})")
            rows[side][name] = _row(name, counter(command, name, timeout))
        how += ", one iteration" if exact else ", one call at one iteration, with what it prepares before its loop"
    pair = Round(Process("base", {}, rows["base"]), Process("candidate", {}, rows["candidate"]))
    series, others = line_up([pair], rules.lineup)
    found = [_judge(one, rules.settings_of(one.name)) for one in series]
    result = sorted(found + others, key=lambda row: list(Outcome).index(row.outcome))
    settings = {"metric": UNIT, "floor": rules.settings.floor, "max_slowdown": rules.settings.max_slowdown}
    return GateResult(result, settings, {}, [f"instructions counted by {how}"], rules.strict)


def _row(name: str, count: int) -> Row:
    return Row(name, UNIT, (float(count),), benchmark=name)


def _judge(series: Series, settings: Settings) -> RowResult:
    base, candidate = series.base[0][0], series.candidate[0][0]
    change = candidate / base - 1
    floor = settings.floor if settings.max_slowdown is None else settings.max_slowdown
    outcome = Outcome.PASS
    if change > floor:
        outcome = Outcome.FAIL
    elif math.log1p(change) < -math.log1p(floor):
        outcome = Outcome.FASTER
    source = "largest growth allowed"
    found = Estimate(change, change, change, floor, source, floor, float(change <= floor), 1, base, candidate, 0.0, 0.0)
    return RowResult(series.name, outcome, "", series, found)


def _names(command: Command, timeout: float) -> list[str]:
    words = [*command.words(), "--benchmark_list_tests=true"]
    what = f"'{words[0]}' listing its benchmarks"
    done = run_tool(words, command.option, what, os.environ, "check the path", timeout)
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not names:
        raise InputError(command.option, f"'{words[0]}' lists no benchmarks", "for another program give --whole")
    return list(dict.fromkeys(names))


def _takes_iterations(command: Command, timeout: float) -> bool:
    words = [*command.words(), f"--benchmark_min_time={FEW}x", "--benchmark_list_tests=true"]
    return run_tool(words, command.option, f"'{words[0]}'", os.environ, "", timeout).returncode == 0


def _with_arguments(command: Command, name: str, min_time: str) -> str:
    words = [*command.words(), exact_filter([name]), f"--benchmark_min_time={min_time}", "--benchmark_repetitions=1"]
    return shlex.join(words)


def _count_by_difference(command: Command, name: str, timeout: float) -> int:
    """Instructions of one iteration, from runs with few and with many of them."""
    label = f"{command.option}: {one_line(name, 80)}"
    few, many = FEW, MANY

    def total(iterations: int) -> int:
        return _total(_with_arguments(command, name, f"{iterations}x"), label, timeout)

    difference = total(many) - total(few)
    if is_available() and difference < LEAST_COUNTED:
        many = few + (many - few) * math.ceil(LEAST_COUNTED / max(difference, 1000))
        difference = total(many) - total(few)
    return _positive(difference / (many - few), label)


def _count_one_call(command: Command, name: str, timeout: float) -> int:
    """Instructions of one call of the benchmark's function with one iteration; of a program without names of functions, all
    that the run adds to a start of the program."""
    label = f"{command.option}: {one_line(name, 80)}"
    found = _profile(_with_arguments(command, name, "0"), label, timeout)
    count = found.per_call(BENCHMARK_FUNCTION)
    if count is not None:
        return _positive(count, label)
    start = _profile(shlex.join([*command.words(), exact_filter([name]), "--benchmark_list_tests=true"]), label, timeout)
    return _positive(found.total - start.total, label)


def _total(text: str, label: str, timeout: float) -> int:
    if is_available():
        return count_by_processor(text, label, timeout)
    return _profile(text, label, timeout).total


def _profile(text: str, label: str, timeout: float) -> Profile:
    return profile(text, {}, label, timeout)


def _positive(count: float, label: str) -> int:
    if count < 1:
        raise InputError(label, f"counted {count:g} instructions, which cannot be", "run it by hand")
    return round(count)
