"""`gate run` with real processes: a program with given times."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gate.launcher import _escape
from gate.rounds import random_orders
from gate.tool import run_tool

FAKE = shlex.join([sys.executable, str(Path(__file__).with_name("fake_benchmark.py"))])


def test_the_same_program_passes_with_progress(run_gate):
    command = f"{FAKE} --row a=100 --row b=7 --noise 0.002"
    code, out, err = run_gate("run", "--base", command, "--candidate", command, "--rounds", "8")
    assert code == 0 and "PASS: 2 PASS" in out
    assert "round 8/8" in err and "left" in err


@pytest.mark.parametrize(
    ("word", "advice"),
    [("--filter=a", "--base 'PROGRAM --benchmark_filter=REGEX'"), ("--max-slowdwon=3", "--max-slowdown?")],
)
def test_an_unknown_option_is_named_with_what_was_meant(run_gate, word, advice):
    command = f"{FAKE} --row a=100"
    code, out, err = run_gate("run", "--base", command, "--candidate", command, word)
    assert code == 2 and out == "" and word.split("=")[0] in err and advice in err


def test_a_slowdown_fails(run_gate, tmp_path):
    base, candidate = (f"{FAKE} --row a=100 --row b={time} --noise 0.001" for time in (70, 77))
    code, out, _ = run_gate(
        "run", "--base", base, "--candidate", candidate, "--rounds", "8", "--keep", tmp_path / "raw"
    )
    assert code == 1 and re.search(r"^b .*FAIL$", out, re.MULTILINE) and re.search(r"^a .*PASS$", out, re.MULTILINE)
    names = {path.name for path in (tmp_path / "raw").iterdir()}
    assert names == {f"{side}-{k:03d}.json" for side in ("base", "candidate") for k in range(1, 9)}


def test_every_process_is_fresh_and_both_orders_occur(run_gate, tmp_path):
    log = tmp_path / "log"
    command = f"{FAKE} --row a=100 --log {log}"
    run_gate("run", "--base", command, "--candidate", command, "--rounds", "8", "--quiet", "--repetitions", "5")
    lines = [line.split() for line in log.read_text().splitlines()]
    started = [words for words in lines if "rehearsal" not in words[0]]
    assert len(lines) == 18 and len(started) == 16 and all(words[-1] == "5" for words in started)
    first = [started[k][0].split("-")[0] for k in range(0, 16, 2)]
    assert first.count("base") == 4 and first.count("candidate") == 4


def test_orders_are_balanced_in_any_two_rounds_and_random():
    import random

    orders = [random_orders(12, random.Random(seed)) for seed in range(50)]
    assert all(one[k] != one[k + 1] for one in orders for k in range(0, 12, 2))
    assert len({tuple(one) for one in orders}) > 20


def test_only_unsure_benchmarks_get_more_rounds(run_gate, tmp_path):
    log = tmp_path / "log"
    command = f"{FAKE} --row quiet(1)=100 --row a.*b[2]=100 --noise 0 --log {log}"
    noisy = f"{FAKE} --row quiet(1)=100 --row a.*b[2]=103 --noise 0.03"
    code, out, err = run_gate(
        "run",
        "--base",
        command.replace("(1)", "_1"),
        "--candidate",
        noisy.replace("(1)", "_1"),
        "--rounds",
        "8",
        "--max-rounds",
        "12",
    )
    assert code in (0, 1) and "still open" in err
    filters = [line.split(" ")[1] for line in log.read_text().splitlines() if "rehearsal" not in line]
    assert len(filters) == 12 and filters[:8] == [""] * 8
    assert filters[8].startswith("^(") and re.search(filters[8], "a.*b[2]")


def test_names_are_escaped_for_a_filter():
    name = r"BM_x<int, 3>/a.b[2]/(c)|d^e$f\g*h+i?j{1}"
    assert re.fullmatch(_escape(name), name) and not re.fullmatch(_escape("a.b"), "axb")


def test_the_repetitions_of_the_command_are_kept(run_gate, tmp_path):
    log = tmp_path / "log"
    command = f"{FAKE} --row a=1 --log {log} --benchmark_repetitions=2"
    run_gate("run", "--base", command, "--candidate", command, "--rounds", "8", "--quiet")
    assert {line.split()[-1] for line in log.read_text().splitlines()} == {"2"}


def test_a_wrong_result_is_exit_code_1_whatever_status_the_program_ends_with(run_gate):
    good = f"{FAKE} --row a=100"
    bad = f"{good} --error 'b=wrong result: 1 of 8' --end 1"
    code, out, _ = run_gate("run", "--base", good, "--candidate", bad, "--rounds", "8", "--quiet")
    assert code == 1 and "1 WRONG" in out and "wrong result: 1 of 8" in out


@pytest.mark.parametrize(
    "candidate, said",
    [
        ("/nowhere/bench", "cannot start '/nowhere/bench'"),
        ("'unclosed", "cannot be split into words"),
        ("", "is empty"),
        (f"{FAKE} --row a=1 --crash", "ended by signal 11"),
        (f"{FAKE} --row a=1 --end 7", "ended with status 7"),
        (f"{FAKE} --row a=1 --silent", "without a usable result"),
        (f"{FAKE} --row a=1 --hang", "did not finish in 0.5 s"),
        (f"{FAKE}", "holds no benchmark"),
    ],
)
def test_a_program_that_cannot_be_judged_is_exit_code_2(run_gate, candidate, said):
    """Only the program that hangs has a short time: on a busy machine half a second may pass before Python has started."""
    arguments = ("--rounds", "8", "--quiet", "--timeout", "0.5" if "--hang" in candidate else "600")
    code, _, err = run_gate("run", "--base", f"{FAKE} --row a=1", "--candidate", candidate, *arguments)
    assert code == 2 and said in err and len(err.splitlines()) == 1


def test_the_last_words_of_a_crash_are_shown(run_gate):
    _, _, err = run_gate("run", "--base", f"{FAKE} --row a=1 --crash", "--candidate", f"{FAKE} --row a=1", "--quiet")
    assert "about to crash" in err and "--base" in err


def test_other_conditions_are_refused_after_the_first_round(run_gate, tmp_path):
    log = tmp_path / "log"
    base, candidate = (f"{FAKE} --row a=1 --context device={name} --log {log}" for name in ("H100", "H200"))
    code, _, err = run_gate("run", "--base", base, "--candidate", candidate, "--quiet")
    assert code == 2 and "'device'" in err and len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("run",),
        ("compare",),
        ("nonsense",),
        ("run", "--base", "a", "--candidate", "b", "--rounds", "0"),
        ("run", "--base", "a", "--candidate", "b", "--rounds", "9", "--max-rounds", "8"),
        ("compare", "--base", "a", "--candidate", "b", "--floor", "nan"),
        ("compare", "--base", "a", "--candidate", "b", "--wrong-result", "("),
    ],
)
def test_bad_usage_is_exit_code_2(run_gate, arguments):
    code, _, err = run_gate(*arguments)
    assert code == 2 and "Traceback" not in err


def test_a_cancelled_gate_leaves_no_process_behind(tmp_path):
    words = [sys.executable, "-m", "gate", "run", "--base", f"{FAKE} --row a=1 --hang --log {tmp_path / 'log'}"]
    words += ["--candidate", f"{FAKE} --row a=1 --hang --log {tmp_path / 'log'}", "--keep", str(tmp_path / "raw")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    gate = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "log").exists():
        time.sleep(0.05)
    gate.terminate()
    _, err = gate.communicate(timeout=20)
    assert gate.returncode == 130 and "interrupted" in err
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))


def measured(out, name):
    """The table's line of a benchmark."""
    return next(line for line in out.splitlines() if line.startswith(f"{name} "))


