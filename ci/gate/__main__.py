"""Where `python3 -m gate`, gate.pyz and the installed program start."""

import mmap
import sys

ROOM = 160 << 20  # bytes of address space for NumPy; with too few of them its OpenBLAS asks for them again without end


def entry() -> int:
    """Exit code of the command line. What needs NumPy is imported once there is room for it."""
    try:
        mmap.mmap(-1, ROOM).close()
    except OSError:
        print("gate: error: not enough address space for NumPy; raise the limit on it (ulimit -v)", file=sys.stderr)
        return 3
    from .cli import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(entry())
