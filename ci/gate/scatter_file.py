"""The A/A scatter of a machine, recorded by a self-check and used for the floors of later runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError, one_line
from .files import write_file
from .google_benchmark import read_json_object

SCHEMA = "gate-scatter/1"
MACHINE = ("host_name", "num_cpus", "device", "gpu")  # context keys that say which machine it was
REMEDY = "record it with `gate selfcheck --record FILE`"


@dataclass(frozen=True)
class Scatter:
    """by_name: standard deviation of one A/A round's log ratio. machine: context of the machine that it belongs to."""

    by_name: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def refuse_other_machine(self, context: Mapping[str, Any]) -> None:
        """Errors: InputError if `context` is of another machine, naming the key."""
        for key, value in self.machine.items():
            if context.get(key) != value:
                what = f"was recorded with {key} = {one_line(value, 80)}, this run has {one_line(context.get(key), 80)}"
                raise InputError(self.source, what, REMEDY)


def write_scatter(path: str | Path, by_name: Mapping[str, float], context: Mapping[str, Any]) -> None:
    """Records `by_name` for `--scatter PATH` of later runs on this machine."""
    machine = {key: context[key] for key in MACHINE if key in context}
    document = {"schema": SCHEMA, "context": machine, "round_scatter": dict(by_name)}
    write_file(path, json.dumps(document, indent=1) + "\n")


def read_scatter(path: str | Path) -> Scatter:
    """The record in `path`. Errors: InputError naming the file."""
    document = read_json_object(path, REMEDY)
    rows, machine = document.get("round_scatter"), document.get("context", {})
    if not isinstance(rows, dict) or not isinstance(machine, dict):
        raise InputError(path, "no objects 'round_scatter' and 'context'", REMEDY)
    for name, value in rows.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise InputError(path, f"round_scatter of {one_line(name)} is not a fraction", REMEDY)
    return Scatter({name: float(value) for name, value in rows.items()}, machine, str(path))
