"""kill -9 at random moments: the next run ends as one that was never killed, and leaves nothing half-written."""

import shutil
import subprocess
import time
from pathlib import Path

from .progress import Progress, told
from .world import World, content, leftovers

# Shares of all kills: few for what takes seconds.
SHARES = {"train": 0.4, "quantize": 0.2, "dequantize": 0.15, "merge": 0.15, "tokenize": 0.05, "report": 0.05}


def run(world: World, name: str, all_kills: int) -> list[str]:
    """Kills the command `name` for its share of the kills of all commands."""
    kills = max(1, round(all_kills * SHARES[name]))
    words = world.command(name)
    room = world.directory / f"kill-{name}"
    room.mkdir()
    begin = time.monotonic()
    result = world.call(words(room / "whole"))
    seconds = time.monotonic() - begin
    if result.returncode != 0:
        return [f"{name}: ends with {result.returncode} when it is left alone: {result.stderr[-300:]}"]
    whole = content(room / "whole")
    shutil.rmtree(room / "whole")
    progress = Progress(f"kill -9: {name}", kills)
    killed = finished = 0
    failures: list[str] = []
    while killed < kills and not failures:
        output = room / f"run{finished}"
        hits = _until_whole(world, words(output), kills - killed, seconds)
        killed += hits
        finished += 1
        progress.done(killed)
        failures += told(_differences(name, output, whole))
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
