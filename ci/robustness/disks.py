"""Disks that are full: every command on a small file system, larger by a little each time, until it fits, and under a limit on
the size of a file that is moved byte by byte. What does not fit ends with exit code 3 and the path, leaves no half-written
file, and leaves older results whole."""

import shutil
import subprocess
from pathlib import Path

from .progress import Progress, told
from .world import REPLACING, SLOW, World, files_of, leftovers

PAGE = 4096  # a tmpfs counts in pages
OLD = b"an older result\n"


def run(world: World, name: str, step: int, limits: int) -> list[str]:
    """Tries the command `name` on disks of more and more bytes, `step` or a small part of its output at a time, and with
    `limits` sizes that its files may have, or a tenth of them where it is slow."""
    words, whole = world.command(name), world.directory / f"disk-{name}"
    result = world.call(words(whole))
    if result.returncode != 0:
        return [f"{name}: ends with {result.returncode} when it is left alone: {result.stderr[-300:]}"]
    return _file_systems(world, name, whole, step) + _limits(world, name, whole, limits)


def _file_systems(world: World, name: str, whole: Path, step: int) -> list[str]:
    """Needs the right to mount."""
    mount = world.directory / "disk"
    mount.mkdir()
    if not _mounts(mount):
        print("full disk: not tried, for this user may not mount", flush=True)
        return []
    words, needed = world.command(name), sum(path.stat().st_size for path in files_of(whole))
    step = max(step // PAGE, needed // (8 if name in SLOW else 200) // PAGE, 1) * PAGE
    failures, tried, size = [], 0, PAGE  # the older file takes it
    while True:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
        try:
            (mount / "older").write_bytes(OLD)
            result = world.call(words(mount / "out"))
            if result.returncode == 0:
                print(f"full disk: {name}: {tried} sizes, {len(failures)} failures", flush=True)
                return failures
            failures += _wrong_end(result, mount / "out", f"full disk: {name}, {size} bytes")
            if (mount / "older").read_bytes() != OLD:
                failures += told([f"full disk: {name}, {size} bytes: an older file is not whole"])
        finally:
            subprocess.run(["umount", str(mount)], check=True)
        tried += 1
        size += step
        if size > 40 * needed + (64 << 20):
            return [*failures, f"full disk: {name}: does not fit into {size} bytes"]


def _mounts(mount: Path, size: int = PAGE) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    if subprocess.run(words, capture_output=True).returncode != 0:
        return False
    subprocess.run(["umount", str(mount)], check=True)
    return True


def _limits(world: World, name: str, whole: Path, limits: int) -> list[str]:
    """Of a command that replaces files, each is there already and must be the old or the new one."""
    right = {path.relative_to(whole): path.read_bytes() for path in files_of(whole)}
    longest = max(len(found) for found in right.values())
    sizes = sorted(world.chance.sample(range(longest), min(longest, limits // 10 if name in SLOW else limits)))
    output = world.directory / "limited"
    progress = Progress(f"limit on files: {name}", len(sizes))
    failures = []
    for tried, size in enumerate(sizes):
        progress.done(tried)
        for file in right if name in REPLACING else ():
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            (output / file).write_bytes(OLD)
        result = world.call(["prlimit", f"--fsize={size}", *world.command(name)(output)])
        where = f"limit on files: {name}, {size} bytes"
        failures += _wrong_end(result, output, where)
        for file in right if name in REPLACING else ():
            if (output / file).read_bytes() not in (OLD, right[file]):
                failures += told([f"{where}: {file} is neither the older nor the new one"])
        shutil.rmtree(output, ignore_errors=True)
    print(f"limit on files: {name}: {len(sizes)} sizes, {len(failures)} failures", flush=True)
    return failures


def _wrong_end(result: subprocess.CompletedProcess, output: Path, where: str) -> list[str]:
    failures = [f"{where}: {path} stays" for path in leftovers(output)]
    said = result.stdout + result.stderr
    if result.returncode != 3 or not (str(output) in said or "standard output" in said):
        failures.append(f"{where}: code {result.returncode}: {said[-300:]}")
    return told(failures)
