#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, onnxruntime 1.22.1, CPU. FP4 has two codes for zero: 0 and 8, the one with the sign bit. On
# the CPU quantize_4bit gives small positive values code 8, which reads as -0.0, and small negative ones code 0, +0.0.
# onnxruntime's kernel for the same format gives them by their sign, so the bytes of one weight differ between the two.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2 onnxruntime==1.22.1
"$work/venv/bin/python" - <<'PYTHON'
import bitsandbytes
import numpy
import onnxruntime
import torch
from onnxruntime.capi._pybind_state import quantize_matmul_bnb4

torch.manual_seed(0)
weight = torch.randn(256, 1024)
packed, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="fp4")
values = bitsandbytes.functional.dequantize_4bit(packed, state).view(-1)


def codes_of(bytes_):
    return torch.stack([bytes_ >> 4, bytes_ & 15], 1).view(-1)


ours = codes_of(packed.view(-1))
other = numpy.zeros(weight.numel() // 2, dtype=numpy.uint8)
absmax = numpy.zeros(weight.numel() // 64, dtype=numpy.float32)
quantize_matmul_bnb4(other, weight.numpy().copy(), absmax, 64, 0, *weight.shape)
other = codes_of(torch.from_numpy(other))

print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
signs = weight.view(-1)
for name, codes in (("bitsandbytes", ours), ("onnxruntime", other)):
    for code in (0, 8):
        chosen = signs[codes == code]
        print(f"{name}, code {code}: {(chosen > 0).sum()} positive values, {(chosen < 0).sum()} negative ones")
assert (signs[ours == 8] > 0).all() and (signs[ours == 0] < 0).all() and (ours == 8).sum() > 100
assert (signs[other == 8] < 0).all() and (signs[other == 0] > 0).all()
assert torch.signbit(values[ours == 8]).all() and not torch.signbit(values[ours == 0]).any()
is_zero = (ours == 0) | (ours == 8)
print(f"codes that differ: {(ours != other).sum()}, of these zeros: {is_zero[ours != other].sum()}")
assert (ours != other)[is_zero].all()
PYTHON
