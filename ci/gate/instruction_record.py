"""The recorded instruction counts that a project keeps in its repository."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import InputError, one_line
from .files import write_file
from .google_benchmark import read_json_object

SCHEMA = "gate-instructions/1"
REMEDY = "see 'Instruction counts' in the gate's README"


@dataclass(frozen=True)
class Entry:
    """One counted command. function: shell pattern of a demangled name; counts are then of one call of it, otherwise of the
    whole run. instructions: recorded count, None before the first --accept. variables: of the environment, for example
    OMP_NUM_THREADS = 1, without which the work of other threads is in no call of `function`."""

    name: str
    command: str
    function: str | None = None
    instructions: int | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A file of entries. limit: largest growth, as a fraction. environment: what the counts were recorded with."""

    entries: tuple[Entry, ...]
    limit: float = 0.02
    environment: dict[str, str] = field(default_factory=dict)

    def accept(self, counts: dict[str, int], environment: dict[str, str]) -> Record:
        """This record with the counted instructions in place of the recorded ones."""
        entries = tuple(replace(one, instructions=counts.get(one.name, one.instructions)) for one in self.entries)
        return Record(entries, self.limit, environment)


def read_record(path: str | Path) -> Record:
    """The record in `path`. Errors: InputError naming file and entry."""
    document = read_json_object(path, REMEDY)
    entries, environment = document.get("entries"), document.get("environment", {})
    limit = document.get("limit_percent", 2.0)
    if document.get("schema") != SCHEMA or not isinstance(entries, list) or not isinstance(environment, dict):
        raise InputError(path, f"is not a record of schema {SCHEMA}", REMEDY)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit <= 100:
        raise InputError(path, "limit_percent is not a number in (0, 100]", REMEDY)
    parsed = tuple(_entry(path, index, entry) for index, entry in enumerate(entries))
    if len({entry.name for entry in parsed}) != len(parsed):
        raise InputError(path, "two entries have the same name", REMEDY)
    return Record(parsed, limit / 100, {str(key): str(value) for key, value in environment.items()})


def write_record(path: str | Path, record: Record) -> None:
    """Replaces the file at `path`."""
    entries = [
        {key: value for key, value in vars(entry).items() if value not in (None, {})} for entry in record.entries
    ]
    document = {
        "schema": SCHEMA,
        "limit_percent": round(100 * record.limit, 6),
        "environment": record.environment,
        "entries": entries,
    }
    write_file(path, json.dumps(document, indent=2) + "\n")


def _entry(path: str | Path, index: int, entry: Any) -> Entry:
    if not isinstance(entry, dict):
        raise InputError(path, f"entries[{index}] is not an object", REMEDY)
    unknown = sorted(set(entry) - {"name", "command", "function", "instructions", "variables"})
    if unknown:
        raise InputError(path, f"entries[{index}] has an unknown key '{one_line(unknown[0], 80)}'", REMEDY)
    name, command, function = entry.get("name"), entry.get("command"), entry.get("function")
    for key, value in (("name", name), ("command", command), ("function", function or "*")):
        if not isinstance(value, str) or not value:
            raise InputError(path, f"entries[{index}].{key} is not text", REMEDY)
    count = entry.get("instructions")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count <= 0):
        raise InputError(path, f"entries[{index}].instructions is not a positive whole number", REMEDY)
    variables = entry.get("variables", {})
    if not isinstance(variables, dict) or not all(_is_variable(key, value) for key, value in variables.items()):
        raise InputError(path, f"entries[{index}].variables is not an object of texts", REMEDY)
    return Entry(str(name), str(command), function, count, variables)


def _is_variable(key: str, value: Any) -> bool:
    return bool(key) and "=" not in key and isinstance(value, str) and (key + value).isprintable()
