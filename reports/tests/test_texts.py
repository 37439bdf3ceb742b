"""Numbers, names and label positions as people read them."""

import pytest

from reports import units
from reports.loading.benchmark import own_name, split_name
from reports.selection import short_names
from reports.style import shorten, spread


@pytest.mark.parametrize(
    "text, expected",
    [
        (units.seconds(4.7e-5), "47.0 µs"),
        (units.seconds(9.996e-4), "1.00 ms"),
        (units.seconds(2.0), "2.00 s"),
        (units.rate(3.2e12, "B/s"), "3.20 TB/s"),
        (units.rate(12.0, "B/s"), "12.0 B/s"),
        (units.binary_bytes(1.5 * 2**30), "1.50 GiB"),
        (units.binary_bytes(100), "100 B"),
        (units.percent(0.884), "88 %"),
        (units.percent(0.0042), "0.4 %"),
        (units.signed_percent(0.1), "+10.0 %"),
        (units.signed_percent(-0.0001), "0.0 %"),
        (units.times(2.4), "2.40×"),
        (units.tick("100 GiB"), "100 GiB"),
        (units.tick("8.00 MiB"), "8 MiB"),
        (units.tick("0 B/s"), "0 B/s"),
    ],
)
def test_numbers(text, expected):
    assert text == expected


def test_names_lose_what_the_library_appended():
    name = own_name("linear4bit/provider:qshard/rows:16/iterations:5/repeats:3/manual_time")
    assert name == "linear4bit/provider:qshard/rows:16"
    assert split_name(name) == ("linear4bit", {"provider": "qshard", "rows": "16"})
    assert split_name("BM_old/64/8") == ("BM_old", {"argument1": "64", "argument2": "8"})


def test_ladder_steps_that_run_as_providers_join_the_ladder():
    name = own_name("dequantize/provider:ladder-5-in-flight/n:8192/k:8192/manual_time")
    assert name == "dequantize_ladder/provider:qshard/step:5/version:in_flight/n:8192/k:8192"


def test_short_names_keep_what_differs():
    assert short_names(["a/p:x/n:1", "b/p:x/n:2"]) == (["a/n:1", "b/n:2"], "p:x")
    assert short_names(["a/p:x"]) == (["a/p:x"], "")


def test_shortened_text_keeps_both_ends():
    short = shorten("a" * 50 + "z" * 50, 21)
    assert len(short) == 21 and short.startswith("aaa") and short.endswith("zzz")


def test_labels_are_moved_apart_in_their_order():
    moved = spread([1.0, 1.1, 5.0, 1.05], 0.5)
    ordered = sorted(moved)
    assert all(after - before >= 0.5 - 1e-12 for before, after in zip(ordered, ordered[1:]))
    assert moved[0] < moved[3] < moved[1] < moved[2]
