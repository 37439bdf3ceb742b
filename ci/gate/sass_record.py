"""Kernels of built files: read through cuobjdump, or from a record made where the CUDA toolkit was installed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError
from .files import write_file
from .google_benchmark import read_json_object
from .sass_text import Kernel, kernels
from .tool import run_tool, tool_failure

SCHEMA = "gate-sass/1"
REMEDY = "make it with `gate sass --candidate FILE... --record RECORD.json`"
Kernels = dict[tuple[str, str], Kernel]


def load(paths: Sequence[str], cuobjdump: str | None) -> Kernels:
    """Kernels by (architecture, name) of all `paths`: objects, libraries, executables, cubins, or records named *.json.

    A kernel that several files hold with the same code counts once; with other code it gets a number, in order of the digest.
    Errors: InputError naming the file.
    """
    found: dict[tuple[str, str], dict[str, Kernel]] = {}
    for path in paths:
        for kernel in read_record(path) if path.endswith(".json") else _dump(path, _tool(cuobjdump)):
            found.setdefault((kernel.architecture, kernel.name), {})[kernel.digest] = kernel
    return {
        (architecture, name if index == 0 else f"{name}#{index + 1}"): variants[digest]
        for (architecture, name), variants in found.items()
        for index, digest in enumerate(sorted(variants))
    }


def write_record(path: str, found: Kernels) -> None:
    """Writes kernels for a later `gate sass --base PATH`."""
    rows = [
        {
            "architecture": one.architecture,
            "name": one.name,
            "registers": one.registers,
            "stack": one.stack,
            "shared": one.shared,
            "code": list(one.code),
        }
        for one in found.values()
    ]
    write_file(path, json.dumps({"schema": SCHEMA, "kernels": rows}, indent=1) + "\n")


def read_record(path: str) -> list[Kernel]:
    """The kernels that write_record wrote. Errors: InputError naming the file."""
    document = read_json_object(path, REMEDY)
    rows = document.get("kernels")
    if document.get("schema") != SCHEMA or not isinstance(rows, list):
        raise InputError(path, f"is not a record of schema {SCHEMA}", REMEDY)
    return [_kernel(path, index, row) for index, row in enumerate(rows)]


def _kernel(path: str, index: int, row: object) -> Kernel:
    if not isinstance(row, dict):
        raise InputError(path, f"kernels[{index}] is not an object", REMEDY)
    texts = [row.get(key) for key in ("architecture", "name")]
    numbers = [row.get(key) for key in ("registers", "stack", "shared")]
    code = row.get("code")
    good_numbers = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    if not all(isinstance(text, str) for text in texts) or not good_numbers:
        raise InputError(path, f"kernels[{index}] lacks a name, an architecture or its resources", REMEDY)
    if not isinstance(code, list) or not all(isinstance(line, str) for line in code):
        raise InputError(path, f"kernels[{index}].code is not a list of lines", REMEDY)
    values = dict(row) | {"code": tuple(code)}
    return Kernel(**{field.name: values[field.name] for field in dataclasses.fields(Kernel)})


def _dump(path: str, tool: str) -> list[Kernel]:
    if not Path(path).is_file():
        raise InputError(path, "no such file", "build it first")
    outputs = [_run(path, [tool, mode, path]) for mode in ("-res-usage", "-sass")]
    return kernels(*outputs)


def _run(path: str, words: list[str]) -> str:
    environment = os.environ | {"PATH": f"{Path(words[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = run_tool(words, path, "cuobjdump", environment)
    if "does not contain device code" in (done.stderr or done.stdout):
        return ""
    if done.returncode != 0:
        raise tool_failure(done, path, "cuobjdump", "is it a file with device code?")
    return done.stdout


def _tool(asked: str | None) -> str:
    places = [asked] if asked else ["cuobjdump", "/usr/local/cuda/bin/cuobjdump"]
    for place in places:
        found = shutil.which(place)
        if found:
            return found
    remedy = "install the CUDA toolkit, or by pip nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm"
    raise InputError(asked or "cuobjdump", "is not installed, so nothing was compared", remedy)
