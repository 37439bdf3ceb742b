"""No title says what its own CSV contradicts: each is worked out again from the numbers beside the picture."""

import csv
import re
import statistics
from collections import defaultdict

import pytest

from reports import units
from reports.page import PICTURES


def pictures(report, stem: str) -> list[tuple[str, list[dict]]]:
    """Title and rows of every picture of a kind."""
    found = []
    for path in sorted((report / PICTURES).glob(f"{stem}*.csv")):
        if re.fullmatch(rf"{stem}(-\d+)?", path.stem):
            page = (report / "report.md").read_text().replace("\\", "")
            title = re.search(rf"!\[(.*?)\]\({PICTURES}/{path.stem}\.(png|svg)\)", page)[1]
            with path.open(newline="") as file:
                found.append((title, list(csv.DictReader(file))))
    assert found
    return found


def problem(name: str) -> str:
    return re.sub(r"/provider:[^/]*", "", name)


def test_rows_count_their_holes(report):
    for title, rows in pictures(report, "rows"):
        ratios = [float(row["time_ratio"]) for row in rows]
        assert f"has {sum(ratio > 1 for ratio in ratios)} holes in {len(ratios)} points" in title
        assert f"at worst {units.times(max(ratios))} the time of" in title


def test_speedup_names_how_often_it_is_slower(report):
    for title, rows in pictures(report, "speedup"):
        ratios = [float(row["speed_up"]) for row in rows]
        assert f"slower in {sum(ratio < 1 for ratio in ratios)} of {len(ratios)} cells" in title
        stem, own, peer = re.match(r"(\S+): (\S+) runs at \S+ the speed of (\S+);", title).groups()
        own_ratios = [float(r["speed_up"]) for r in rows if r["benchmark"].startswith(f"{stem}/") and r["peer"] == peer]
        assert f"{own} runs at {units.times(statistics.geometric_mean(own_ratios))} the" in title


def test_throughput_names_its_worst_problem(report):
    for title, rows in pictures(report, "throughput"):
        speeds = defaultdict(dict)
        for row in rows:
            speeds[problem(row["benchmark"])][row["provider"]] = float(row["median_elements_per_second"])
        own = title.split()[0]
        pairs = [(p.pop(own), max(p.values())) for p in speeds.values() if own in p and len(p) > 1]
        if not pairs:
            assert "at best" in title
            continue
        ratios = [mine / other for mine, other in pairs]
        assert f"is {units.times(min(ratios))} to {units.times(max(ratios))} as fast as the fastest other one" in title
        assert f"slower in {sum(ratio < 1 for ratio in ratios)} of {len(ratios)} problems" in title


def test_roofline_names_worst_best_and_the_best_other(report):
    for title, rows in pictures(report, "roofline"):
        own, low, high = re.match(r"(\S+) reaches (\S+ %) to (\S+ %) of the roof", title).groups()
        fractions = defaultdict(list)
        for row in rows:
            fractions[row["provider"]].append(float(row["fraction_of_roof"]))
        assert (low, high) == (units.percent(min(fractions[own])), units.percent(max(fractions[own])))
        others = [max(values) for name, values in fractions.items() if name != own]
        if others:
            assert f"up to {units.percent(max(others))}" in title


def test_ceilings_names_the_highest_and_the_lowest_kernel(report):
    for title, rows in pictures(report, "ceilings"):
        own = title.split(":")[0]
        groups = defaultdict(list)
        for row in rows:
            if row["provider"] == own:
                groups[row["benchmark"].split("/")[0]].append(float(row["fraction"]))
        middles = {stem: statistics.median(values) for stem, values in groups.items()}
        best, worst = max(middles, key=middles.get), min(middles, key=middles.get)
        assert f"{best} uses {units.percent(middles[best])} of its ceiling" in title
        if best != worst:
            assert title.endswith(f"{worst} only {units.percent(middles[worst])}")


def test_changes_counts_what_failed(report):
    for title, rows in pictures(report, "changes"):
        failed = [row for row in rows if row["verdict"] == "FAIL"]
        assert title.startswith("FAIL") == bool(failed)
        if failed:
            worst = max(failed, key=lambda row: float(row["change"]))
            assert f"{len(failed)} of {len(rows)} benchmarks slowed down" in title
            assert title.endswith(f"by {units.percent(float(worst['change']))}")


def test_ladder_memory_and_codes_say_their_numbers(report):
    for title, rows in pictures(report, "ladder"):
        longest = max((row["ladder"] for row in rows), key=[row["ladder"] for row in rows].count)
        steps = [row for row in rows if row["ladder"] == longest]
        assert title.startswith(f"{len(steps)} steps make")
        assert f" {units.times(max(float(row['times_first_step']) for row in steps))} as fast" in title
    for title, rows in pictures(report, "memory"):
        totals = defaultdict(int)
        for row in rows:
            totals[row["layout"], row["rank"]] += int(row["bytes"])
        assert units.binary_bytes(max(totals.values())) in title


def test_layouts_say_what_the_dtype_rule_and_replicated_scales_cost(report):
    for title, rows in pictures(report, "layouts"):
        full = [row for row in rows if row["strategy"] == "FULL_SHARD" and row["unit"] == "layer"]
        first = full[0]
        dtype = next(row for row in full if row["storage"] != first["storage"] and row["scales"] == "sharded")
        scales = next(row for row in full if row["storage"] == first["storage"] and row["scales"] == "every rank")
        assert f"take {units.times(int(dtype['messages']) / int(first['messages']))} the messages" in title
        assert units.binary_bytes(int(scales["held_bytes"]) - int(first["held_bytes"])) in title


def test_timeline_names_the_largest_part_of_the_step(report):
    for title, rows in pictures(report, "timeline"):
        parts = {row["what"]: float(row["end"]) for row in rows if row["kind"] == "part"}
        largest = max(parts, key=parts.get)
        total = sum(parts.values())
        assert f"take {units.seconds(total)}, {units.percent(parts[largest] / total)} of it {largest}" in title


def test_memory_over_a_step_says_what_stays_and_what_passes(report):
    for title, rows in pictures(report, "step_memory"):
        passing = max(int(row["input_bytes"]) + int(row["gathered_bytes"]) for row in rows)
        assert f"{units.binary_bytes(int(rows[0]['held_bytes']))} stay" in title
        assert f"at most {units.binary_bytes(passing)} come and go" in title


def test_knobs_name_the_one_that_buys_most(report):
    for title, rows in pictures(report, "knobs"):
        best = max((row for row in rows if "pipeline" not in row["change"]), key=lambda row: float(row["gain"]))
        assert f"{best['change']} buys most, {units.signed_percent(float(best['gain']))}" in title


def test_a_loss_curve_ends_where_its_title_says(report):
    for title, rows in pictures(report, "losses"):
        name = title.split()[0]
        kind = "evaluation" if "evaluation loss" in title else "training"
        points = [float(row["loss"]) for row in rows if row["run"] == name and row["kind"] == kind]
        assert f"from {points[0]:.3f} to {points[-1]:.3f}" in title


@pytest.mark.parametrize("stem", ["quantization_error", "code_usage"])
def test_computed_figures_agree_with_their_numbers(report, stem):
    ((title, rows),) = pictures(report, stem)
    if stem == "quantization_error":
        at = {(row["quant_type"], row["at"]): float(row["error"]) for row in rows if "blocksize" in row["quantity"]}
        assert f"{100 * (1 - at['NF4', '64'] / at['FP4', '64']):.0f} % less error" in title
    else:
        assert {row["quant_type"] for row in rows} == {"NF4", "FP4"}
