"""The names of C++ functions as the source has them."""

from __future__ import annotations

import shutil
import subprocess


def demangle(names: list[str]) -> list[str]:
    """The names as they are where there is no tool for it."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None or not names:
        return names
    done = subprocess.run(
        [tool], input="\n".join(names), capture_output=True, text=True, errors="backslashreplace", check=False
    )
    lines = done.stdout.splitlines()
    return lines if len(lines) == len(names) else names
