"""Changed bytes: noticed (exit code 2, or an older checkpoint is taken) or without effect; never a crash, a hang or
another number in silence."""

import resource
import shutil
import struct
import subprocess
from pathlib import Path

from .progress import Progress, told
from .world import GOLDEN, World, content

LONGEST = 10  # seconds that an answer may take of a processor
KINDS = ("checkpoint", "base", "cache", "adapter", "model", "model4bit")
PATIENCE = 600  # seconds, for one that does nothing at all


def run(world: World, kind: str, flips: int, every_header_byte: bool) -> list[str]:
    """Changes bytes of one of KINDS: `flips` of its data, and of its headers each byte or as many."""
    if kind in ("checkpoint", "base", "cache"):
        return {"checkpoint": _checkpoints, "base": _base_weights, "cache": _caches}[kind](world, flips, every_header_byte)
    return _header(world, kind, flips, every_header_byte)


def header_size(path: Path) -> int:
    """Bytes before the data of a safetensors file; all of another file."""
    content = path.read_bytes()
    return 8 + struct.unpack("<Q", content[:8])[0] if path.suffix == ".safetensors" else len(content)


def places(world: World, path: Path, every_header_byte: bool, in_data: int) -> list[int]:
    head, size = header_size(path), path.stat().st_size
    in_head = list(range(head)) if every_header_byte else world.chance.sample(range(head), min(head, max(1, in_data)))
    return in_head + [world.chance.randrange(head, size) for _ in range(in_data if size > head else 0)]


def flip(world: World, path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ world.chance.randrange(1, 256)]))


def _answer(world: World, words: list[str]) -> tuple[int, str]:
    before = _processor_seconds()
    try:
        result = world.call(words, PATIENCE)
    except subprocess.TimeoutExpired:
        return -1, "took too long"
    if _processor_seconds() - before > LONGEST:
        return -1, "took too long"
    return result.returncode, result.stdout + result.stderr


