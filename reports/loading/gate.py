"""The JSON of a gate run (`ci/gate`, its schema gate/1)."""

from pathlib import Path

from reports.errors import ReportError
from reports.loading.json_file import as_text, member, number
from reports.model import Context, GateRow, GateRun, path_name

SCHEMA = "gate/1"


def recognises(document: dict) -> bool:
    return as_text(document.get("schema")).startswith("gate/")


def load(document: dict, path: Path) -> GateRun:
    """Errors: a row without a name or outcome, or whose estimate lacks a number or has its ends crossed."""
    if document["schema"] != SCHEMA:
        raise ReportError(path, f"has the schema {document['schema']}; this version reads {SCHEMA}")
    rows, uncompared = [], []
    for index, row in enumerate(member(document, "rows", list, path)):
        where = f"rows[{index}]"
        if not isinstance(row, dict):
            raise ReportError(path, f"'{where}' is not an object")
        name = member(row, "name", str, path, where)
        outcome = member(row, "outcome", str, path, where)
        if isinstance(row.get("estimate"), dict):
            rows.append(_compared(name, outcome, row["estimate"], path, f"{where}.estimate"))
        else:
            uncompared.append(f"{name}: {outcome}, {as_text(row.get('reason')) or 'no reason recorded'}")
    values = document.get("context")
    context = {str(k): as_text(v) for k, v in values.items()} if isinstance(values, dict) else {}
    return GateRun(Context(path_name(path), context), member(document, "verdict", str, path), rows, uncompared)


def _compared(name: str, outcome: str, estimate: dict, path: Path, where: str) -> GateRow:
    change, low, high, floor = (number(estimate, key, path, where) for key in ("change", "low", "high", "floor"))
    if not low <= high or floor < 0:
        raise ReportError(path, f"'{where}' has low above high or a negative floor")
    return GateRow(name, outcome, change, low, high, floor, int(number(estimate, "rounds", path, where)))
