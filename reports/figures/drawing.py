"""What a figure module gives and what the rest of the package does with it."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from reports.model import Context, Results
from reports.style import Palette


@dataclass
class Drawing:
    """A finished figure as data: the picture, the finding in a few words and in a sentence, and the numbers.

    `contexts` are those of the files the numbers come from; `provenance` stands in their place for a figure that
    draws from no file.
    """

    figure: Figure
    title: str
    reading: str
    columns: tuple[str, ...]
    rows: list[tuple]
    contexts: list[Context]
    provenance: str = ""


@dataclass(frozen=True)
class FigureKind:
    """One of the figures: what it is called, the question it answers, what it is drawn from, and how.

    `subjects` picks what one picture is about (a session, a gate run, ...), and `draw` returns None for a subject
    that lacks the data `needs` describes.
    """

    stem: str
    heading: str
    question: str
    needs: str
    subjects: Callable[[Results], list]
    draw: Callable[[object, Palette], Drawing | None]
