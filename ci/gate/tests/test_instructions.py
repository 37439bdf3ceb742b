"""Instruction counts: callgrind's format, the record, and real runs where valgrind is installed."""

import json
import shutil

import pytest

from gate.callgrind import parse
from gate.command_instructions import judge
from gate.errors import InputError
from gate.instruction_record import Entry

CALLGRIND = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 3232

ob=(1) ???
fl=(1) tiny.c
fn=(0) main
0 6
cfn=(2) kernels::scale(float*)
calls=1 0
0 913
+4 4
cfn=(2)
calls=2 0
* 1826
0 20
cfn=(2)
calls=1 0
0 463

fn=(6) kernels::square(float)
0 1050

fn=(2)
0 40
cfn=(6)
calls=4 0
0 12
0 692
cfi=(1)
cfn=(6)
calls=346 0
-2 1038
0 1420

totals: 3232
"""


def test_counts_of_a_call():
    profile = parse(CALLGRIND, "test")
    assert profile.total == 3232
    assert profile.per_call("kernels::scale(*") == round((913 + 1826 + 463) / 4)
    assert profile.per_call("*square*") == 3
    assert profile.per_call("kernels::*") == round((913 + 1826 + 463) / 4)  # calls among matching functions count once
    assert profile.per_call("absent*") is None


def test_two_positions():
    text = CALLGRIND.replace("positions: line", "positions: instr line")
    lines = [line.replace(" ", " 7 ", 1) if line[:1] in "0123456789+-*" else line for line in text.splitlines()]
    assert parse("\n".join(lines), "test").per_call("*square*") == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "events: Ir\n",
        CALLGRIND.replace("0 913", "what"),
        CALLGRIND.replace("(6) kern", "x"),
        "summary: many\n",
        "fn=(4)\nsummary: 1\n",
    ],
)
def test_unknown_text_is_refused(text):
    with pytest.raises(InputError, match="test: callgrind wrote"):
        parse(text, "test")


def test_the_limit_is_two_percent_upwards():
    entry = Entry("a", "a", None, 10000)
    assert [judge(entry, now, 0.02) for now in (10200, 10201, 9800, 9799, 10000)] == [
        "PASS",
        "FAIL",
        "PASS",
        "FEWER",
        "PASS",
    ]
    assert judge(Entry("a", "a"), 5, 0.02) == "NEW"


@pytest.fixture
def record(tmp_path):
    def write(instructions=None, command="/bin/true", **entry):
        path = tmp_path / "record.json"
        entry = {"name": "true", "command": command} | entry | ({"instructions": instructions} if instructions else {})
        path.write_text(json.dumps({"schema": "gate-instructions/1", "limit_percent": 2, "entries": [entry]}))
        return path

    return write


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_record_accept_and_compare(record, run_gate):
    path = record()
    code, out, _ = run_gate("instructions", path)
    assert (
        code == 1
        and "NEW" in out
        and "--accept" in out
        and "instructions" not in json.loads(path.read_text())["entries"][0]
    )
    assert run_gate("instructions", path, "--accept")[0] == 0
    document = json.loads(path.read_text())
    assert document["environment"]["valgrind"].startswith("valgrind-") and document["entries"][0]["instructions"] > 1000
    code, out, _ = run_gate("instructions", path)
    assert code == 0 and "PASS: 0 of 1" in out
    document["entries"][0]["instructions"] = int(document["entries"][0]["instructions"] / 1.03)
    path.write_text(json.dumps(document))
    code, out, _ = run_gate("instructions", path)
    assert code == 1 and "FAIL: 1 of 1" in out


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.parametrize(
    "command, function, said",
    [
        ("/bin/true", "absent::*", "no call of a function like"),
        ("/bin/false", None, "ended with status 1"),
        ("/nowhere/program", None, "no program"),
        ("'", None, "cannot be split"),
    ],
)
def test_what_cannot_be_counted_is_exit_code_2(record, run_gate, command, function, said):
    code, _, err = run_gate("instructions", record(5, command, **({"function": function} if function else {})))
    assert code == 2 and said in err and "record.json: true" in err


def test_without_valgrind_nothing_passes(record, run_gate, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, _, err = run_gate("instructions", record(5))
    assert code == 2 and "valgrind" in err and "nothing was counted" in err


def test_a_record_of_another_architecture_is_refused(record, run_gate):
    path = record(5)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"environment": {"machine": "vax"}}))
    code, _, err = run_gate("instructions", path)
    assert code == 2 and ("machine = vax" in err or "valgrind" in err)


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_variables_reach_the_program_and_stay_in_the_record(record, run_gate):
    path = record(None, "/bin/sh -c 'test \"$GATE_TEST\" = 1'", variables={"GATE_TEST": "1"})
    assert run_gate("instructions", path, "--accept")[0] == 0
    assert json.loads(path.read_text())["entries"][0]["variables"] == {"GATE_TEST": "1"}


@pytest.mark.parametrize("variables", [3, {"a": 1}, {"": "x"}, {"a=b": "c"}, {"a": "\0"}])
def test_bad_variables_are_refused(record, run_gate, variables):
    code, _, err = run_gate("instructions", record(5, variables=variables))
    assert code == 2 and "variables is not an object of texts" in err and "record.json" in err
