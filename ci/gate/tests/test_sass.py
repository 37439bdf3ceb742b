"""Kernels from recorded cuobjdump text, and from real objects where the toolkit is installed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from gate.command_sass import compare
from gate.sass_record import write_record
from gate.sass_text import kernels, normalise, stable_name

DATA = Path(__file__).parent / "data"
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
TOOLKIT = NVCC is not None and shutil.which("cuobjdump") is not None
HASHED = "_ZN43_GLOBAL__N__53461733_10_kernels_cu_3f82505d5scaleEPf"


def recorded_kernels(side):
    texts = [(DATA / f"{side}.{kind}.txt").read_text() for kind in ("resources", "sass")]
    return {(one.architecture, one.name): one for one in kernels(*texts)}


def test_recorded_text():
    found = recorded_kernels("base")
    assert set(found) == {
        ("sm_90", name)
        for name in (
            "_ZN12_GLOBAL__N_15scaleEPf",
            "_Z7removedPf",
            "_Z4walkPfi",
            "_Z6gatherPKfPfi",
            "_Z6reduceILi64EEvPKfPf",
        )
    }
    reduce = found["sm_90", "_Z6reduceILi64EEvPKfPf"]
    assert (reduce.registers, reduce.stack, reduce.shared, reduce.local_accesses) == (12, 0, 1280, 0)
    assert reduce.code[0] == "LDC R1, c[0x0][0x28]" and not any("/*" in line for line in reduce.code)


def test_the_hash_of_an_anonymous_namespace_is_no_change():
    assert stable_name(HASHED) == stable_name(HASHED.replace("53461733", "00000000")) == "_ZN12_GLOBAL__N_15scaleEPf"
    assert stable_name("_Z6gatherPKfPfi") == "_Z6gatherPKfPfi"


def test_changes_between_the_recorded_builds():
    changes = {change.name: change for change in compare(recorded_kernels("base"), recorded_kernels("candidate"))}
    kinds = {
        stem: change.kind
        for stem in ("gather", "walk", "added", "removed", "reduce", "scale")
        for name, change in changes.items()
        if stem in name
    }
    assert kinds == {
        "gather": "changed",
        "walk": "changed",
        "added": "added",
        "removed": "removed",
        "reduce": "unchanged",
        "scale": "unchanged",
    }
    gather = next(change for name, change in changes.items() if "gather" in name)
    assert gather.findings() == {"registers", "spills", "code"} and gather.candidate.local_accesses == 21


def test_an_inserted_instruction_moves_no_jump():
    loop = [
        (0x0, "MOV R1, R2"),
        (0x10, "IADD R1, R1, 0x10"),
        (0x20, "@P0 BRA 0x10"),
        (0x30, "EXIT"),
        (0x40, "BRA 0x40"),
        (0x50, "NOP"),
        (0x60, "NOP"),
    ]
    longer = [
        (0x0, "MOV R1, R2"),
        (0x10, "MOV R3, R4"),
        (0x20, "IADD R1, R1, 0x10"),
        (0x30, "@P0 BRA 0x20"),
        (0x40, "EXIT"),
        (0x50, "BRA 0x50"),
        (0x60, "NOP"),
    ]
    one, other = normalise(loop), normalise(longer)
    assert one == ("MOV R1, R2", ".L0:", "IADD R1, R1, 0x10", "@P0 BRA .L0", "EXIT", ".L1:", "BRA .L1")
    assert [line for line in other if line not in one] == ["MOV R3, R4"]


def test_records_compare_without_a_toolkit(tmp_path, run_gate, monkeypatch):
    paths = {}
    for side in ("base", "candidate"):
        paths[side] = tmp_path / f"{side}.json"
        write_record(str(paths[side]), recorded_kernels(side))
    monkeypatch.setenv("PATH", "")
    arguments = ("--base", paths["base"], "--candidate", paths["candidate"], "--diff", "5")
    code, out, _ = run_gate("sass", *arguments, "--json", tmp_path / "out.json")
    assert code == 1 and "local_accesses: 0 -> 21" in out and "2 unchanged, 2 changed, 1 added, 1 removed" in out
    assert run_gate("sass", *arguments, "--fail-on", "shared")[0] == 0
    assert run_gate("sass", *arguments, "--fail-on", "removed")[0] == 1
    assert run_gate("sass", *arguments, "--fail-on")[0] == 0
    assert (
        run_gate("sass", "--base", paths["base"], "--candidate", paths["base"], "--fail-on", "code", "registers")[0]
        == 0
    )
    assert {row["kind"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]} == {
        "added",
        "removed",
        "changed",
        "unchanged",
    }


def test_bad_input_is_exit_code_2(tmp_path, run_gate):
    absent = tmp_path / "absent.o"
    code, _, err = run_gate("sass", "--base", absent, "--candidate", absent)
    assert code == 2 and ("no such file" in err or "cuobjdump" in err)
    code, _, err = run_gate("sass", "--candidate", absent)
    assert code == 2 and "--base" in err
    code, _, err = run_gate("sass", "--base", absent, "--candidate", absent, "--cuobjdump", "/nowhere/cuobjdump")
    assert code == 2 and "nothing was compared" in err


@pytest.mark.skipif(not TOOLKIT, reason="nvcc or cuobjdump is not installed")
def test_real_objects(tmp_path, run_gate):
    for side, flags in (("base", []), ("candidate", ["-DCANDIDATE"])):
        (tmp_path / side).mkdir()
        source = shutil.copy(DATA / "kernels.cu", tmp_path / side)
        subprocess.run([NVCC, "-arch=sm_90", *flags, "-c", source, "-o", tmp_path / f"{side}.o"], check=True)
    base, candidate = tmp_path / "base.o", tmp_path / "candidate.o"
    code, out, _ = run_gate("sass", "--base", base, "--candidate", candidate, "--record", tmp_path / "candidate.json")
    assert code == 1 and "2 unchanged, 2 changed, 1 added, 1 removed" in out and "stack: 0 -> 64" in out
    code, out, _ = run_gate(
        "sass", "--base", tmp_path / "candidate.json", "--candidate", candidate, "--fail-on", "code"
    )
    assert code == 0 and "5 unchanged, 0 changed" in out
    broken = tmp_path / "broken.o"
    broken.write_bytes(base.read_bytes()[:1000])
    code, _, err = run_gate("sass", "--base", broken, "--candidate", candidate)
    assert code == 2 and "broken.o" in err
