#!/usr/bin/env bash
# torchao 0.18.0, torch 2.15.0, CPU. Layers whose weights are torchao's NF4 tensors of float32, moved to bfloat16 by the
# model's to(): the weights stay NF4 tensors, and each gets a bfloat16 copy of the whole weight beside its 4-bit codes, four
# times as large, which nothing reads and nothing frees. to(float32) makes that eight times and brings back every bit of the
# outputs, as no bfloat16 weight could. The file that torch.save writes has its old length. The same to() of a weight alone
# gives a plain bfloat16 tensor.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 torchao==0.18.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON'
import ctypes
import io

import torch
import torchao
from torchao.quantization import NF4Tensor, to_nf4

print(f"torchao {torchao.__version__}, torch {torch.__version__}")
mib = 2**20
layers, size = 4, 4096


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / mib


def saved():
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(size, size, bias=False) for _ in range(layers)])
for layer in model:
    layer.weight = torch.nn.Parameter(to_nf4(layer.weight.detach()), requires_grad=False)
x = torch.randn(4, size)
output = model(x)
length = saved()
before = resident()
codes = sum(layer.weight.quantized_data.nbytes for layer in model) / mib
assert all(layer.weight.data_ptr() == 0 for layer in model)
print(f"{layers} NF4 weights of {size} x {size}: {codes:.0f} MiB of codes, saved as {length / mib:.0f} MiB")
assert type(model[0].weight.to(torch.bfloat16)) is torch.Tensor

for dtype in (torch.bfloat16, torch.float32):
    model.to(dtype)
    weights = [layer.weight for layer in model]
    copies = sum(weight.untyped_storage().nbytes() for weight in weights if weight.data_ptr()) / mib
    more = resident() - before
    print(f"model.to({dtype}): {type(weights[0]).__name__} of {weights[0].dtype}, {copies:.0f} MiB of copies beside the codes, ", end="")
    print(f"{more:.0f} MiB more of the process's memory; saved as {saved() / mib:.0f} MiB")
    assert all(isinstance(weight, NF4Tensor) and weight.dtype == dtype for weight in weights)
    assert copies == codes * (4 if dtype == torch.bfloat16 else 8) and more > 0.8 * copies
    assert abs(saved() - length) < 4096
    moved = model(x)
    for layer in model:  # Zeros in the copies change no output.
        ctypes.memset(layer.weight.data_ptr(), 0, layer.weight.untyped_storage().nbytes())
    assert torch.equal(model(x), moved)
same = torch.equal(model(x), output)
print(f"outputs after to(bfloat16) and to(float32) equal to the first ones: {same}")
assert same
PYTHON
