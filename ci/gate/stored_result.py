"""Reads a result that the gate wrote as JSON, trusting nothing in it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from .errors import InputError, one_line
from .google_benchmark import read_json_object
from .outcome import Estimate, GateResult, Outcome, RowResult
from .samples import Series

REMEDY = "give the JSON that `gate run --json FILE` wrote"
TEXTS = ("floor_source",)  # fields of an estimate that are no numbers
LARGEST = 1e300


def read_result_document(path: str | Path) -> dict[str, Any]:
    """The JSON object of a result, schema gate/1. Errors: InputError naming the file."""
    document = read_json_object(path, REMEDY)
    rows, context = document.get("rows"), document.get("context")
    if document.get("schema") != "gate/1" or not isinstance(rows, list) or not isinstance(context, dict):
        raise InputError(path, "is no result of the gate", REMEDY)
    return document


def read_result(path: str | Path) -> GateResult:
    """The result in `path` with everything that the reports show; its rounds are not read. Errors: InputError naming the file
    and the row."""
    document = read_result_document(path)
    settings, notes = document.get("settings"), document.get("notes")
    if not isinstance(settings, dict) or not _are_texts(notes):
        raise InputError(path, "has no settings or notes", REMEDY)
    rows = [_row(path, index, entry) for index, entry in enumerate(document["rows"])]
    return GateResult(rows, settings, document["context"], notes, settings.get("strict") is True)


def _row(path: str | Path, index: int, entry: Any) -> RowResult:
    def refuse(what: str) -> InputError:
        return InputError(path, f"rows[{index}] {what}", REMEDY)

    if not isinstance(entry, dict) or not _are_texts([entry.get("name"), entry.get("reason")]):
        raise refuse("has no name or reason")
    if entry.get("outcome") not in [outcome.value for outcome in Outcome]:
        raise refuse(f"has the unknown outcome {one_line(entry.get('outcome'), 40)}")
    row = RowResult(entry["name"], Outcome(entry["outcome"]), entry["reason"])
    if "estimate" in entry:
        unit, notes = entry.get("unit"), entry.get("notes")
        row.estimate = _estimate(entry["estimate"])
        if row.estimate is None or not _are_texts([unit]) or not _are_texts(notes):
            raise refuse("has no whole estimate")
        row.series, row.notes = Series(row.name, unit), notes
    return row


def _estimate(document: Any) -> Estimate | None:
    """None where a field is missing or of another kind, or a change is at or below -1, which no ratio gives."""
    fields = [field.name for field in dataclasses.fields(Estimate)]
    if not isinstance(document, dict) or not all(name in document for name in fields):
        return None
    numbers = [document[name] for name in fields if name not in TEXTS]
    if not _are_texts([document[name] for name in TEXTS]) or not all(_is_number(value) for value in numbers):
        return None
    if min(document[name] for name in ("change", "low", "high")) <= -1 or not isinstance(document["rounds"], int):
        return None
    return Estimate(**{name: document[name] for name in fields})


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -LARGEST < value < LARGEST and math.isfinite(value)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
