"""The line under a figure: device, driver, clocks, date, source hash and command, each or 'not recorded'."""

from reports.model import NOT_RECORDED, Context

MOST_VALUES = 3


def caption(contexts: list[Context]) -> str:
    """One line for all files a figure draws from; values that differ between them are listed."""
    parts = (
        f"Device: {_values(contexts, _device)}",
        f"driver: {_values(contexts, lambda c: c.text('driver'))}",
        f"clocks: {_values(contexts, _clocks)}",
        f"date: {_values(contexts, lambda c: c.text('date'))}",
        f"sources: {_values(contexts, lambda c: c.short_hash)}",
        f"command: {_values(contexts, lambda c: c.text('command'))}",
    )
    return " · ".join(parts)


def _values(contexts: list[Context], read) -> str:
    distinct = list(dict.fromkeys(read(context) for context in contexts)) or [NOT_RECORDED]
    more = f" and {len(distinct) - MOST_VALUES} more" if len(distinct) > MOST_VALUES else ""
    return "; ".join(distinct[:MOST_VALUES]) + more


def _device(context: Context) -> str:
    return context.text("device")


def _clocks(context: Context) -> str:
    graphics, memory, processor = (context.number(k) for k in ("clock_sm_mhz", "clock_mem_mhz", "mhz_per_cpu"))
    if graphics is None and memory is None:
        return f"CPU {processor:.0f} MHz" if processor else NOT_RECORDED
    sm = f"{graphics:.0f} MHz" if graphics else NOT_RECORDED
    mem = f"{memory:.0f} MHz" if memory else NOT_RECORDED
    return f"SM {sm}, memory {mem}"
