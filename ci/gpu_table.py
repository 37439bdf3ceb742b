#!/usr/bin/env python3
"""Tables of a recorded GPU run; standard library only.

gpu_table.py FOLDER            prints the results table of reports/results/<gpu>/ as Markdown
gpu_table.py --tests LOGS OUT  sums GoogleTest's JSON files in LOGS up into OUT (tests.json)
gpu_table.py --compact IN OUT  copies a Google Benchmark file without its aggregates, one repetition a line
"""

import json
import statistics
import sys
from pathlib import Path

LARGE = "n:28672/k:8192/blocksize:64/dtype:bf16"
LARGE_DOWN = "n:8192/k:28672/blocksize:64/dtype:bf16"
SMALL = "n:4096/k:4096/blocksize:64/dtype:bf16"


class Results:
    """Medians over the repetitions of every row in a folder's result files."""

    def __init__(self, folder):
        self.context = {}
        self.rows = {}  # name without Google Benchmark's suffixes -> counter -> values
        self.failed = {}
        for path in sorted(Path(folder).glob("*.json")):
            content = json.loads(path.read_text())
            if "benchmarks" in content:
                self._add(content)

    def _add(self, content):
        self.context = self.context or content["context"]
        fresh = {}
        for entry in content["benchmarks"]:
            name = entry["name"].split("/iterations:")[0]
            if entry.get("error_occurred"):
                self.failed[name] = entry.get("error_message", "failed")
            elif entry["run_type"] == "iteration":
                row = fresh.setdefault(name, {})
                for key, value in entry.items():
                    if isinstance(value, (int, float)):
                        row.setdefault(key, []).append(value)
        for name, row in fresh.items():
            self.rows.setdefault(name, row)

    def median(self, name, key):
        row = self.rows.get(name)
        return statistics.median(row[key]) if row and name not in self.failed else None

    def ratio(self, name, other):
        mine, theirs = self.median(name, "real_time"), self.median(other, "real_time")
        return mine / theirs if mine and theirs else None


def row_name(operation, provider, problem, nested=1, rows=None):
    middle = f"/rows:{rows}" if rows else ""
    return f"{operation}/provider:{provider}{middle}/{problem}/nested:{nested}"


def measured_rows(results):
    """(what, ours, peer, needed, aim, whether more is better)."""

    def both(operation, problem, nested):
        return [results.median(row_name(operation, p, problem, nested), "copy_fraction") for p in ("qshard", "bitsandbytes")]

    def weight(problem, nested=1):
        return [
            results.median(row_name("linear4bit", p, problem, nested, 1), "weight_copy_fraction")
            for p in ("qshard", "bitsandbytes")
        ]

    def over_one_row(problem, rows):
        return [
            results.ratio(row_name("linear4bit", p, problem, 1, rows), row_name("linear4bit", p, problem, 1, 1))
            for p in ("qshard", "bitsandbytes")
        ]

    def over_cublas(operation, problem, rows):
        return [
            results.ratio(row_name(operation, p, problem, 1, rows), row_name(operation, "cublas", problem, 1, rows))
            for p in ("qshard", "bitsandbytes")
        ]

    copy, of_copy = True, "of copy bandwidth"
    yield f"dequantize nested NF4 to bf16, 28672 x 8192, {of_copy}", *both("dequantize", LARGE, 1), 0.92, 0.97, copy
    yield f"dequantize nested NF4 to bf16, 4096 x 4096, {of_copy}", *both("dequantize", SMALL, 1), 0.70, 0.85, copy
    yield f"quantize bf16 to NF4, 28672 x 8192, {of_copy}", *both("quantize", LARGE, 0), 0.88, 0.95, copy
    yield f"quantize bf16 to nested NF4, 28672 x 8192, {of_copy}", *both("quantize", LARGE, 1), 0.80, 0.90, copy
    for label, problem in (("28672 x 8192", LARGE), ("8192 x 28672", LARGE_DOWN)):
        yield f"linear, 1 row, {label}, nested: weight bytes, {of_copy}", *weight(problem), 0.70, 0.90, copy
    for label, problem in (("28672 x 8192", LARGE), ("8192 x 28672", LARGE_DOWN)):
        for rows, needed, aim in ((16, 1.3, 1.1), (64, 2.0, 1.5)):
            values = over_one_row(problem, rows)
            yield f"linear, {rows} rows, {label}, over its own 1-row time", *values, needed, aim, False
    for operation, text in (("linear4bit", "linear"), ("linear4bit_backward", "gradient of the input")):
        limits = {2048: (1.08, 1.00)} if operation != "linear4bit" else {2048: (1.08, 1.00), 4096: (1.05, 1.00)}
        for label, problem in (("28672 x 8192", LARGE), ("8192 x 28672", LARGE_DOWN)):
            for rows, (needed, aim) in limits.items():
                values = over_cublas(operation, problem, rows)
                yield f"{text}, {rows} rows, {label}, over cuBLAS bf16", *values, needed, aim, False


