"""The two pages of a report: one self-contained HTML file, and Markdown that shows the files beside it."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.caption import COLUMNS
from reports.model import Results
from reports.render import Gallery

PICTURES = "figures"  # the folder of the pictures below the pages


def html(gallery: Gallery, results: Results) -> bytes:
    """Everything in one file: pictures as SVG, numbers as CSV downloads; opens without network and scripts."""
    return _page("page.html.j2", gallery, results, autoescape=True)


def markdown(gallery: Gallery, results: Results, file_format: str = "svg") -> bytes:
    """Markdown that shows the pictures of `file_format` beside it."""
    return _page("page.md.j2", gallery, results, autoescape=False, file_format=file_format)


def _page(template: str, gallery: Gallery, results: Results, autoescape: bool, file_format: str = "svg") -> bytes:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.filters["plain"] = _plain_markdown
    page = environment.get_template(template).render(
        pictures=gallery.pictures,
        absent=gallery.absent,
        folder=PICTURES,
        notes=notes(results),
        columns=COLUMNS,
        files=gallery.provenance.rows(),
        file_format=file_format,
    )
    return (page.rstrip() + "\n").encode()


def notes(results: Results) -> list[str]:
    """What was given and is not in a picture, so that nothing is left out in silence."""
    rows = [line for session in results.sessions for line in session.omitted]
    rows += [line for gate in results.gates for line in gate.uncompared]
    return rows + results.broken + [f"{file}: not a result file, ignored" for file in results.ignored]


def _plain_markdown(text: str) -> str:
    """`text` with the signs escaped that Markdown would read as markup."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]<>#|" else sign for sign in text)
