"""The package runs alone: only the standard library and NumPy, from a copied folder, with help for every command."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]


def test_only_the_standard_library_and_numpy():
    used = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                used.add(node.module.split(".")[0])
    assert used - set(sys.stdlib_module_names) == {"numpy"}


@pytest.mark.parametrize(
    "command", [(), ("run",), ("compare",), ("show",), ("history",), ("selfcheck",), ("simulate",), ("instructions",), ("sass",)]
)
def test_a_copied_folder_runs(tmp_path, command):
    shutil.copytree(PACKAGE, tmp_path / "gate", ignore=shutil.ignore_patterns("tests", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gate", *command, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "usage: gate" in done.stdout and done.stderr == ""


def test_a_closed_pipe_and_a_poor_terminal_are_no_traceback(recorded):
    words = [sys.executable, "-m", "gate", "compare", "--base", recorded, "--candidate", recorded]
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr  # the recorded benchmark that reports a wrong result


def test_pip_installs_it_and_leaves_nothing_in_the_checkout(tmp_path):
    checkout = tmp_path / "gate"
    shutil.copytree(PACKAGE, checkout, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(checkout.rglob("*"))
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "site"]
    done = subprocess.run([*words, checkout], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left = [path for path in sorted(checkout.rglob("*")) if path not in before and "__pycache__" not in path.parts]
    assert left == []
    script = (tmp_path / "site" / "bin" / "qshard-gate").read_text()
    assert "gate.__main__" in script and (tmp_path / "site" / "gate" / "cli.py").exists()


def test_one_file_runs_everything(tmp_path):
    done = subprocess.run([PACKAGE.parent / "release", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "gate.pyz").read_bytes()
    run = [sys.executable, tmp_path / "gate.pyz", "selfcheck", "--rounds", "8", "--inject", "0", "--repetitions", "1"]
    found = subprocess.run([*run, "--min-time", "0.001", "--quiet"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "probe/sha256" in found.stdout and found.returncode in (0, 1), found.stderr
    subprocess.run([PACKAGE.parent / "release", tmp_path], capture_output=True, check=True)
    assert (tmp_path / "gate.pyz").read_bytes() == first


@pytest.mark.parametrize("megabytes", [40, 60, 90])
def test_too_little_address_space_is_exit_code_3_and_not_a_wait_or_a_traceback(megabytes):
    words = ["prlimit", f"--as={megabytes << 20}", sys.executable, "-m", "gate", "--help"]
    done = subprocess.run(words, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3 and done.stdout == "" and done.stderr.count("\n") == 1 and "ulimit -v" in done.stderr
