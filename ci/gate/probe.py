"""A small benchmark program with Google Benchmark's options and JSON, for self-checks without another one.

Run as `python3 -m gate.probe --benchmark_out=FILE [--benchmark_repetitions=N] [--benchmark_filter=RE]`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

BLOCK = bytes(range(256)) * 256
BENCHMARKS: dict[str, Callable[[], object]] = {
    "probe/sha256": lambda: hashlib.sha256(BLOCK).digest(),
    "probe/crc32": lambda: zlib.crc32(BLOCK),
    "probe/loop": lambda: sum(number * number for number in range(500)),
}
SECONDS = 0.1  # of one repetition


def repetition(work: Callable[[], object], seconds: float) -> tuple[int, float, float]:
    """Calls of `work` in at least `seconds`, and nanoseconds of one call: real and of the processor."""
    calls, begin, used = 0, time.perf_counter_ns(), time.process_time_ns()
    while True:
        work()
        calls += 1
        elapsed = time.perf_counter_ns() - begin
        if elapsed >= seconds * 1e9:
            return calls, elapsed / calls, (time.process_time_ns() - used) / calls


def main(arguments: list[str]) -> int:
    """Runs the benchmarks and writes Google Benchmark's JSON."""
    parser = argparse.ArgumentParser(prog="gate.probe")
    parser.add_argument("--benchmark_out", type=Path, required=True)
    parser.add_argument("--benchmark_out_format", choices=["json"], default="json")
    parser.add_argument("--benchmark_repetitions", type=int, default=1)
    parser.add_argument("--benchmark_filter", type=re.compile, default=re.compile(""))
    parser.add_argument("--benchmark_min_time", type=float, default=SECONDS)
    options = parser.parse_args(arguments)
    entries = []
    for name, work in BENCHMARKS.items():
        for index in range(options.benchmark_repetitions if options.benchmark_filter.search(name) else 0):
            calls, nanoseconds, processor = repetition(work, options.benchmark_min_time)
            entries.append(
                {
                    "name": name,
                    "run_name": name,
                    "run_type": "iteration",
                    "repetition_index": index,
                    "iterations": calls,
                    "real_time": nanoseconds,
                    "cpu_time": processor,
                    "time_unit": "ns",
                }
            )
    context = {"host_name": socket.gethostname(), "library_build_type": "release"}
    options.benchmark_out.write_text(json.dumps({"context": context, "benchmarks": entries}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
