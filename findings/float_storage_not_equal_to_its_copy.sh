#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, CPU. With quant_storage float16, bfloat16 or float32, as FSDP wants it, the packed 4-bit
# codes are read as floats, and some are NaN: 1.7 % of the elements in float16, 0.1 % in the others. torch.equal says
# that such a weight differs from its own copy. It errs the other way as well: codes 00 00 and 00 80 are 0 and -0, so two
# weights with other codes are "equal". Only a view as uint8 compares codes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2 numpy
"$work/venv/bin/python" - <<'PYTHON'
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

torch.manual_seed(1)
weight = torch.randn(512, 512)
nan_share = {}
for storage in (torch.uint8, torch.float16, torch.bfloat16, torch.float32):
    codes, _ = quantize_4bit(weight, quant_type="nf4", quant_storage=storage)
    copy = codes.clone()
    nan_share[storage] = float((codes != codes).float().mean())
    print(f"{storage}: equal to its copy: {torch.equal(codes, copy)}, NaN: {nan_share[storage]:.4f}")
    assert torch.equal(codes.view(torch.uint8), copy.view(torch.uint8))
    assert torch.equal(codes, copy) == (storage == torch.uint8)
assert 0.016 < nan_share[torch.float16] < 0.018
assert 0.0005 < nan_share[torch.bfloat16] < 0.0015 and 0.0005 < nan_share[torch.float32] < 0.0015

# One block of 64 whose largest value has code 0, and the same where the second byte of one element of storage is 0x80.
codes, state = quantize_4bit(-torch.ones(64), quant_type="nf4", blocksize=64, quant_storage=torch.bfloat16)
assert not codes.view(torch.uint8).any()
other = codes.clone()
other.view(torch.uint8).view(-1)[1] = 0x80
first, second = dequantize_4bit(codes, state).view(-1), dequantize_4bit(other, state).view(-1)
print(f"other codes, equal all the same: {torch.equal(codes, other)}; values {first[2]:.3f} and {second[2]:.3f}")
assert torch.equal(codes, other) and first[2] != second[2]
PYTHON
