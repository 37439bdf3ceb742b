#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, CPU. A weight cut between two ranks and then quantized is another weight than one
# quantized and then cut, although the cut falls between blocks: double quantization subtracts the mean of all scales of
# the tensor, and each half has its own. The codes are the same; nine tenths of the dequantized values are not. Without
# double quantization nothing differs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2 numpy
"$work/venv/bin/python" - <<'PYTHON'
import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}")
torch.manual_seed(0)
weight = torch.randn(1024, 512) * 0.02
for block in [64, 128, 256]:
    for nested in [True, False]:
        options = dict(quant_type="nf4", blocksize=block, compress_statistics=nested)
        codes, state = quantize_4bit(weight, **options)
        whole = dequantize_4bit(codes, state)
        halves = [quantize_4bit(half, **options) for half in weight.chunk(2)]
        assert torch.equal(codes, torch.cat([half[0] for half in halves]))
        changed = (whole != torch.cat([dequantize_4bit(*half) for half in halves])).double().mean().item()
        print(f"blocks of {block}, double quantization {nested}: the same codes, {changed:.1%} of the values differ")
        assert (changed > 0.8) if nested else (changed == 0), changed
PYTHON