def test_time_that_others_had_the_processor_does_not_count(run_gate):
    """Processor time is the same on both sides; real time is 30 % longer on one, and both never waited."""
    base = f"{FAKE} --row a=100 --noise 0.001"
    code, out, _ = run_gate("run", "--base", base, "--candidate", f"{base} --processor 0.9999", "--rounds", "8", "--quiet")
    assert code == 0 and "1 of 1 rows are judged by cpu_time" in out
    half = f"{base} --processor 0.5"
    _, out, _ = run_gate("run", "--base", half, "--candidate", f"{half} --wait", "--rounds", "8", "--quiet")
    assert "judged by cpu_time" not in out  # the candidate gave up the processor by itself


def test_a_budget_that_is_no_time_is_refused(run_gate):
    assert run_gate("run", "--base", FAKE, "--candidate", FAKE, "--budget", "soon")[0] == 2


def test_too_few_rounds_are_said_at_the_start(run_gate):
    command = f"{FAKE} --row a=100"
    arguments = ("--rounds", "3", "--max-rounds", "3", "--strict", "--quiet")
    code, _, err = run_gate("run", "--base", command, "--candidate", command, *arguments)
    assert code == 5 and err.splitlines()[0].endswith("3 rounds a side; a verdict needs 8, so every row will be UNSURE")


