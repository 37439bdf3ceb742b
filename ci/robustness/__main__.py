"""`ci/robust`: runs the attempts and prints a line of numbers for each; exit code 1 where something was lost."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from . import disks, flips, kills
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/robust", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="kill -9 in all, over every command")
    parser.add_argument("--flips", type=int, default=1000, help="changed bytes of data; of headers, every byte")
    parser.add_argument("--step", type=int, default=1024, help="bytes by which the full disk is moved")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--short", action="store_true", help="a part that takes less than a minute")
    options = parser.parse_args()
    if options.short:
        options.kills, options.flips, options.step = 30, 20, 1 << 16
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    failures = []
    with tempfile.TemporaryDirectory(prefix="qshard-robust-") as directory:
        world = World(Path(directory), chance)
        failures += kills.run(world, options.kills)
        failures += flips.run(world, options.flips, every_header_byte=not options.short)
        failures += disks.run(world, options.step)
    for failure in failures:
        print(f"FAILED: {failure}")
    print("nothing was lost" if not failures else f"{len(failures)} failures")
    return 1 if failures else 0


sys.exit(main())
