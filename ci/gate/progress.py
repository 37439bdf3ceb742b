"""Tells on standard error what the gate is doing and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """One line that is rewritten on a terminal, one line a round elsewhere."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._rewrite = self._stream.isatty()
        self._begin = time.monotonic()
        self._target = 0
        self._noted_round = 0
        self._width = 0

    def start(self, rounds: int, most: int, seconds: float | None = None, longest: float | None = None) -> None:
        """The first rounds begin: `rounds` in about `seconds`, with further ones at most `longest`; equal where the time that
        is said holds these too."""
        self._target = rounds
        self._begin = time.monotonic()
        about = f", about {duration(seconds)}" if seconds is not None else ""
        within = f" and {duration(longest)}" if longest is not None else ""
        more = f"; where a verdict stays open more, at most {most} rounds{within} in all" if most > rounds else ""
        if most > rounds and seconds is not None and seconds == longest:
            more = f" with up to {most} where a verdict stays open"
        self._line(f"gate: {rounds} rounds{about}{more}", keep=True)

    def extend(self, target: int, unsure: int) -> None:
        """More rounds, up to `target` in all, for `unsure` benchmarks."""
        self._target = target
        self._line(f"gate: {unsure} still open, so up to round {target} for them alone", keep=True)

    def show(self, number: int, side: str) -> None:
        """Round `number` starts its `side`."""
        if not self._rewrite and number == self._noted_round:
            return
        self._noted_round = number
        elapsed = time.monotonic() - self._begin
        left = f", about {duration(elapsed / (number - 1) * max(1, self._target - number + 1))} left" if number > 1 else ""
        what = f" {side:<9}" if self._rewrite else ""
        self._line(f"gate: round {number}/{max(number, self._target)}{what} {duration(elapsed)} gone{left}", keep=not self._rewrite)

    def end(self, rounds: int) -> None:
        """All rounds are done."""
        self._line(f"gate: {rounds} rounds in {duration(time.monotonic() - self._begin)}", keep=True)

    def count(self, number: int, most: int, name: str) -> None:
        """Program run `number` of `most` counts instructions of `name`."""
        elapsed = time.monotonic() - self._begin
        left = f", about {duration(elapsed / (number - 1) * (most - number + 1))} left" if number > 1 else ""
        self._line(f"gate: counting {number}/{most} {name}{left}", keep=not self._rewrite)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._line(f"gate: {text}", keep=True)

    def warn(self, text: str) -> None:
        """A line that is shown even where progress is not."""
        self._stream.write(f"gate: note: {text}\n")
        self._stream.flush()

    def _line(self, text: str, keep: bool) -> None:
        if self._quiet:
            return
        clear = "\r" + " " * self._width + "\r" if self._rewrite and self._width else ""
        self._stream.write(clear + text + ("\n" if keep else ""))
        self._stream.flush()
        self._width = 0 if keep else len(text)


def duration(seconds: float) -> str:
    """A time for people: `4 s`, `2 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(round(seconds)), 60)
    return f"{minutes} min {rest:02d} s"
