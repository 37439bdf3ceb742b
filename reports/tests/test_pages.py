"""The two pages: complete, self-contained, safe, and the same bytes from the same results."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from reports.__main__ import main
from reports.figures import FIGURES
from reports.tests.conftest import DATA


class Outline(HTMLParser):
    """Collects what the page refers to, and whether every element that opens also closes."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, page: str):
        super().__init__()
        self.open, self.references, self.tags, self.text = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_whole_and_self_contained(report):
    outline = Outline((report / "report.html").read_text())
    assert not outline.open
    assert "script" not in outline.tags and "link" not in outline.tags
    assert all(reference.startswith(("data:", "#")) for reference in outline.references)
    assert outline.tags.count("figure") == len(list((report / "figures").glob("*.svg")))


def test_html_holds_the_pictures_and_numbers_that_lie_beside_it(report):
    page = (report / "report.html").read_text()
    for name in ("roofline", "memory"):
        assert base64.b64encode((report / "figures" / f"{name}.svg").read_bytes()).decode() in page
        assert base64.b64encode((report / "figures" / f"{name}.csv").read_bytes()).decode() in page


def test_every_figure_has_heading_reading_and_caption(report):
    text = " ".join(" ".join(Outline((report / "report.html").read_text()).text).split())
    for kind in FIGURES:
        assert kind.heading in text and kind.question in text
    assert "of the roof, bitsandbytes" not in text  # titles are in the pictures and their alternative texts
    assert re.search(r"Of \d+ qshard measurements the best reaches 88 % of what", text)
    assert "580.00" in text and "SM 1980 MHz, memory 3201 MHz" in text and "2026-11-20" in text
    assert "CPU 2600 MHz" in text and "not recorded" in text


def test_markdown_refers_to_files_that_are_there(report):
    page = (report / "report.md").read_text()
    targets = re.findall(r"\]\((figures/[^)]+)\)", page)
    assert len(targets) == 3 * len(list((report / "figures").glob("*.svg")))
    assert all((report / target).stat().st_size > 0 for target in targets)


def test_what_is_not_drawn_is_listed(report):
    for page in ((report / "report.html").read_text(), (report / "report.md").read_text().replace("\\", "")):
        assert "quantize/provider:bitsandbytes/n:64/k:64: reported an error: the library was not found" in page
        assert "rope/provider:qshard/n:4096: MISSING, the candidate lacks it" in page


def test_figures_without_data_are_listed(tmp_path, capsys):
    assert main([str(DATA / "layout.json"), "--output", str(tmp_path)]) == 0
    page = (tmp_path / "report.md").read_text()
    assert "## Memory by rank" in page and "- Roofline: needs benchmark results" in page
    assert sorted(file.name for file in (tmp_path / "figures").glob("*.svg")) == [
        "code_usage.svg",
        "knobs.svg",
        "layouts.svg",
        "memory.svg",
        "quantization_error.svg",
        "step_memory.svg",
        "timeline.svg",
    ]


def test_same_results_give_the_same_bytes(report, tmp_path):
    assert main([str(DATA), "--output", str(tmp_path)]) == 0
    files = sorted(file.relative_to(report) for file in report.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file())
    for file in files:
        assert (report / file).read_bytes() == (tmp_path / file).read_bytes(), file


HOSTILE = '</figure><script>alert(1)</script>$\\frac{" & --> \ud800 \x00 ' + "x" * 300


@pytest.fixture
def hostile(tmp_path):
    """gpu.json with markup, formulas, broken characters and great length in every text."""
    document = json.loads((DATA / "gpu.json").read_text())
    document["context"].update(device=HOSTILE, driver=HOSTILE, command=HOSTILE)
    for row in document["benchmarks"]:
        row["label"] = HOSTILE
        row["run_name"] = row["run_name"].replace("bitsandbytes", HOSTILE.replace("/", "|"))
    path = tmp_path / "hostile.json"
    path.write_text(json.dumps(document))
    return path


def test_texts_of_results_are_never_markup(hostile, tmp_path):
    assert main([str(hostile), "--output", str(tmp_path / "report")]) == 0
    outline = Outline((tmp_path / "report" / "report.html").read_text())
    assert "script" not in outline.tags and not outline.open
    assert "<script>" not in (tmp_path / "report" / "report.md").read_text()


def test_the_context_of_a_trainer_fills_the_caption(tmp_path):
    context = {
        "command": "qshard train train.yaml",
        "version": "0.1.0",
        "source_hash": "0123456789abcdef",
        "device": "a processor",
        "dtype": "bfloat16",
        "seed": 42,
        "world_size": 2,
        "date": "2026-11-22T10:00:00+00:00",
    }
    rows = [{"context": context}, {"step": 0, "eval_loss": 2.0}, {"step": 1, "loss": 1.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(tmp_path / "metrics.jsonl"), "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.md").read_text()
    for part in ("Device: a processor", "2026-11-22T10:00:00", "sources: 0123456789ab", "qshard train train.yaml"):
        assert part in page.replace("\\", "")


def test_a_small_report_holds_markdown_and_png_alone(tmp_path, capsys):
    assert main([str(DATA / "layout.json"), "--output", str(tmp_path), "--small"]) == 0
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".md", ".png"}
    targets = re.findall(r"\]\((figures/[^)]+)\)", (tmp_path / "report.md").read_text())
    assert targets and all((tmp_path / target).is_file() for target in targets)
