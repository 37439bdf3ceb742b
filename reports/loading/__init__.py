"""From the paths a user gives to `Results`: which files they are, of which kind, grouped by what may be compared."""

from pathlib import Path

from reports.errors import ReportError
from reports.loading import benchmark, gate, layout, metrics
from reports.loading.json_file import describe, parse, read_text
from reports.model import Benchmark, Context, Results, Session

KNOWN = "Google Benchmark results, a gate result, metrics.jsonl or a shard layout"


def load(paths: list[Path]) -> Results:
    """Reads files, and of folders every .json and .jsonl below them in the order of their names.

    In a folder a file of no known kind is listed as ignored and a malformed one as broken; given by name either is an error.
    Errors: ReportError naming the file.
    """
    results = Results()
    sessions: dict[tuple, Session] = {}
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*.json*") if file.suffix in (".json", ".jsonl"))
            known = [_try_file(file, results, sessions) for file in found]
            results.ignored += [str(file) for file, is_known in zip(found, known) if is_known is False]
            if not any(known):
                broken = f"; {results.broken[-1]}" if None in known else ""
                raise ReportError(path, f"holds no result file ({KNOWN}){broken}")
        elif not _load_file(path, results, sessions):
            raise ReportError(path, f"is none of: {KNOWN}")
    results.sessions = list(sessions.values())
    return results


def _try_file(path: Path, results: Results, sessions: dict[tuple, Session]) -> bool | None:
    """_load_file for a file that was not given by name: a malformed one is listed, and gives None."""
    try:
        return _load_file(path, results, sessions)
    except ReportError as error:
        results.broken.append(str(error))
        return None


def _load_file(path: Path, results: Results, sessions: dict[tuple, Session]) -> bool:
    """Adds the file to what it is a part of; False if it is JSON of another kind."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        results.runs.append(metrics.load(text, path))
        return True
    document = parse(text, path)
    if not isinstance(document, dict):
        raise ReportError(path, f"is {describe(document)}, not an object")
    if "benchmarks" in document and "context" in document:
        _add_to_session(sessions, *benchmark.load(document, path))
    elif gate.recognises(document):
        results.gates.append(gate.load(document, path))
    elif "world_size" in document and "ranks" in document:
        results.layouts.append(layout.load(document, path))
    else:
        return False
    return True


def _add_to_session(
    sessions: dict[tuple, Session], context: Context, rows: list[Benchmark], omitted: list[str]
) -> None:
    """One session a device, driver and source hash; equal benchmarks of several files become one with more samples."""
    key = tuple(context.text(part) for part in ("device", "driver", "source_hash"))
    session = sessions.setdefault(key, Session())
    session.contexts.append(context)
    session.omitted += omitted
    by_name = {row.name: row for row in session.benchmarks}
    for row in rows:
        if row.name not in by_name:
            session.benchmarks.append(row)
            continue
        by_name[row.name].seconds += row.seconds
        for counter, values in row.counters.items():
            by_name[row.name].counters.setdefault(counter, []).extend(values)
