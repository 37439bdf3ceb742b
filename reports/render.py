"""From results to finished pictures: SVG, PNG and CSV of every figure there is data for."""

import csv
import io
from dataclasses import dataclass

import matplotlib

from reports.caption import Provenance, provenance
from reports.figures import FIGURES
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Results
from reports.style import SETTINGS, Palette, frame


@dataclass(frozen=True)
class Picture:
    """A figure as bytes and texts. `stem` names its files: <stem>.svg, .png and .csv."""

    stem: str
    heading: str
    question: str
    title: str
    reading: str
    caption: str
    svg: bytes
    png: bytes
    csv: bytes


@dataclass(frozen=True)
class Gallery:
    """The pictures in page order, the kinds for which the results hold nothing, and the files behind the pictures."""

    pictures: list[Picture]
    absent: list[FigureKind]
    provenance: Provenance


def render(results: Results, announce=lambda name: None) -> Gallery:
    """Draws every figure; a kind with several subjects (sessions, gate runs) gives several numbered pictures.

    The same results give the same bytes: no dates, no random numbers. `announce` hears each stem as it is drawn.
    """
    palette = Palette(results.providers())
    drawings: list[tuple[str, str, FigureKind, Drawing]] = []
    absent = []
    with matplotlib.rc_context(SETTINGS):
        for kind in FIGURES:
            announce(kind.stem)
            drawn = [(s, drawing) for s in kind.subjects(results) if (drawing := kind.draw(s, palette))]
            for index, (subject, drawing) in enumerate(drawn):
                stem = kind.stem if index == 0 else f"{kind.stem}-{index + 1}"
                heading = kind.heading if len(drawn) == 1 else f"{kind.heading}: {subject.name}"
                drawings.append((stem, heading, kind, drawing))
            if not drawn:
                absent.append(kind)
        files = provenance([drawing.contexts for *_, drawing in drawings])
        pictures = [_picture(stem, heading, kind.question, drawing, files) for stem, heading, kind, drawing in drawings]
    return Gallery(pictures, absent, files)


def _picture(stem: str, heading: str, question: str, drawing: Drawing, files: Provenance) -> Picture:
    caption = drawing.provenance or files.caption(drawing.contexts)
    frame(drawing.figure, drawing.title, caption)
    return Picture(
        stem,
        heading,
        question,
        drawing.title,
        drawing.reading,
        caption,
        _save(drawing, "svg", {"Date": None, "Creator": None}),
        _save(drawing, "png", {"Software": None}),
        _csv(drawing),
    )


def _save(drawing: Drawing, file_format: str, metadata: dict) -> bytes:
    buffer = io.BytesIO()
    drawing.figure.savefig(buffer, format=file_format, metadata=metadata)
    return buffer.getvalue()


def _csv(drawing: Drawing) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(drawing.columns)
    writer.writerows(drawing.rows)
    return text.getvalue().encode()
