#!/usr/bin/env bash
# bitsandbytes 0.50.2, PEFT 0.21.0, transformers 5.24.0, torch 2.9.1, CPU. A forward of Linear4bit turns its bias, the
# parameter itself, into the compute dtype for good. prepare_model_for_kbit_training has made the biases float32, PEFT's
# bias="lora_only" trains them, the optimizer has been given float32 parameters; after the first batch they are bfloat16, and so
# are AdamW's moments. Of 50 steps of 1e-5, 99 % of the biases take none, for each is less than half a unit in the last place.
# With compute in float32 all of them move. The adapter's matrices stay float32 either way. Nothing warns.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 peft==0.21.0 transformers==5.24.0 bitsandbytes==0.50.2 numpy==2.3.5
"$work/venv/bin/python" - "$work/model" <<'PYTHON'
import sys

import bitsandbytes
import peft
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
print(f"bitsandbytes {bitsandbytes.__version__}, peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, vocab_size=256)
torch.manual_seed(0)
plain = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
for name, parameter in plain.named_parameters():
    if name.endswith("bias"):
        torch.nn.init.normal_(parameter)
plain.save_pretrained(sys.argv[1])
tokens = torch.randint(0, 256, (8, 32))

for compute in (torch.float32, torch.bfloat16):
    torch.manual_seed(0)
    quantization = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        sys.argv[1], quantization_config=quantization, device_map="cpu", dtype=torch.bfloat16
    )
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], bias="lora_only"))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    biases = [parameter for name, parameter in trained.items() if name.endswith(".bias")]
    assert len(biases) == 4 and all(parameter.dtype == torch.float32 for parameter in trained.values())
    start = [bias.detach().clone() for bias in biases]

    optimizer = torch.optim.AdamW(trained.values(), lr=1e-5, weight_decay=0)
    for _ in range(50):
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
    moved = torch.cat([bias.float() != old for bias, old in zip(biases, start)]).double().mean().item()
    dtypes = {bias.dtype for bias in biases} | {optimizer.state[bias]["exp_avg"].dtype for bias in biases}
    print(f"compute in {compute}: trained biases and their moments in {dtypes}, {moved:.1%} of the biases moved")
    assert dtypes == {compute}
    assert moved > 0.95 if compute == torch.float32 else moved < 0.1, moved
    assert all(parameter.dtype == torch.float32 for name, parameter in trained.items() if not name.endswith(".bias"))
PYTHON