def _processor_seconds() -> float:
    """Of the commands that have ended; other work on a busy machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _checkpoints(world: World, flips: int, every_header_byte: bool) -> list[str]:
    """Every change: the checkpoint is refused by name. Some of them: a run goes on from an older one, to the same end."""
    room = world.directory / "flip-checkpoint"
    output, start = room / "run", room / "start"  # always the same path, so that messages and context are the same
    world.call(world.training(output))
    whole = content(output)
    shutil.copytree(output, start)
    newest = max(start.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    shutil.rmtree(newest)
    for name in ("adapter_model.safetensors", "adapter_config.json", "trainer_state.json"):
        (start / name).unlink()
    newest = max(start.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    files = sorted(newest.iterdir())
    with_data = [file for file in files if header_size(file) < file.stat().st_size]
    chosen = [(file, place) for file in files
              for place in places(world, file, every_header_byte, -(-flips // len(with_data)))]  # fmt: skip
    continued = set(world.chance.sample(range(len(chosen)), min(len(chosen), max(10, flips // 10))))
    progress = Progress("changed bytes: checkpoint", len(chosen))
    failures: list[str] = []
    for tried, (file, place) in enumerate(chosen):
        progress.done(tried)
        good = file.read_bytes()
        flip(world, file, place)
        code, said = _answer(world, world.training(room / "other", "--training.resume_from_checkpoint", str(newest)))
        if code != 2:
            failures += told([f"checkpoint: {file.name}, byte {place}: code {code}: {said[-200:]}"])
        if tried in continued:
            shutil.rmtree(output)
            shutil.copytree(start, output)
            code, said = _answer(world, world.training(output))
            if code != 0 or "damaged" not in said or content(output) != whole:
                failures += told([f"checkpoint: {file.name}, byte {place}, going on: code {code}: {said[-200:]}"])
        file.write_bytes(good)
    print(f"changed bytes: checkpoint: {len(chosen)} tried, {len(continued)} of them gone on with, "
          f"{len(failures)} not noticed", flush=True)  # fmt: skip
    return failures


def _base_weights(world: World, flips: int, every_header_byte: bool) -> list[str]:
    output = world.directory / "flip-base"
    world.call(world.training(output, "--training.max_steps", "4"))
    file = world.model / "model.safetensors"
    good = file.read_bytes()
    failures = []
    chosen = places(world, file, every_header_byte, flips)
    progress = Progress("changed bytes: base weights of a checkpoint", len(chosen))
    for tried, place in enumerate(chosen):
        progress.done(tried)
        flip(world, file, place)
        code, said = _answer(world, world.training(output))
        file.write_bytes(good)
        if code != 2:
            failures += told([f"base weights: byte {place}: code {code}: {said[-200:]}"])
    print(f"changed bytes: base weights of a checkpoint: {len(chosen)} tried, {len(failures)} not noticed", flush=True)
    return failures


def _header(world: World, kind: str, flips: int, every_header_byte: bool) -> list[str]:
    """Model and adapter directories: a header's byte ends in a refusal or in the same loss."""
    adapter = world.directory / "flip-adapter"
    shutil.copytree(GOLDEN / "adapter_final_fp32", adapter)
    model = world.model
    if kind == "model4bit":
        model = world.directory / "flip-quantized"
        shutil.copytree(GOLDEN / "bnb4bit", model)
    file = adapter / "adapter_model.safetensors" if kind == "adapter" else model / "model.safetensors"
    config = world.directory / "eval.yaml"
    config.write_text("dtype: float32\n")
    words = [world.program, "eval", str(config), "--model_name_or_path", str(model),
             "--dataset.eval_path", str(world.directory / "data.safetensors"), "--adapter", str(adapter)]  # fmt: skip
    right = _loss(_answer(world, words)[1])
    if not right:
        return [f"{kind}: the evaluation of the whole files fails"]
    good = file.read_bytes()
    failures = []
    chosen = [place for place in places(world, file, every_header_byte, flips) if place < header_size(file)]
    progress = Progress(f"changed bytes: header of {kind}", len(chosen))
    for tried, place in enumerate(chosen):
        progress.done(tried)
        flip(world, file, place)
        code, said = _answer(world, words)
        file.write_bytes(good)
        if not (code == 2 or (code == 0 and _loss(said) == right)):
            failures += told([f"{kind}: byte {place} of {file.name}: code {code}: {said[-200:]}"])
    print(f"changed bytes: header of {kind}: {len(chosen)} tried, {len(failures)} not noticed", flush=True)
    return failures


def _loss(said: str) -> str:
    return next((line for line in said.splitlines() if line.startswith("Loss")), "")


def _caches(world: World, flips: int, every_header_byte: bool) -> list[str]:
    """Every change: what reads the cache refuses it. Some of them: the command makes the same tokens again."""
    from prepared_file import is_whole

    output = world.directory / "flip-cache"
    words = world.tokenizing(output)
    world.call(words)
    [file] = (output / "prepared").iterdir()
    good = file.read_bytes()
    failures = []
    chosen = places(world, file, every_header_byte, flips)
    made_again = set(world.chance.sample(range(len(chosen)), min(len(chosen), max(4, flips // 50))))
    progress = Progress("changed bytes: cache of tokens", len(chosen))
    for tried, place in enumerate(chosen):
        progress.done(tried)
        flip(world, file, place)
        if is_whole(file):
            failures += told([f"cache: byte {place} is taken for whole"])
        if tried in made_again:
            code, said = _answer(world, words)
            if code != 0 or file.read_bytes() != good:
                failures += told([f"cache: byte {place}: code {code}: {said[-200:]}"])
        file.write_bytes(good)
    print(f"changed bytes: cache of tokens: {len(chosen)} tried, {len(made_again)} of them made again, "
          f"{len(failures)} not noticed", flush=True)  # fmt: skip
    return failures