def test_a_filter_that_chooses_nothing_is_said(run_gate):
    command = f"{FAKE} --row a=100"
    arguments = ("--candidate", f"{command} --benchmark_filter=b", "--quiet")
    code, _, err = run_gate("run", "--base", command, *arguments)
    assert code == 2 and "--candidate: the filter matches no benchmark" in err


def test_a_removed_benchmark_is_named_whatever_other_rows_do(run_gate):
    """Row b stays open, so it gets further rounds, in which nobody asks for the removed row."""
    base = f"{FAKE} --row gone=5 --row b=100 --noise 0.05"
    candidate = f"{FAKE} --row b=103 --row added=5 --noise 0.05"
    arguments = ("--rounds", "8", "--max-rounds", "16")
    code, out, err = run_gate("run", "--base", base, "--candidate", candidate, *arguments)
    assert "still open" in err and code == 1
    assert "MISSING  (removed)" in measured(out, "gone") and "NEW  (added)" in measured(out, "added")


def still_runs(file):
    """Whether the process whose id `file` holds is there."""
    return Path("/proc", file.read_text().strip()).exists()


@pytest.mark.parametrize("how", ["", "--detach"])
def test_processes_that_a_benchmark_leaves_behind_are_ended(run_gate, tmp_path, how):
    command = f"{FAKE} --row a=100"
    candidate = f"{command} --fork {tmp_path / 'id'} {how}"
    code, _, _ = run_gate("run", "--base", command, "--candidate", candidate, "--rounds", "8", "--quiet")
    assert code == 0 and not still_runs(tmp_path / "id")


def test_processes_that_a_counted_program_leaves_behind_are_ended_and_not_waited_for(tmp_path):
    script = f"setsid sleep 60 & echo $! > {tmp_path / 'id'}; echo said"
    begin = time.monotonic()
    done = run_tool(["sh", "-c", script], "--base", "it", os.environ)
    assert time.monotonic() - begin < 30 and not still_runs(tmp_path / "id")
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")


RULES = """
[[rows]]
match = "slow*"
max_slowdown = 20
[[rows]]
match = "gone"
allow_missing = true
"""


def test_rules_hold_for_the_rows_that_they_match(run_gate, tmp_path):
    (tmp_path / "gate.toml").write_text(RULES)
    base = f"{FAKE} --row slow=100 --row other=100 --row gone=1 --noise 0.001"
    candidate = f"{FAKE} --row slow=110 --row other=100 --noise 0.001"
    arguments = ("run", "--base", base, "--candidate", candidate, "--rounds", "8", "--quiet")
    assert run_gate(*arguments)[0] == 1
    code, out, _ = run_gate(*arguments, "--rules", tmp_path / "gate.toml")
    assert code == 0 and measured(out, "slow").rstrip().endswith("PASS") and "SKIPPED" in measured(out, "gone")


@pytest.mark.parametrize(
    "text, said",
    [
        ("[[rows]", "is not TOML"),
        ("row = 1", "did you mean 'rows'?"),
        ("rows = 3", "is not a list of tables"),
        ("[[rows]]\nfloor = 3", "rows[0].match is not a pattern"),
        ('[[rows]]\nmatch = "*"\nmax_slowdon = 3', "did you mean 'max_slowdown'?"),
        ('[[rows]]\nmatch = "*"\nfloor = -3', "rows[0].floor is not a number"),
        ('[[rows]]\nmatch = "*"\ncounters = ["items"]', "is not NAME:up or NAME:down"),
        ('[[rows]]\nmatch = "*"\nallow_missing = 1', "neither true nor false"),
    ],
)
def test_bad_rules_are_refused_by_file_and_key(run_gate, tmp_path, text, said):
    (tmp_path / "gate.toml").write_text(text)
    arguments = ("--base", "a", "--candidate", "b", "--rules", tmp_path / "gate.toml")
    code, _, err = run_gate("run", *arguments)
    assert code == 2 and said in err and "gate.toml" in err
