#!/usr/bin/env python3
"""The peer of bench/main_job/run: the adverbs example by PyTorch, PEFT and bitsandbytes on a CPU, in fp32.

Trains on a prepared file of the trainer, so that both sides see the same tokens, and starts from the adapter that lies in
--adapter; where none does, writes a new one there and ends. Prints a JSON line: losses and seconds of each step."""
import argparse
import json
import os
import time

import bitsandbytes
import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

LEARNING_RATE, WARMUP_STEPS, CLIP = 1e-3, 10, 0.3  # as in examples/adverbs/train.yaml


def load_base(path, weights):
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                             bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_storage=torch.float32)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                **({"quantization_config": nf4} if weights == "nf4" else {}))


def padded(data, offsets, rows):
    """The rows as HF's collator gives them: padded to the longest on the right, padding not attended to and not learned."""
    longest = max(offsets[row + 1] - offsets[row] for row in rows)
    batch = {"input_ids": torch.zeros(len(rows), longest, dtype=torch.long),
             "labels": torch.full((len(rows), longest), -100),
             "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long)}
    for i, row in enumerate(rows):
        begin, end = offsets[row], offsets[row + 1]
        batch["input_ids"][i, : end - begin] = data["input_ids"][begin:end]
        batch["labels"][i, : end - begin] = data["labels"][begin:end]
        batch["attention_mask"][i, : end - begin] = 1
    return batch


def train(model, data, steps, rows):
    offsets = data["offsets"].tolist()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    model.train()
    losses, seconds = [], []
    for step in range(steps):
        begin = time.perf_counter()
        batch = padded(data, offsets, range(rows * step, rows * (step + 1)))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, step / WARMUP_STEPS)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - begin)
    return losses, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--data", help="the prepared file")
    parser.add_argument("--weights", choices=["nf4", "fp32"], default="nf4")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    base = load_base(options.model, options.weights)
    if not os.path.exists(os.path.join(options.adapter, "adapter_config.json")):
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                          target_modules="all-linear")
        get_peft_model(base, lora, autocast_adapter_dtype=False).save_pretrained(options.adapter)
        return
    model = PeftModel.from_pretrained(base, options.adapter, is_trainable=True, autocast_adapter_dtype=False)
    losses, seconds = train(model, load_file(options.data), options.steps, options.rows)
    versions = f"torch {torch.__version__}, peft {peft.__version__}, bitsandbytes {bitsandbytes.__version__}"
    print(json.dumps({"versions": versions, "losses": losses, "seconds": seconds}))


if __name__ == "__main__":
    main()
