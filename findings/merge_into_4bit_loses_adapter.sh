#!/usr/bin/env bash
# PEFT 0.21.0 and bitsandbytes 0.50.2, torch 2.9.1, CPU. merge_and_unload() on an NF4 layer dequantizes, adds the adapter
# and quantizes again. An adapter whose product is 0.7 % of the weight (a usual size after a short training) moves hardly any
# weight to another code: no code changed here, 1 % of the adapter's effect on the outputs was left, and the error is as
# large as the effect. The warning speaks of "different generations due to rounding errors".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 peft==0.21.0 transformers==5.24.0 bitsandbytes==0.50.2
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import bitsandbytes
import peft
import torch

warnings.simplefilter("ignore")
torch.manual_seed(0)
size = 1024
base = torch.nn.Sequential(bitsandbytes.nn.Linear4bit(size, size, bias=False, quant_type="nf4", compute_dtype=torch.float32))
base[0].load_state_dict({"weight": torch.randn(size, size) * 0.02})
base = base.to("cpu")
base.is_loaded_in_4bit = True  # what transformers sets, and PEFT asks for
model = peft.get_peft_model(base, peft.LoraConfig(r=16, lora_alpha=16, target_modules=["0"]))
layer = model.base_model.model[0]
x = torch.randn(64, size)
with torch.no_grad():
    layer.lora_B["default"].weight.normal_(0, 2e-3)
    weight = bitsandbytes.functional.dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state)
    share = (layer.get_delta_weight("default").norm() / weight.norm()).item()
    codes = layer.base_layer.weight.data.clone()
    base_output = layer.base_layer(x).double()
    effect = model(x).double() - base_output
    merged = model.merge_and_unload()
    got = merged(x).double() - base_output
    changed = (merged[0].weight.data != codes).double().mean().item()
kept = ((got * effect).sum() / (effect * effect).sum()).item()
error = ((got - effect).norm() / effect.norm()).item()
print(f"peft {peft.__version__}, bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}")
print(f"adapter over weight (Frobenius norms): {share:.4f}; bytes of codes that changed: {changed:.4f}")
print(f"effect kept: {kept:.3f}; error over effect: {error:.2f}")
assert changed < 0.02 and kept < 0.1 and error > 0.9
PYTHON
