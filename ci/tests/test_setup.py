"""ci/setup in a folder of its own, with programs in the place of the system's: what it says, and its exit codes, which a
command that it is for hands on (1 would read as a regression of the gate)."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parent.parent
INSTALLED = ".venv/installed-requirements.txt"
# A python3 that makes a .venv, whose own python has a pip that does what the file "pip" says.
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exit 9
echo made >>made
mkdir -p .venv/bin
rm -f .venv/bin/python
printf '%s' '#!/bin/sh
case "$*" in
  *--version*) exit 0 ;;
  *) sh ./pip ;;
esac' >.venv/bin/python
chmod +x .venv/bin/python
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "ci").mkdir()
    for name in ("setup", "packages.txt", "requirements.txt"):
        shutil.copy(CI / name, tmp_path / "ci" / name)
    (tmp_path / "bin").mkdir()
    add_program(tmp_path, "python3", PYTHON)
    add_program(tmp_path, "dpkg-query", "#!/bin/sh\necho install ok installed\n")
    (tmp_path / "pip").write_text("exit 0\n")
    return tmp_path


def add_program(clone: Path, name: str, text: str) -> None:
    path = clone / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def start(clone: Path, *words: str) -> subprocess.Popen:
    environment = {"PATH": f"{clone}/bin:/usr/bin:/bin", "QSHARD_CUDA_PACKAGES": "0"}
    command = ["bash", str(clone / "ci/setup"), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def setup(clone: Path, *words: str) -> tuple[int, str, str]:
    process = start(clone, *words)
    said, errors = process.communicate()
    return process.returncode, said, errors


def test_installs_once_and_is_silent_afterwards(clone):
    code, said, _ = setup(clone)
    assert code == 0 and "numpy" in said and (clone / INSTALLED).exists()
    assert setup(clone) == (0, "", "")


def test_names_the_packages_that_it_cannot_install_and_leaves_nothing(clone):
    add_program(clone, "dpkg-query", '#!/bin/sh\ncase "$*" in *libfmt-dev*) ;; *) echo install ok installed ;; esac\n')
    add_program(clone, "apt-get", "#!/bin/sh\nexit 100\n")
    add_program(clone, "sudo", "#!/bin/sh\nexit 1\n")
    code, said, errors = setup(clone)
    assert code == 2 and "libfmt-dev" in said + errors and "cmake" not in said + errors
    assert not (clone / ".venv").exists()
    assert setup(clone, "--python")[0] == 0, "Python steps need no compiler and no headers"


def test_what_fails_is_no_finding_of_the_command_that_it_is_for(clone):
    (clone / "pip").write_text("echo no network >&2; exit 1\n")
    code, _, errors = setup(clone)
    assert code == 2 and "no network" in errors and "pip install" in errors
    assert not (clone / INSTALLED).exists()
    (clone / "pip").write_text("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1\n")
    code, _, errors = setup(clone)
    assert code == 3 and "full" in errors and str(clone) in errors
    (clone / "pip").write_text("exit 0\n")
    assert setup(clone)[0] == 0, "the next call completes it"


def test_a_python_environment_that_was_ended_on_its_way_is_completed(clone):
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to("/bin/false")  # has no pip
    assert setup(clone)[0] == 0
    assert (clone / "made").read_text() == "made\n"


def test_two_at_once_wait_for_each_other(clone):
    (clone / "pip").write_text("[ ! -e at_work ] || exit 1\ntouch at_work; sleep 0.3; rm at_work\n")
    first = start(clone)
    time.sleep(0.05)
    second = start(clone)
    first.communicate()
    second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert (clone / "made").read_text() == "made\n"
