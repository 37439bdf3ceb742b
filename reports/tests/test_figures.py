"""Every figure is drawn from recorded data, is not empty and carries its labels."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from reports.figures import FIGURES
from reports.figures.ceilings import nearest_ceiling
from reports.loading import benchmark
from reports.model import Session
from reports.tests.conftest import DATA

# What each figure must say, as texts of its SVG (matplotlib keeps each text as a comment beside its outlines).
LABELS = {
    "roofline": (
        "arithmetic intensity (floating-point operations per byte moved)",
        "speed (FLOP/s)",
        "measured copy 4.05 TB/s",
        "measured matrix product 710 TFLOP/s",
        "ridge: 175 FLOP/byte",
        "linear4bit",
    ),
    "throughput-2": (
        "elements of the weight",
        "weight elements/s",
        "qshard",
        "bitsandbytes",
        "limit of qshard",
    ),
    "ceilings": (
        "share of the nearer measured ceiling (%): ● copy   ◇ matrix product   │ median",
        "linear4bit (qshard)",
    ),
    "rows": (
        "rows of the input",
        "time of qshard / bitsandbytes",
        "linear4bit: time over that of bitsandbytes; circled: a hole, slower than bitsandbytes",
        "28672 × 8192",
        "1024",
    ),
    "speedup": (
        "shape (n × k)",
        "speed-up of qshard (ratio of median times)",
        "28672 × 8192",
        "rows 1024",
    ),
    "ladder": ("speed relative to the first step (×)", "4  scales once", "one scale a warp instead of one a thread"),
    "quantization_error": (
        "normalised input x / absmax (no unit)",
        "absolute error / absmax (no unit)",
        "block size (elements)",
    ),
    "code_usage": ("share (%)", "value of the code, as a fraction of absmax (no unit)", "even use"),
    "changes": ("FAIL", "UNSURE", "PASS", "+11.2 %", "all: provider:qshard/n:4096"),
    "samples": ("share of repetitions (%)", "repetition (in the order they ran)", "time / median − 1 (%)"),
    "losses": ("optimizer step", "loss (nats per token)", "adapter_r16", "evaluation"),
    "memory": ("memory (GiB, 2³⁰ bytes)", "rank 1: 22.8 GiB", "gather buffer"),
    "layouts": ("a rank holds (GiB)", "messages a pass", "every rank", "1282"),
    "timeline": ("compute", "host", "gradient sum", "from forward to backward", "recomputation", "532 ms"),
    "step_memory": ("time in the first micro-batch (ms)", "held between steps", "gathered units", "what comes and goes"),
    "knobs": ("training.gradient_checkpointing: false", "+30.4 %", "-1.7 %", "a pipeline of layers instead", "-20.0 %"),
}


def test_there_are_sixteen_figures_and_each_is_checked():
    assert len(FIGURES) == 16
    assert {label.removesuffix("-2") for label in LABELS} == {kind.stem for kind in FIGURES}


@pytest.mark.parametrize("stem", LABELS)
def test_picture_carries_its_labels_and_caption(report, stem):
    texts = re.findall(r"<!-- (.*?) -->", (report / "figures" / f"{stem}.svg").read_text(), re.DOTALL)
    for label in LABELS[stem]:
        assert any(label in text for text in texts), f"{stem}.svg lacks {label!r}"
    origin = "no device was measured" if stem in ("quantization_error", "code_usage") else "sources: "
    assert any(origin in " ".join(text.split()) for text in texts)


@pytest.mark.parametrize("stem", LABELS)
def test_picture_is_not_empty(report, stem):
    """More than text on white: at least one in a hundred points is coloured or dark."""
    pixels = np.asarray(Image.open(report / "figures" / f"{stem}.png").convert("RGB"))
    assert pixels.shape[1] > 1000
    assert (pixels.min(axis=2) < 200).mean() > 0.01


@pytest.mark.parametrize("stem", LABELS)
def test_numbers_stand_beside_the_picture(report, stem):
    with open(report / "figures" / f"{stem}.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert rows and all(len(row) == len(header) and all(header) for row in rows)


def numbers(report, stem: str) -> list[dict]:
    with open(report / "figures" / f"{stem}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_speed_up_is_the_peers_time_over_ours(report):
    for row in numbers(report, "speedup"):
        assert float(row["speed_up"]) == pytest.approx(float(row["peer_seconds"]) / float(row["own_seconds"]))
    dequantize = [
        row for row in numbers(report, "speedup") if "n:28672/" in row["benchmark"] and row["peer"] == "bitsandbytes"
    ]
    assert float(dequantize[0]["speed_up"]) == pytest.approx(0.9 / 0.37, rel=0.03)


def test_rows_have_no_point_that_a_peer_did_not_measure(report):
    """The made-up bitsandbytes has no time for 1,024 rows of 28672 x 8192: nothing stands in its place."""
    rows = numbers(report, "rows")
    for row in rows:
        assert float(row["time_ratio"]) == pytest.approx(float(row["own_seconds"]) / float(row["peer_seconds"]))
        assert f"/rows:{row['rows']}/" in row["benchmark"]
    largest = [row["rows"] for row in rows if "n:28672/" in row["benchmark"] and row["peer"] == "bitsandbytes"]
    assert largest == ["1", "4", "16", "64"]


def test_throughput_has_ordered_quartiles_and_counts_elements(report):
    for row in numbers(report, "throughput-2"):
        low, middle, high = (
            float(row[f"{name}_elements_per_second"]) for name in ("first_quartile", "median", "third_quartile")
        )
        assert 0 < low <= middle <= high
        keys = dict(part.split(":") for part in row["benchmark"].split("/")[1:])
        assert int(row["elements"]) == int(keys["n"]) * int(keys["k"])


def test_roof_is_the_lower_of_bandwidth_and_product(report):
    for row in numbers(report, "roofline"):
        intensity, speed = float(row["operations_per_byte"]), float(row["operations_per_second"])
        roof = min(intensity * 4.05e12, 7.1e14)
        assert float(row["fraction_of_roof"]) == pytest.approx(speed / roof)


def test_ladder_counts_from_its_first_step(report):
    steps = numbers(report, "ladder")
    assert [row["step"] for row in steps] == ["1", "2", "3", "4"]
    assert float(steps[0]["times_first_step"]) == 1.0
    assert float(steps[3]["times_first_step"]) == pytest.approx(0.91 / 0.11, rel=0.03)


def test_memory_adds_up(report):
    total = sum(int(row["bytes"]) for row in numbers(report, "memory") if row["rank"] == "0")
    assert total / 2**30 == pytest.approx(22.8, abs=0.1)


def test_ceilings_fall_back_to_rate_over_recorded_ceiling(report):
    """Without the fraction counters the figure must say the same, from the rates and the context."""
    document = json.loads((DATA / "gpu.json").read_text())
    for row in document["benchmarks"]:
        row.pop("copy_fraction", None)
        row.pop("product_fraction", None)
    context, rows, _ = benchmark.load(document, DATA / "gpu.json")
    session = Session([context], rows)
    bare = {row.name: nearest_ceiling(session, row) for row in rows}
    for row in numbers(report, "ceilings"):
        assert bare[row["benchmark"]][0] == row["ceiling"]
        assert bare[row["benchmark"]][1] == pytest.approx(float(row["fraction"]), rel=0.02)
    assert {row["ceiling"] for row in numbers(report, "ceilings")} == {"copy", "matrix product"}


def test_data_of_the_tests_says_that_it_is_made_up():
    assert "Made-up GPU" in (DATA / "gpu.json").read_text()
