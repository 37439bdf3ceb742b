"""Two processes into the same output at once: what is there in the end is one's whole result, and the other is refused with
exit code 2, or goes on from the result or writes the same again where the command does that."""

import shutil
import subprocess
import time
from pathlib import Path

from .progress import Progress, told
from .world import SLOW, World, content, leftovers

REFUSING = ("quantize", "dequantize", "merge")  # their output must be new


def run(world: World, name: str, pairs: int) -> list[str]:
    """Runs the command `name` in `pairs` pairs, or a tenth of them where it is slow."""
    words, room = world.command(name), world.directory / f"twice-{name}"
    room.mkdir()
    begin = time.monotonic()
    alone = world.call(words(room / "whole"))
    seconds = time.monotonic() - begin
    if alone.returncode != 0:
        return [f"{name}: ends with {alone.returncode} when it is left alone: {alone.stderr[-300:]}"]
    whole = content(room / "whole")
    pairs = max(1, pairs // 10) if name in SLOW else pairs
    progress = Progress(f"twice: {name}", pairs)
    refused, failures = 0, []
    for pair in range(pairs):
        progress.done(pair)
        output = room / f"pair{pair}"
        ends = [_end(process) for process in _started(words(output), world.chance.uniform(0, seconds / 2))]
        codes = sorted(code for code, _ in ends)
        refused += codes == [0, 2]
        if codes != [0, 2] and not (codes == [0, 0] and name not in REFUSING):
            failures += told([f"twice: {name}: {ends}"])
        failures += told([f"twice: {name}: {path} stays" for path in leftovers(output)])
        if content(output) != whole:
            failures += told([f"twice: {name}: the result is not that of one process alone"])
        shutil.rmtree(output, ignore_errors=True)
    print(f"twice at once: {name}: {pairs} pairs, {refused} times one was refused, {len(failures)} failures", flush=True)
    return failures


def _started(words: list[str], seconds: float) -> list[subprocess.Popen]:
    """The second one begins `seconds` after the first."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen(words, **pipe)
    time.sleep(seconds)
    return [first, subprocess.Popen(words, **pipe)]


def _end(process: subprocess.Popen) -> tuple[int, str]:
    said, _ = process.communicate()
    return process.returncode, said[-300:]
