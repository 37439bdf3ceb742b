#!/usr/bin/env bash
# PEFT 0.21.0, torch 2.9.1, CPU. A linear layer and its LoRA adapter in bfloat16, as FSDP wants one dtype for all
# parameters. After one step that moves each element of B by 1e-4, the adapter's part of an output is far below half a unit
# in the last place of the base layer's output. PEFT rounds the base output to bfloat16 and then adds: seen 96.8 % of the
# outputs with the bits of the base layer and 8 % of the adapter's effect (the projection of what was added on what should
# be). Added before one rounding, 99 % of the effect is there: roundings up and down balance.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 peft==0.21.0 transformers==5.24.0
"$work/venv/bin/python" - <<'PYTHON'
import peft
import torch

torch.manual_seed(0)
base = torch.nn.Sequential(torch.nn.Linear(2048, 2048, bias=False)).to(torch.bfloat16)
base[0].weight.data.normal_(0, 0.02)
config = peft.LoraConfig(r=64, lora_alpha=16, target_modules=["0"], lora_dropout=0.0)
model = peft.get_peft_model(base, config, autocast_adapter_dtype=False)
layer = model.base_model.model[0]
a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
x = torch.randn(512, 2048, dtype=torch.bfloat16)
(model(x).float() * torch.randn(512, 2048)).mean().backward()
with torch.no_grad():
    b -= 1e-4 * b.grad.sign()
    before, after = layer.base_layer(x), model(x)
    product = x.double() @ layer.base_layer.weight.double().T
    effect = layer.scaling["default"] * (x.double() @ a.double().T @ b.double().T)

def kept(added):
    return ((added * effect).sum() / (effect * effect).sum()).item()

unchanged = (before == after).double().mean().item()
twice = kept(after.double() - before.double())
once = kept((product + effect).to(torch.bfloat16).double() - product)
print(f"peft {peft.__version__}, torch {torch.__version__}")
print(f"outputs with the base layer's bits: {unchanged:.3f}")
print(f"effect kept, rounded before the addition and after it: {twice:.3f}; rounded once: {once:.3f}")
assert unchanged > 0.9 and twice < 0.2 and 0.9 < once < 1.1
PYTHON
