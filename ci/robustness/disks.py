"""Full disks: every command on a small file system, larger by a little each time, until it fits. Each that does not fit ends
with exit code 3 and the path, leaves no half-written file, and leaves older results whole. Needs the right to mount."""

import subprocess
from pathlib import Path

from .progress import told
from .world import SLOW, World, leftovers

PAGE = 4096  # a tmpfs counts in pages
OLD = b"an older result\n"


def run(world: World, name: str, step: int) -> list[str]:
    """Tries the command `name` on disks of more and more bytes, `step` or a small part of its output at a time."""
    mount = world.directory / "disk"
    mount.mkdir()
    if not _mounts(mount):
        print("full disk: not tried, for this user may not mount", flush=True)
        return []
    return _command(world, mount, name, max(step, PAGE) // PAGE * PAGE)


def _mounts(mount: Path, size: int = PAGE) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    if subprocess.run(words, capture_output=True).returncode != 0:
        return False
    subprocess.run(["umount", str(mount)], check=True)
    return True


def _command(world: World, mount: Path, name: str, step: int) -> list[str]:
    words = world.command(name)
    whole = world.directory / f"disk-{name}"
    world.call(words(whole))
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    step = max(step, (needed // (8 if name in SLOW else 200)) // PAGE * PAGE)
    failures, tried, size = [], 0, PAGE  # the older file takes it
    while True:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
        try:
            (mount / "older").write_bytes(OLD)
            result = world.call(words(mount / "out"))
            said = result.stdout + result.stderr
            if result.returncode == 0:
                print(f"full disk: {name}: {tried} sizes, {len(failures)} failures", flush=True)
                return failures
            if result.returncode != 3 or str(mount) not in said:
                failures += told([f"full disk: {name}, {size} bytes: code {result.returncode}: {said[-300:]}"])
            failures += [f"full disk: {name}, {size} bytes: {path} stays" for path in leftovers(mount / "out")]
            if (mount / "older").read_bytes() != OLD:
                failures.append(f"full disk: {name}, {size} bytes: an older file is not whole")
        finally:
            subprocess.run(["umount", str(mount)], check=True)
        tried += 1
        size += step
        if size > 40 * needed + (64 << 20):
            return [*failures, f"full disk: {name}: does not fit into {size} bytes"]
