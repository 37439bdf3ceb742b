"""What is known before anything is measured, and said then."""

from __future__ import annotations

from .progress import Progress
from .statistic import minimum_rounds
from .verdict import Rules


def few_rounds(rounds: int, rules: Rules, progress: Progress) -> None:
    """Says so if `rounds` a side cannot give a verdict."""
    needed = minimum_rounds(rules.settings.confidence)
    if rounds < needed:
        progress.warn(f"{rounds} rounds a side; a verdict needs {needed}, so every row will be UNSURE")
