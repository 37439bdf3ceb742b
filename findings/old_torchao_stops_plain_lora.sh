#!/usr/bin/env bash
# PEFT 0.21.0, torchao 0.14.1, bitsandbytes 0.50.2, torch 2.9.1, CPU. An older torchao that is merely installed stops LoRA on
# a plain float32 layer: of the kinds of layer that PEFT asks about one after the other, torchao's comes before the plain
# one and raises where it should say no. On an NF4 layer of bitsandbytes, which is asked about earlier, LoRA works.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 peft==0.21.0 transformers==5.24.0 bitsandbytes==0.50.2 torchao==0.14.1
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import bitsandbytes
import peft
import torch

warnings.simplefilter("ignore")
print(f"peft {peft.__version__}, bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}")


def with_lora(layer):
    model = torch.nn.Sequential(layer).to("cpu")
    model.is_loaded_in_4bit = isinstance(layer, bitsandbytes.nn.Linear4bit)  # what transformers sets, and PEFT asks for
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["0"]))


x = torch.randn(2, 64)
print("NF4 layer:", tuple(with_lora(bitsandbytes.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32))(x).shape))
try:
    with_lora(torch.nn.Linear(64, 64))
except ImportError as error:
    print("float32 layer:", error)
    assert "torchao" in str(error)
else:
    raise SystemExit("LoRA on a float32 layer works beside torchao 0.14.1")
PYTHON
