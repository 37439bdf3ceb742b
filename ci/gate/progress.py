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

    def start(self, rounds: int, most: int) -> None:
        """The first rounds begin."""
        self._target = rounds
        self._line(f"gate: {rounds} rounds, at most {most} where a verdict is unsure", keep=True)

    def extend(self, target: int, unsure: int) -> None:
        """More rounds, up to `target` in all, for `unsure` benchmarks."""
        self._target = target
        self._line(f"gate: {unsure} unsure, so up to round {target} for them alone", keep=True)

    def show(self, number: int, side: str) -> None:
        """Round `number` starts its `side`."""
        if not self._rewrite and number == self._noted_round:
            return
        self._noted_round = number
        elapsed = time.monotonic() - self._begin
        left = f", about {_duration(elapsed / (number - 1) * (self._target - number + 1))} left" if number > 1 else ""
        what = f" {side:<9}" if self._rewrite else ""
        self._line(f"gate: round {number}/{self._target}{what} {_duration(elapsed)} gone{left}", keep=not self._rewrite)

    def end(self, rounds: int) -> None:
        """All rounds are done."""
        self._line(f"gate: {rounds} rounds in {_duration(time.monotonic() - self._begin)}", keep=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._line(f"gate: {text}", keep=True)

    def _line(self, text: str, keep: bool) -> None:
        if self._quiet:
            return
        clear = "\r" + " " * self._width + "\r" if self._rewrite and self._width else ""
        self._stream.write(clear + text + ("\n" if keep else ""))
        self._stream.flush()
        self._width = 0 if keep else len(text)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(round(seconds)), 60)
    return f"{minutes} min {rest:02d} s"
