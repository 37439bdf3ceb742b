"""Which clock tells what a benchmark itself took, where other work shares the machine."""

from __future__ import annotations

from collections.abc import Sequence

from .samples import Process, Row

QUIET = 0.02  # a repetition that was interrupted for less than this share of its time was the row's alone
MOST_VOLUNTARY = 50  # a program that waits gives up the processor once a wait; starting and ending take a few
LONGEST_TURN = 0.1  # seconds that one forced switch can keep a process from the processor, with a margin


def choose(base: Sequence[tuple[Process, Row]], candidate: Sequence[tuple[Process, Row]]) -> str:
    """`cpu_time` if on both sides processor time is all that the row itself takes, else `real_time`.

    That is so where some repetition shows it (both clocks agree), or where no process ever waited: it gave up the
    processor only when it was made to, often enough to explain the difference of the clocks. A row that sleeps, reads files,
    waits for a device or for other threads is judged by real time, and so is one that only one side makes wait.
    """
    return "cpu_time" if _is_own_time(base) and _is_own_time(candidate) else "real_time"


def _is_own_time(side: Sequence[tuple[Process, Row]]) -> bool:
    if not side or any(len(row.processor) != len(row.times) for _, row in side):
        return False
    ratios = [real / processor for _, row in side for real, processor in zip(row.times, row.processor)]
    if not ratios or min(ratios) < 1 - QUIET:  # more processor time than real time: several threads
        return False
    return min(ratios) <= 1 + QUIET or all(_was_only_interrupted(process) for process, _ in side)


def _was_only_interrupted(process: Process) -> bool:
    """Whether all the time that this process was off the processor is time that others had it."""
    waits = process.waits
    return waits is not None and waits.voluntary <= MOST_VOLUNTARY and waits.lost <= LONGEST_TURN * (waits.forced + 1)
