#!/usr/bin/env bash
# safetensors 0.8.0, torch 2.9.1, CPU. A tensor of torch.float4_e2m1fn_x2, two values a byte, is saved as F4, and its last
# dimension doubles in the file. load_file gives it back; load, from the same bytes in memory, raises KeyError, and a slice of
# the open file raises RuntimeError. float8_e8m0fnu, the scales of such tensors, is refused by load in the same way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 safetensors==0.8.0 numpy==2.3.5 packaging
"$work/venv/bin/python" - "$work" <<'PYTHON'
import pathlib
import sys

import safetensors
import torch
from safetensors.torch import load, load_file, save_file

path = pathlib.Path(sys.argv[1]) / "four_bits.safetensors"
tensors = {
    "weight": torch.arange(8, dtype=torch.uint8).view(2, 4).view(torch.float4_e2m1fn_x2),
    "scale": torch.ones(2).to(torch.float8_e8m0fnu),
}
print(f"safetensors {safetensors.__version__}, torch {torch.__version__}")


def raised(work):
    try:
        work()
    except Exception as error:
        return type(error)
    return None


for name, tensor in tensors.items():
    save_file({name: tensor}, path)
    again = load_file(path)[name]
    assert again.dtype == tensor.dtype and torch.equal(again.view(torch.uint8), tensor.view(torch.uint8))
    error = raised(lambda: load(path.read_bytes()))
    print(f"{name}, {tensor.dtype}: load_file reads it, load raises {error.__name__}")
    assert error is KeyError

save_file({"weight": tensors["weight"]}, path)
with safetensors.safe_open(path, "pt") as file:
    weight = file.get_slice("weight")
    error = raised(lambda: weight[:1])
    print(f"shape {list(tensors['weight'].shape)} in memory, {weight.get_shape()} in the file; a slice raises {error.__name__}")
    assert weight.get_shape() == [2, 8] and error is RuntimeError
PYTHON
