"""How far a long part is, a line a minute, and what it has found, at once."""

import time

EVERY = 60  # seconds


class Progress:
    def __init__(self, what: str, total: int):
        self.what, self.total, self.told = what, total, time.monotonic()

    def done(self, count: int) -> None:
        """Says that `count` of the total are done, where the last line is old enough."""
        if time.monotonic() - self.told < EVERY:
            return
        self.told = time.monotonic()
        print(f"{self.what}: {count} of {self.total}", flush=True)


def told(failures: list[str]) -> list[str]:
    for failure in failures:
        print(f"found: {failure}", flush=True)
    return failures
