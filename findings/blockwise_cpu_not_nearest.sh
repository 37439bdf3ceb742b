#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, CPU. quantize_blockwise with the signed dynamic map (also of the nested scales of 4-bit
# layers) does not take the nearest code for every value: 389 of 262,144 normal values get a neighbour that is farther away.
# Layers that are quantized on the CPU can thus hold other bytes than those from a GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2
"$work/venv/bin/python" - <<'PYTHON'
import bitsandbytes
import torch

torch.manual_seed(0)
values = torch.randn(262_144) * 0.02
codes, state = bitsandbytes.functional.quantize_blockwise(values, blocksize=256)
scaled = (values.view(-1, 256) / state.absmax[:, None]).view(-1)
taken = (state.code[codes.long().view(-1)] - scaled).abs()
nearest = torch.searchsorted((state.code[1:] + state.code[:-1]) / 2, scaled)
best = (state.code[nearest] - scaled).abs()
farther = (taken > best * (1 + 1e-4)).sum().item()
print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}")
print(f"codes that are not the nearest: {farther} of {values.numel()}")
assert 50 < farther < 5000
PYTHON
