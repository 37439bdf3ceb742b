"""Order statistics of repetitions. Medians and quartiles, because timings have slow tails."""

import numpy as np

from reports.model import Benchmark


def median(values: list[float]) -> float:
    return float(np.median(values))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile (linear interpolation between samples)."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def counter(row: Benchmark, name: str) -> float | None:
    """The median of a user counter; None if it was not recorded or is not positive."""
    values = row.counters.get(name)
    middle = median(values) if values else 0.0
    return middle if middle > 0.0 else None


def bytes_per_run(row: Benchmark) -> float | None:
    """Bytes that one run moves: what `bytes_per_second` times the time of a run gives."""
    rates = row.counters.get("bytes_per_second", [])
    if len(rates) != len(row.seconds) or not rates:
        return None
    moved = median([rate * seconds for rate, seconds in zip(rates, row.seconds)])
    return moved if moved > 0.0 else None


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
