"""Slows a running program down by a known share, whatever the program is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

PERIOD = 0.010  # seconds between stops: short against one repetition, long against a signal


class DelayInjector:
    """Stops and continues a process group so that wall time grows by `fraction`.

    Each stop is as long as the time that ran since the last one owes, so that the sum is right although
    single stops are not. `measured` is the share that was really added, over all watched processes.
    Only wall time is slowed; processor time and work that a device does meanwhile are not.
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self._stopped = 0.0
        self._total = 0.0

    @property
    def measured(self) -> float:
        """Time added over time left alone, 0 before anything was watched."""
        running = self._total - self._stopped
        return self._stopped / running if running > 0 else 0.0

    def watch(self, process_id: int) -> Callable[[], None]:
        """Starts to slow down the group of `process_id`; call the result to end that."""
        end = threading.Event()
        thread = threading.Thread(target=self._loop, args=(process_id, end), daemon=True)
        thread.start()

        def finish() -> None:
            end.set()
            thread.join()

        return finish

    def _loop(self, process_id: int, end: threading.Event) -> None:
        begin, stopped = time.monotonic(), 0.0
        try:
            while not end.wait(PERIOD):
                now = time.monotonic()
                owed = (now - begin - stopped) * self._fraction - stopped
                if owed > 0:
                    os.killpg(process_id, signal.SIGSTOP)
                    time.sleep(owed)
                    os.killpg(process_id, signal.SIGCONT)
                    stopped += time.monotonic() - now
        except ProcessLookupError:
            pass
        self._stopped += stopped
        self._total += time.monotonic() - begin
