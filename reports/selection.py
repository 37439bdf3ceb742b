"""Which benchmarks belong together in a figure."""

from collections import defaultdict

from reports.model import Benchmark, Session

# Keys that say how large a problem is; benchmarks that differ in nothing else are points of one line.
SIZE_KEYS = ("n", "k", "size", "elements", "bytes", "tokens", "hidden", "vocabulary")

LADDER = "_ladder"  # the end of the stem of a teaching ladder


def remainder(count: int, what: str) -> str:
    """The end of a reading that says what (in the singular) a picture had no room for; nothing if there was room."""
    return f" {count} more {what}{' is' if count == 1 else 's are'} in the CSV only." if count > 0 else ""


def own_provider(session: Session) -> str:
    """The provider a figure speaks of first: qshard, else the CPU reference, else the most measured one."""
    counts: dict[str, int] = defaultdict(int)
    for row in session.benchmarks:
        counts[row.provider] += 1
    for name in ("qshard", "reference"):
        if name in counts:
            return name
    return max(sorted(counts), key=counts.get, default="")


def comparable(session: Session) -> list[Benchmark]:
    """The benchmarks of real work: without ladders, whose early steps are slow on purpose."""
    return [row for row in session.benchmarks if not row.stem.endswith(LADDER)]


def variants(rows: list[Benchmark], *free: str) -> dict[tuple, list[Benchmark]]:
    """Rows grouped by stem and all keys but those in `free`, in the order of first appearance."""
    groups: dict[tuple, list[Benchmark]] = defaultdict(list)
    for row in rows:
        groups[(row.stem, *row.without(*free))].append(row)
    return groups


def short_names(names: list[str]) -> tuple[list[str], str]:
    """The names without the parts after the stem that all of them have, and those parts joined: what sets names apart
    stays in sight where there is little room."""
    parts = [name.split("/") for name in names]
    common = [part for part in parts[0][1:] if all(part in other[1:] for other in parts)] if len(parts) > 1 else []
    return ["/".join([p[0], *(part for part in p[1:] if part not in common)]) for p in parts], "/".join(common)


def describe(keys: tuple[tuple[str, str], ...]) -> str:
    """Keys and values for people: 'blocksize 64, dtype bf16'."""
    return ", ".join(f"{key} {value}" for key, value in keys)


def title(variant: tuple) -> str:
    """A variant for people: 'dequantize: blocksize 64, dtype bf16'."""
    stem, *keys = variant
    return f"{stem}: {describe(tuple(keys))}" if keys else stem
