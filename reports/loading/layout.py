"""A shard layout: the bytes of each part of each rank's memory, as `qshard plan` writes it."""

from pathlib import Path

from reports.errors import ReportError
from reports.loading.json_file import as_text, member, number
from reports.model import Context, Knob, LayoutCost, MemoryMoment, ShardLayout, Span, StepPlan


def load(document: dict, path: Path) -> ShardLayout:
    """Errors: a missing or negative count, ranks that are not 0..world_size-1 once each."""
    world_size = member(document, "world_size", int, path)
    rows = member(document, "ranks", list, path)
    ranks, parts, capacities = [], [], []
    for index, row in enumerate(rows):
        where = f"ranks[{index}]"
        if not isinstance(row, dict):
            raise ReportError(path, f"'{where}' is not an object")
        ranks.append(member(row, "rank", int, path, where))
        sizes = member(row, "bytes", dict, path, where)
        parts.append({str(key): _size(sizes, key, path, f"{where}.bytes") for key in sizes})
        has_capacity = row.get("capacity_bytes") is not None
        capacities.append(_size(row, "capacity_bytes", path, where) if has_capacity else None)
    if not ranks or sorted(ranks) != list(range(len(ranks))) or len(ranks) != world_size:
        raise ReportError(path, f"'ranks' must hold ranks 0 to {world_size} - 1 once each; it holds {len(ranks)}")
    if not any(sum(sizes.values()) for sizes in parts):
        raise ReportError(path, "every part of every rank has 0 bytes")
    context = document.get("context")
    values = {str(k): as_text(v) for k, v in context.items()} if isinstance(context, dict) else {}
    name = as_text(document.get("name")) or path.stem
    return ShardLayout(name, Context(path.name, values), ranks, parts, capacities, _costs(document, path), _step(document, path))


def _costs(document: dict, path: Path) -> list[LayoutCost]:
    """The compared layouts, none where the plan did not compare."""
    if "layouts" not in document:
        return []
    rows = member(document, "layouts", list, path)
    costs = []
    for index, row in enumerate(rows):
        where = f"layouts[{index}]"
        if not isinstance(row, dict):
            raise ReportError(path, f"'{where}' is not an object")
        words = [member(row, key, str, path, where) for key in ("storage", "unit", "scales", "strategy")]
        sizes = ("held_bytes", "gathered_bytes", "messages", "gather_seconds", "step_seconds")
        same_as = member(row, "same_as", int, path, where)
        if not 0 <= same_as <= index:
            raise ReportError(path, f"'{where}.same_as' is no layout up to this one")
        layer = _size(row, "layer_gather_seconds", path, where) if "layer_gather_seconds" in row else 0.0
        costs.append(LayoutCost(*words, *(_size(row, key, path, where) for key in sizes), same_as, layer))
    return costs


def _step(document: dict, path: Path) -> StepPlan | None:
    """The predicted step, None where the plan has none or none with a time line."""
    if document.get("step") is None:
        return None
    step = member(document, "step", dict, path)
    if "timeline" not in step:
        return None
    spans = []
    for where, row in _rows(step, "timeline", path):
        lane, what = (member(row, key, str, path, where) for key in ("lane", "what"))
        begin, end = (_size(row, key, path, where) for key in ("begin", "end"))
        if end < begin:
            raise ReportError(path, f"'{where}' ends before it begins")
        spans.append(Span(lane, what, member(row, "layer", int, path, where), begin, end))
    parts = member(step, "parts", dict, path, "step")
    seconds = {str(key): _size(parts, key, path, "step.parts") for key in parts}
    gpu, link = (member(step, key, str, path, "step") for key in ("gpu", "link"))
    if not spans or not max(span.end for span in spans) or not sum(seconds.values()):
        raise ReportError(path, "'step' takes no time")
    pipeline = _size(step, "pipeline_seconds", path, "step") if "pipeline_seconds" in step else 0.0
    return StepPlan(_size(step, "seconds", path, "step"), seconds, _size(step, "hidden_share", path, "step"), gpu, link, spans,
                    _knobs(step, path), _memory(step, path), pipeline)  # fmt: skip


def _rows(step: dict, key: str, path: Path) -> list[tuple[str, dict]]:
    """The objects of a list, each with its place; none where an older plan lacks it."""
    rows = []
    for index, row in enumerate(member(step, key, list, path, "step") if key in step else []):
        where = f"step.{key}[{index}]"
        if not isinstance(row, dict):
            raise ReportError(path, f"'{where}' is not an object")
        rows.append((where, row))
    return rows


def _knobs(step: dict, path: Path) -> list[Knob]:
    return [Knob(member(row, "change", str, path, where), _size(row, "seconds", path, where), number(row, "gain", path, where))
            for where, row in _rows(step, "knobs", path)]  # fmt: skip


def _memory(step: dict, path: Path) -> list[MemoryMoment]:
    return [MemoryMoment(*(_size(row, key, path, where) for key in ("at", "gathered_bytes", "input_bytes")))
            for where, row in _rows(step, "memory", path)]  # fmt: skip


def _size(table: dict, key: str, path: Path, where: str) -> float:
    size = number(table, key, path, where)
    if size < 0:
        raise ReportError(path, f"'{where}.{key}' is negative")
    return size
