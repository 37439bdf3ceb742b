#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, CPU. What Linear4bit.state_dict() gives (codes, absmax, maps and quant_state), a new
# Linear4bit of the same shape refuses in load_state_dict(): unexpected keys, and the codes are not of the weight's shape. A
# plain torch.save and load of a model in 4 bits therefore ends in an error; transformers reads such tensors by its own code.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2
"$work/venv/bin/python" - <<'PYTHON'
import bitsandbytes
import torch

def layer():
    return bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)

written = layer()
written.load_state_dict({"weight": torch.randn(64, 64)})
state = written.to("cpu").state_dict()
try:
    layer().load_state_dict(state)
    message = ""
except RuntimeError as error:
    message = str(error)
print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}")
print("written:", ", ".join(state))
print("load_state_dict:", message)
assert "weight.absmax" in state and "Unexpected key(s)" in message and "size mismatch for weight" in message
PYTHON
