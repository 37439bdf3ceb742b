"""A trainer's `metrics.jsonl`: one JSON object a line."""

import math
from pathlib import Path

from reports.errors import ReportError
from reports.loading.json_file import as_text, describe, is_plausible, parse
from reports.model import Context, TrainingRun


def load(text: str, path: Path) -> TrainingRun:
    """Errors: a line that is no object, has no step, or whose loss is not a number; a file without any loss."""
    values: dict[str, str] = {}
    losses: list[tuple[float, float]] = []
    eval_losses: list[tuple[float, float]] = []
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        row = parse(content, path, line)
        if not isinstance(row, dict):
            raise ReportError(path, f"line {line} is {describe(row)}, not an object")
        if isinstance(row.get("context"), dict):
            values.update({str(key): as_text(value) for key, value in row["context"].items()})
        for key, points in (("loss", losses), ("eval_loss", eval_losses)):
            if key in row:
                points.append((_step(row, path, line), _loss(row[key], key, path, line)))
    if not losses and not eval_losses:
        raise ReportError(path, "has no line with 'loss' or 'eval_loss'")
    return TrainingRun(path.parent.name or path.stem, Context(str(path.name), values), losses, eval_losses)


def _step(row: dict, path: Path, line: int) -> float:
    if not is_plausible(row.get("step")):
        raise ReportError(path, f"line {line} has no number 'step'")
    return float(row["step"])


def _loss(value, key: str, path: Path, line: int) -> float:
    """A loss may be NaN, which JSON also writes as null, or infinite: training diverged, and the figure says so."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ReportError(path, f"line {line}: '{key}' is {describe(value)}, not a number")
    return float(value) if is_plausible(value) else math.nan
