"""kill -9 at random moments: the next run ends as one that was never killed, and leaves nothing half-written."""

import shutil
import subprocess
import time
from pathlib import Path

from .world import World, content, leftovers

# Shares of all kills. A report or a tokenization takes seconds, most of them imports.
SHARES = {"train": 0.45, "quantize": 0.25, "dequantize": 0.2, "tokenize": 0.05, "report": 0.05}


def run(world: World, kills: int) -> list[str]:
    failures = []
    for name, share in SHARES.items():
        if name == "tokenize" and not world.has_tokenizer:
            continue
        failures += _command(world, name, max(1, round(kills * share)))
    return failures


def _command(world: World, name: str, kills: int) -> list[str]:
    words = getattr(world, {"train": "training", "quantize": "quantizing", "dequantize": "dequantizing",
                            "tokenize": "tokenizing", "report": "reporting"}[name])  # fmt: skip
    room = world.directory / f"kill-{name}"
    room.mkdir()
    begin = time.monotonic()
    result = world.call(words(room / "whole"))
    seconds = time.monotonic() - begin
    if result.returncode != 0:
        return [f"{name}: ends with {result.returncode} when it is left alone: {result.stderr[-300:]}"]
    whole = content(room / "whole")
    shutil.rmtree(room / "whole")
    killed = finished = 0
    failures: list[str] = []
    while killed < kills and not failures:
        output = room / f"run{finished}"
        hits = _until_whole(world, words(output), kills - killed, seconds)
        killed += hits
        finished += 1
        failures += _differences(name, output, whole)
        shutil.rmtree(output, ignore_errors=True)
    print(f"kill -9: {name}: {killed} kills, {finished} runs completed, {len(failures)} failures", flush=True)
    return failures


def _until_whole(world: World, words: list[str], most: int, seconds: float) -> int:
    """Kills the command again and again until it ends by itself; returns how often."""
    kills = 0
    while True:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if kills >= most or kills >= 8:
                process.wait()
            else:
                process.wait(world.chance.uniform(0, 1.1 * seconds))
            return kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1


def _differences(name: str, output: Path, whole: dict[str, bytes]) -> list[str]:
    found = content(output)
    failures = [f"{name}: {path} is half-written and stays" for path in leftovers(output)]
    for file in sorted(set(whole) | set(found)):
        if whole.get(file) != found.get(file):
            failures.append(f"{name}: {file} is not that of a run that was never killed")
    return failures
