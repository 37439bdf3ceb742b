"""`gate run --metric instructions`: with callgrind on a real program, and with a made-up `perf`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gate import perf

SOURCE = Path(__file__).with_name("six_rows.cpp")
needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


@pytest.fixture(scope="session")
def six_rows(tmp_path_factory):
    """Percent of further work in the row `mix` -> program; skips where Google Benchmark is not installed."""
    folder = tmp_path_factory.mktemp("six_rows")

    def build(percent: int) -> str:
        program = folder / f"extra{percent}"
        if not program.exists():
            words = ["g++", "-O2", "-std=c++20", f"-DEXTRA_PERCENT={percent}", str(SOURCE), "-o", str(program)]
            done = subprocess.run([*words, "-lbenchmark", "-lpthread"], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"cannot be built: {done.stderr[-200:]}")
        return str(program)

    return build


@pytest.fixture(autouse=True)
def forget_perf():
    perf.is_available.cache_clear()
    yield
    perf.is_available.cache_clear()


@needs_valgrind
def test_two_percent_in_one_of_six_rows_is_found_and_the_same_program_passes(six_rows, run_gate):
    arguments = ("run", "--metric", "instructions", "--quiet", "--base", six_rows(0), "--candidate")
    code, out, _ = run_gate(*arguments, six_rows(2))
    assert code == 1 and "FAIL: 1 FAIL, 5 PASS" in out
    assert next(line for line in out.splitlines() if line.startswith("mix")).endswith("FAIL")
    three = f"{six_rows(0)} --benchmark_filter=mix|root|sum"
    code, out, _ = run_gate("run", "--metric", "instructions", "--quiet", "--base", three, "--candidate", three)
    assert code == 0 and "PASS: 3 PASS" in out and "instructions counted by" in out


@needs_valgrind
def test_any_command_is_counted_as_a_whole(run_gate):
    arguments = ("run", "--metric", "instructions", "--quiet", "--base", "/bin/true")
    code, out, _ = run_gate(*arguments, "--candidate", "/bin/true", "--whole")
    assert code == 0 and "whole command" in out
    code, _, err = run_gate(*arguments, "--candidate", "/bin/true")
    assert code == 2 and "lists no benchmarks" in err and "--whole" in err
    assert run_gate(*arguments, "--candidate", "/bin/false", "--whole")[0] == 2
    assert run_gate("run", "--base", "a", "--candidate", "b", "--whole")[0] == 2


PROGRAM = """#!/bin/sh
# A benchmark program whose one row executes ITERATION instructions an iteration after 1000000 to start.
iterations=1
for word in "$@"; do
  case $word in
    --benchmark_list_tests*) echo row; exit 0 ;;
    --benchmark_min_time=*x) iterations=${word#--benchmark_min_time=}; iterations=${iterations%x} ;;
  esac
done
echo $((1000000 + iterations * ITERATION)) >"$(dirname "$0")/count"
"""
PERF = """#!/bin/sh
# perf stat -x , -e instructions:u -- COMMAND: the count that the program left behind.
shift 6
"$@" || exit $?
echo "$(cat FOLDER/count 2>/dev/null || echo 5),,instructions:u,1000,100.00,," >&2
"""


def test_the_processor_counts_where_it_can(tmp_path, run_gate, monkeypatch):
    """The start of the program, however long, is no part of an iteration's count."""
    programs = {}
    for name, text in (
        ("perf", PERF.replace("FOLDER", str(tmp_path))),
        ("base", PROGRAM.replace("ITERATION", "1000")),
        ("candidate", PROGRAM.replace("ITERATION", "1020")),
    ):
        programs[name] = tmp_path / name
        programs[name].write_text(text)
        programs[name].chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    arguments = ("run", "--metric", "instructions", "--quiet", "--base", programs["base"], "--candidate")
    code, out, _ = run_gate(*arguments, programs["candidate"])
    assert code == 1 and "+2.00 %" in out and "counted by the processor, one iteration" in out
    assert run_gate(*arguments, programs["base"])[0] == 0