def verdict(value, needed, aim, more):
    if value is None:
        return "not measured"
    reached = (lambda limit: value >= limit) if more else (lambda limit: value <= limit)
    return "aim reached" if reached(aim) else "reached" if reached(needed) else "**missed**"


def cell(value):
    return "-" if value is None else f"{value:.3f}"


def print_table(folder):
    results = Results(folder)
    if not results.context:
        sys.exit(f"gpu_table.py: no result files with benchmarks in {folder}")
    context = results.context
    print(
        f"{context['device']}, driver {context['driver']}, {context['date'][:10]}: copy "
        f"{float(context['copy_bytes_per_second']) / 1e9:.0f} GB/s, bf16 product "
        f"{float(context['product_flops_per_second']) / 1e12:.0f} TFLOP/s, both measured in the same process. Medians, "
        f"cold L2 cache, random data; each row verified before and after timing. Below 1 is better for "
        f"times over another time, above for shares of a limit.\n"
    )
    print("| what | bitsandbytes | needed | aim | measured | |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for what, ours, peer, needed, aim, more in measured_rows(results):
        print(f"| {what} | {cell(peer)} | {needed:.2f} | {aim:.2f} | {cell(ours)} | {verdict(ours, needed, aim, more)} |")
    tests = Path(folder) / "tests.json"
    if tests.exists():
        total = json.loads(tests.read_text())["total"]
        passed = total["tests"] - total["failed"] - total["skipped"]
        print(
            f"\nGPU tests, bits compared with the reference and bitsandbytes included: {passed} passed, "
            f"{total['failed']} failed, {total['skipped']} skipped."
        )
    checked = sum(name.split("/")[0] in ("dequantize", "quantize") for name in results.rows)
    print(f"\nBenchmark rows compared to the bit: {checked}; rows that failed a check: {len(results.failed)}.")
    for name, message in sorted(results.failed.items()):
        print(f"- {name}: {message}")


def summarize_tests(logs, out):
    programs = {}
    for path in sorted(Path(logs).glob("*_test.json")):
        content = json.loads(path.read_text())
        cases = [case for suite in content["testsuites"] for case in suite["testsuite"]]
        programs[path.stem] = {
            "tests": len(cases),
            "failed": sum("failures" in case for case in cases),
            "skipped": sum(case.get("result") == "SKIPPED" for case in cases),
            "seconds": float(content["time"].rstrip("s")),
        }
    keys = ("tests", "failed", "skipped", "seconds")
    total = {key: sum(program[key] for program in programs.values()) for key in keys}
    Path(out).write_text(json.dumps({"total": total, "programs": programs}, indent=1) + "\n")


def compact(source, out):
    content = json.loads(Path(source).read_text())
    kept = [entry for entry in content["benchmarks"] if entry.get("run_type") != "aggregate"]
    lines = [json.dumps(entry) for entry in kept]
    context = json.dumps(content["context"], indent=1)
    Path(out).write_text('{"context": ' + context + ',\n"benchmarks": [\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--tests":
        summarize_tests(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 4 and sys.argv[1] == "--compact":
        compact(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        print_table(sys.argv[1])
    else:
        sys.exit(__doc__)
