#!/usr/bin/env bash
# PEFT 0.21.0, transformers 5.24.0, torch 2.9.1, CPU. Gradient checkpointing (use_reentrant=False) makes a decoder layer's
# forward pass again and stops early, once the last value is there that the backward pass reads. Seen: where down_proj has
# no adapter its product is not made again; where it has one, it is, about a quarter of a Llama layer's products, though
# nothing reads it: PEFT makes the frozen product first, and only then A x, which is what B's gradient needs. With zeros in
# the place of the repeated product all gradients have the same bits.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 peft==0.21.0 transformers==5.24.0
"$work/venv/bin/python" - <<'PYTHON'
import peft
import torch
import transformers

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
WITHOUT_DOWN = [*ATTENTION, "gate_proj", "up_proj"]


def step(targets, zeros=False):
    """How often layer 0 makes its down projection's frozen product and the one before, and all gradients."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=4, use_cache=False)
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), peft.LoraConfig(r=4, target_modules=targets))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    calls = {"down_proj": 0, "up_proj": 0}

    def count(name, result):
        calls[name] += 1
        return result * 0 if zeros and name == "down_proj" and calls[name] == 2 else None

    mlp = model.base_model.model.model.layers[0].mlp
    for name in calls:
        layer = getattr(mlp, name)
        getattr(layer, "base_layer", layer).register_forward_hook(lambda _, __, result, name=name: count(name, result))
    ids = torch.randint(0, 128, (2, 16), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids, labels=ids).loss.backward()
    return calls, {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
without, _ = step(WITHOUT_DOWN)
print("no adapter on down_proj, times that layer 0 makes its frozen products:", without)
with_it, gradients = step([*WITHOUT_DOWN, "down_proj"])
print("an adapter on down_proj:", with_it)
_, unread = step([*WITHOUT_DOWN, "down_proj"], zeros=True)
same = all(torch.equal(gradients[name], unread[name]) for name in gradients)
print("gradients have the same bits with zeros for the repeated product:", same)
assert without == {"down_proj": 1, "up_proj": 2}
assert with_it == {"down_proj": 2, "up_proj": 2}
assert same and len(gradients) == 28 and all(value.abs().sum() > 0 for value in gradients.values())
PYTHON
