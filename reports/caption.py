"""Where numbers come from: one table for the whole report, and a line under each figure that points into it."""

from dataclasses import dataclass

from reports.model import NOT_RECORDED, Context

COLUMNS = ("file", "device", "driver", "clocks", "date", "sources", "command")


@dataclass(frozen=True)
class Provenance:
    """The files of a report in the order of their first use; a figure names its files by their numbers."""

    contexts: list[Context]

    def caption(self, contexts: list[Context]) -> str:
        """The line under a figure that draws from `contexts`: their numbers, devices and sources. Files that were measured
        apart and are drawn together are so named."""
        numbers = sorted({self.contexts.index(context) + 1 for context in contexts})
        joined = f"{len(numbers)} files joined: " if len(numbers) > 1 else "file "
        devices = "; ".join(dict.fromkeys(context.text("device") for context in contexts)) or NOT_RECORDED
        sources = "; ".join(dict.fromkeys(context.short_hash for context in contexts)) or NOT_RECORDED
        where = f"{joined}{_ranges(numbers)} of the report's table" if numbers else "no file"
        return f"Device: {devices} · sources: {sources} · {where}"

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a number and COLUMNS for each file; what a file does not hold is called so."""
        return [(str(number), *_row(context)) for number, context in enumerate(self.contexts, start=1)]


def provenance(groups: list[list[Context]]) -> Provenance:
    """The files behind all figures, given the contexts of each."""
    found: list[Context] = []
    for context in (context for group in groups for context in group):
        if context not in found:
            found.append(context)
    return Provenance(found)


def _row(context: Context) -> tuple[str, ...]:
    texts = [context.text(key) for key in ("device", "driver")]
    return (context.source, *texts, _clocks(context), context.text("date"), context.short_hash, context.text("command"))


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 5] as '1-3, 5'."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _clocks(context: Context) -> str:
    graphics, memory, processor = (context.number(k) for k in ("clock_sm_mhz", "clock_mem_mhz", "mhz_per_cpu"))
    if graphics is None and memory is None:
        return f"CPU {processor:.0f} MHz" if processor else NOT_RECORDED
    sm = f"{graphics:.0f} MHz" if graphics else NOT_RECORDED
    mem = f"{memory:.0f} MHz" if memory else NOT_RECORDED
    return f"SM {sm}, memory {mem}"
