"""ci/bench and ci/verify, behind `./qshard bench` and `./qshard verify`: wrong options end with one line and exit code 2, before
anything is built."""

import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parent.parent


def call(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    """As on a machine without a GPU, and with a cmake that configures nothing."""
    (tmp_path / "bin").mkdir()
    for name in ("cmake", "nvidia-smi"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 9\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "QSHARD_BUILD": str(tmp_path / "build")}
    return subprocess.run([CI / words[0], *words[1:]], env=environment, capture_output=True, text=True, timeout=60)


def goes_on_to_build(tmp_path: Path, *words: str) -> bool:
    return "configuring" in call(tmp_path, *words).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--nope"),
        ("bench", "--nope=1", "--shape", "all"),
        ("bench", "--device"),
        ("bench", "--device", "tpu"),
        ("bench", "--device=tpu"),
        ("verify", "--nope"),
        ("verify", "-R"),
        ("verify", "-R", "a", "--output-on-failures"),
    ],
)
def test_wrong_options(tmp_path, words):
    done = call(tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "--help" in done.stderr
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("bench",),
        ("bench", "--operation", "dequantize", "--shape=all", "--nested", "0,1", "--warm"),
        ("bench", "--operation", "sharded_step", "--peer"),
        ("bench", "--benchmark_filter=quantize", "--ceilings"),
        ("bench", "--device", "cpu", "--benchmark_out=a"),
        ("verify",),
        ("verify", "-R", "quantize", "-N"),
        ("verify", "-j4", "-VV", "--timeout", "60", "-I", "1,10", "--repeat", "until-fail:2", "--output-junit", "a.xml"),
    ],
)
def test_known_options(tmp_path, words):
    assert goes_on_to_build(tmp_path, *words)
