"""The layouts figure with measured gathers beside the planned ones."""

import csv
import json

from reports.tests.conftest import DATA
import pytest

from reports.__main__ import main


def test_measured_gathers_stand_beside_the_planned_ones(tmp_path):
    plan = json.loads((DATA / "layout.json").read_text())
    for cost in plan["layouts"]:
        cost["layer_gather_seconds"] = 0.001 if cost["messages"] else 0
    given = tmp_path / "given"
    given.mkdir()
    (given / "plan.json").write_text(json.dumps(plan))
    name = (f"shard_layout/provider:qshard/model:{plan['name']}/layers:2/storage:bfloat16/unit:layer/scales:every_rank"
            "/strategy:FULL_SHARD/transport:")  # fmt: skip
    rows = [{"name": name + transport, "real_time": time, "gather_beside_ms": 3 * time, "time_unit": "ms", "run_type": "iteration",
             "repetition_index": index}
            for transport, times in (("peer", (4, 2, 3)), ("host", (40, 20, 30))) for index, time in enumerate(times)]  # fmt: skip
    (given / "shard_layout.json").write_text(json.dumps({"context": {"device": "made-up"}, "benchmarks": rows}))
    assert main([str(given), "--output", str(tmp_path / "report")]) == 0
    table = list(csv.DictReader((tmp_path / "report" / "figures" / "layouts.csv").read_text().splitlines()))
    measured = [row for row in table if row["measured_layer_gather_seconds"]]
    assert [(row["storage"], row["unit"], row["scales"], row["strategy"]) for row in measured] == [
        ("bfloat16", "layer", "every rank", "FULL_SHARD")
    ]
    assert float(measured[0]["measured_layer_gather_seconds"]) == pytest.approx(0.0015)  # 3 ms for two layers
    assert float(measured[0]["measured_beside_products_seconds"]) == pytest.approx(0.0045)
    assert float(measured[0]["layer_gather_seconds"]) == pytest.approx(0.001)
    drawn = (tmp_path / "report" / "figures" / "layouts.svg").read_text()
    assert "measured beside products" in drawn and "one layer" in drawn
