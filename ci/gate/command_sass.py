"""`gate sass`: what changed in the machine code of CUDA kernels; needs no GPU."""

from __future__ import annotations

import argparse
import difflib
import json
from dataclasses import dataclass

from .demangle import demangle
from .errors import ExitCode, InputError, one_line
from .files import write_file
from .sass_record import Kernels, load, write_record
from .sass_text import Kernel

RESOURCES = ("registers", "stack", "local_accesses", "shared")
CHECKS = ("registers", "spills", "shared", "code", "removed")


@dataclass(frozen=True)
class Change:
    """One kernel on two sides, either of which may lack it. name: demangled."""

    architecture: str
    name: str
    base: Kernel | None
    candidate: Kernel | None

    def findings(self) -> set[str]:
        """Which of CHECKS apply: growth of a resource, other code, or a removed kernel."""
        if self.base is None or self.candidate is None:
            return {"removed"} if self.candidate is None else set()
        grown = {key for key in RESOURCES if getattr(self.candidate, key) > getattr(self.base, key)}
        found = grown & {"registers", "shared"}
        if grown & {"stack", "local_accesses"}:
            found.add("spills")
        if self.base.digest != self.candidate.digest:
            found.add("code")
        return found

    @property
    def kind(self) -> str:
        """added, removed, unchanged, or changed."""
        if self.base is None or self.candidate is None:
            return "added" if self.base is None else "removed"
        same = self.base.digest == self.candidate.digest
        return (
            "unchanged"
            if same and all(getattr(self.base, k) == getattr(self.candidate, k) for k in RESOURCES)
            else "changed"
        )


def add_parser(subparsers) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "sass",
        help="registers, spills, shared memory and code of CUDA kernels",
        description="Compares the kernels of two builds: objects, libraries, executables, cubins, or records (*.json). "
        "Exit code 1 if a finding of --fail-on is there.",
    )
    parser.add_argument("--base", nargs="+", metavar="FILE")
    parser.add_argument("--candidate", nargs="+", required=True, metavar="FILE")
    parser.add_argument(
        "--record", metavar="FILE.json", help="write the candidate's kernels, for --base of a later run"
    )
    parser.add_argument("--fail-on", nargs="*", choices=CHECKS, default=["spills"], help="default: spills")
    parser.add_argument(
        "--diff", type=int, default=0, metavar="LINES", help="show up to LINES of difference for each kernel"
    )
    parser.add_argument("--cuobjdump", metavar="PROGRAM", help="default: on PATH or in /usr/local/cuda/bin")
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON")
    parser.set_defaults(handle=handle)


def handle(options: argparse.Namespace) -> int:
    """Exit code of the comparison or recording."""
    if not options.base and not options.record:
        raise InputError("--base", "is missing", "give a base to compare with, or --record FILE.json")
    candidate = _kernels_of(options.candidate, options.cuobjdump)
    if options.record:
        write_record(options.record, candidate)
        print(f"{len(candidate)} kernels recorded in {options.record}")
    if not options.base:
        return ExitCode.PASS
    changes = compare(_kernels_of(options.base, options.cuobjdump), candidate)
    failing = [change for change in changes if change.findings() & set(options.fail_on)]
    _show(changes, options.diff)
    if options.json:
        write_file(
            options.json,
            json.dumps({"schema": "gate-sass-changes/1", "rows": [_row(c) for c in changes]}, indent=1) + "\n",
        )
    counts = ", ".join(
        f"{sum(c.kind == kind for c in changes)} {kind}" for kind in ("unchanged", "changed", "added", "removed")
    )
    print(
        f"{'FAIL' if failing else 'PASS'}: {counts}; {len(failing)} with a finding in: {', '.join(options.fail_on) or 'nothing'}"
    )
    return ExitCode.REGRESSION if failing else ExitCode.PASS


def _kernels_of(paths: list[str], cuobjdump: str | None) -> Kernels:
    found = load(paths, cuobjdump)
    if not found:
        raise InputError(", ".join(paths), "no kernel in it", "give files with compiled device code")
    return found


def compare(base: Kernels, candidate: Kernels) -> list[Change]:
    """All kernels of both sides, changed ones first."""
    keys = sorted(set(base) | set(candidate))
    names = demangle([name for _, name in keys])
    changes = [Change(key[0], name, base.get(key), candidate.get(key)) for key, name in zip(keys, names)]
    return sorted(changes, key=lambda change: change.kind == "unchanged")


def _show(changes: list[Change], diff_lines: int) -> None:
    for change in changes:
        if change.kind == "unchanged":
            continue
        print(f"{change.kind}: {one_line(change.name, 160)} [{change.architecture}]")
        for key in RESOURCES:
            before, after = (getattr(side, key) if side else None for side in (change.base, change.candidate))
            if before != after:
                print(f"    {key}: {'-' if before is None else before} -> {'-' if after is None else after}")
        if change.base and change.candidate and change.base.digest != change.candidate.digest:
            lines = list(difflib.unified_diff(change.base.code, change.candidate.code, n=1, lineterm=""))[2:]
            plus, minus = sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines)
            print(f"    code: {len(change.base.code)} -> {len(change.candidate.code)} lines, {plus} in, {minus} out")
            for line in lines[: max(0, diff_lines)]:
                print(f"        {one_line(line)}")


def _row(change: Change) -> dict[str, object]:
    sides: dict[str, object] = {
        label: {key: getattr(side, key) for key in RESOURCES} | {"sha256": side.digest} if side else None
        for label, side in (("base", change.base), ("candidate", change.candidate))
    }
    findings = sorted(change.findings())
    return {"architecture": change.architecture, "name": change.name, "kind": change.kind, "findings": findings} | sides
