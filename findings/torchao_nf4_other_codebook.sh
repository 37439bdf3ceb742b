#!/usr/bin/env bash
# torchao 0.14.1, bitsandbytes 0.50.2, torch 2.9.1, CPU. Both call their 4-bit format NF4. torchao keeps the 16 values with four
# decimals in the weight's dtype (bfloat16: -0.6953 instead of -0.6962), and scales as linear int8 instead of the dynamic map:
# some of the packed bytes differ, and a third of the values or more. Codes of one library read with the other's
# scales are another weight.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2 torchao==0.14.1
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import bitsandbytes
import torch
import torchao
from torchao.dtypes.nf4tensor import to_nf4

torch.manual_seed(0)
weight = torch.randn(256, 1024).bfloat16() * 0.02
packed, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
values = bitsandbytes.functional.dequantize_4bit(packed, state)
other = to_nf4(weight, 64, 256)
other_values = other.get_original_weight()

print(f"torchao {torchao.__version__}, bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}")
print(f"codebook values that differ: {(other.nf4.float() != state.code).sum().item()} of 16")
bytes_apart = (other.quantized_data.view(-1) != packed.view(-1)).sum().item()
values_apart = (other_values != values).sum().item()
print(f"packed bytes that differ: {bytes_apart} of {packed.numel()}; values: {values_apart} of {values.numel()}")
assert 100 < bytes_apart < 0.05 * packed.numel()
assert values_apart > 0.25 * values.numel()
PYTHON
