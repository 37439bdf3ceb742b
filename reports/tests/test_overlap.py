"""No text of a figure lies over another one or is cut by the picture's edge."""

from itertools import combinations

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from reports.figures import FIGURES
from reports.loading import load
from reports.style import SETTINGS, Palette, frame
from reports.tests.conftest import DATA

TOUCH = 1.0  # pixels that the boxes of two texts may share, since a box is a little larger than its letters


@pytest.fixture
def texts_of(monkeypatch):
    """Draws a figure and returns the texts that were drawn, each with its box in pixels."""
    drawn = {}
    draw_text = RendererAgg.draw_text

    def record(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        if s.strip() and mtext is not None:
            drawn[id(mtext)] = mtext
        draw_text(self, gc, x, y, s, prop, angle, ismath, mtext)

    monkeypatch.setattr(RendererAgg, "draw_text", record)

    def run(figure):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # a first time, since the layout settles at drawing
        drawn.clear()
        canvas.draw()
        return [(text.get_text(), text.get_window_extent()) for text in drawn.values()]

    return run


def faults(figure, texts) -> list[str]:
    """What overlaps or is cut, in words."""
    found = []
    for text, box in texts:
        if box.x0 < -TOUCH or box.y0 < -TOUCH or box.x1 > figure.bbox.x1 + TOUCH or box.y1 > figure.bbox.y1 + TOUCH:
            found.append(f"{text!r} is cut")
    for (text, box), (other_text, other) in combinations(texts, 2):
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        if width > TOUCH and height > TOUCH:
            found.append(f"{text!r} lies over {other_text!r}")
    return found


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.stem)
def test_texts_are_whole_and_apart(kind, texts_of):
    results = load([DATA])
    with matplotlib.rc_context(SETTINGS):
        drawings = [kind.draw(subject, Palette(results.providers())) for subject in kind.subjects(results)]
        for drawing in filter(None, drawings):
            frame(drawing.figure, drawing.title, "Device: of these results · sources: 0123456789ab · file 1 of the table")
            texts = texts_of(drawing.figure)
            assert len(texts) > 5
            assert faults(drawing.figure, texts) == []


def test_what_overlaps_or_is_cut_is_found(texts_of):
    figure = Figure(figsize=(4, 2))
    for x, text in ((0.2, "one text"), (0.25, "over it"), (0.95, "beyond the edge")):
        figure.text(x, 0.5, text)
    assert faults(figure, texts_of(figure)) == ["'beyond the edge' is cut", "'one text' lies over 'over it'"]
