"""A benchmark program whose times are given: --row NAME=NANOSECONDS, --noise FRACTION, --error NAME=MESSAGE, --end STATUS,
--crash, --hang, --silent, --log FILE, ...; Google Benchmark's own options are understood as far as the gate uses them."""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--row", action="append", default=[])
parser.add_argument("--error", action="append", default=[])
parser.add_argument("--noise", type=float, default=0.0)
parser.add_argument("--context", action="append", default=[])
parser.add_argument("--end", type=int, default=0)
parser.add_argument("--crash", action="store_true")
parser.add_argument("--hang", action="store_true")
parser.add_argument("--silent", action="store_true")
parser.add_argument("--log", type=Path)
parser.add_argument("--benchmark_out", type=Path)
parser.add_argument("--benchmark_out_format")
parser.add_argument("--benchmark_repetitions", type=int, default=1)
parser.add_argument("--benchmark_min_time", type=float)
parser.add_argument("--processor", type=float, default=1.0, help="processor time over real time")
parser.add_argument("--wait", action="store_true", help="give up the processor often")
parser.add_argument("--fork", type=Path, help="leave a sleeping process behind and write its id here")
parser.add_argument("--detach", action="store_true", help="with --fork: in a session of its own")
parser.add_argument("--benchmark_filter", default="")
options = parser.parse_args()
if options.log:
    with options.log.open("a") as log:
        log.write(f"{options.benchmark_out.stem} {options.benchmark_filter} {options.benchmark_repetitions}\n")
if options.crash:
    print("about to crash", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
if options.wait:
    for _ in range(200):
        time.sleep(0.0005)
if options.fork:
    options.fork.write_text(str(subprocess.Popen(["sleep", "60"], start_new_session=options.detach).pid))
if options.hang:
    time.sleep(60)
noise = random.Random(options.benchmark_out.stem)  # differs from process to process, the same in every run
entries = []
for row in options.row:
    name, value = row.rsplit("=", 1)
    level = float(value) * (1 + options.noise * noise.gauss(0, 1))
    if re.search(options.benchmark_filter, name):
        for index in range(options.benchmark_repetitions):
            entries.append(
                {
                    "name": name,
                    "run_name": name,
                    "run_type": "iteration",
                    "repetition_index": index,
                    "real_time": level,
                    "cpu_time": level * options.processor,
                    "time_unit": "ns",
                }
            )
for row in options.error:
    name, message = row.split("=", 1)
    entries.append(
        {
            "name": name,
            "run_name": name,
            "run_type": "iteration",
            "error_occurred": True,
            "error_message": message,
            "real_time": 0.0,
            "cpu_time": 0.0,
            "time_unit": "ns",
        }
    )
context = {"host_name": "fake"} | dict(pair.split("=", 1) for pair in options.context)
if options.benchmark_filter and not entries:
    print(f"Failed to match any benchmarks against regex: {options.benchmark_filter}", file=sys.stderr)
    raise SystemExit(0)
if not options.silent:
    options.benchmark_out.write_text(json.dumps({"context": context, "benchmarks": entries}))
raise SystemExit(options.end)
