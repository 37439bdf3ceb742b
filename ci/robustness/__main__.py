"""`ci/robust`: runs the attempts and prints a line of numbers for each; exit code 1 where something was lost."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from . import disks, flips, kills, pairs
from .world import COMMANDS, WRITING, World

PARTS = (
    [f"kill-{name}" for name in COMMANDS]
    + [f"twice-{name}" for name in (*COMMANDS, "plan")]
    + [f"flip-{kind}" for kind in flips.KINDS]
    + [f"disk-{name}" for name in WRITING]
)


def run_part(part: str, options: argparse.Namespace, seed: int) -> list[str]:
    """Runs one part in a world of its own, so that a part gives the same alone as among others."""
    what, _, name = part.partition("-")
    with tempfile.TemporaryDirectory(prefix=f"qshard-robust-{part}-") as directory:
        world = World(Path(directory), random.Random(f"{seed} {part}"))
        if what == "kill":
            return kills.run(world, name, options.kills)
        if what == "twice":
            return pairs.run(world, name, options.pairs)
        if what == "flip":
            return flips.run(world, name, options.flips, every_header_byte=not options.short)
        return disks.run(world, name, options.step, options.limits)


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/robust", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {' '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=1000, help="kill -9 in all, over every command")
    parser.add_argument("--pairs", type=int, default=200, help="times that each command runs twice at once; slow ones a tenth")
    parser.add_argument("--flips", type=int, default=1000, help="changed bytes of data; of headers, every byte")
    parser.add_argument("--step", type=int, default=1024, help="bytes by which the full disk is moved")
    parser.add_argument("--limits", type=int, default=1000, help="sizes of files that each command is limited to")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--short", action="store_true", help="a part that takes about a minute")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"{unknown[0]} is no part; known: {' '.join(PARTS)}")
    if options.short:
        options.kills, options.pairs, options.flips, options.step, options.limits = 30, 10, 20, 1 << 16, 3
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    failures = []
    unless_short = [part for part in PARTS if not (options.short and part == "disk-generate")]
    for part in options.parts or unless_short:
        failures += run_part(part, options, seed)
    for failure in failures:
        print(f"FAILED: {failure}")
    print("nothing was lost" if not failures else f"{len(failures)} failures")
    return 1 if failures else 0


sys.exit(main())
