"""The peer to beat: transformers' greedy generate over a bitsandbytes 4-bit model with random weights of a model's shape, on one GPU.

    python3 generate.py --model 8b --rows 1 --prompt 128 --tokens 128

Prints a JSON line: tokens/s of the new tokens with the prompt's pass included, without it by the difference to a run of 8 tokens, peak memory.
"""
import argparse, json, sys, time
from pathlib import Path
import torch, torch.nn as nn
import bitsandbytes as bnb, transformers
from transformers import LlamaConfig, LlamaForCausalLM
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'sharded_step'))
from fsdp_step import SHAPES, quantized

ap = argparse.ArgumentParser()
ap.add_argument('--model', choices=SHAPES, default='8b')
ap.add_argument('--layers', type=int, default=0, help='0: all of the model')
ap.add_argument('--rows', type=int, default=1)
ap.add_argument('--prompt', type=int, default=128)
ap.add_argument('--tokens', type=int, default=128)
ap.add_argument('--repetitions', type=int, default=3)
a = ap.parse_args()
hidden, intermediate, heads, kv, vocabulary, layers = SHAPES[a.model]
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
device = torch.device('cuda', 0)
config = LlamaConfig(hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads, num_key_value_heads=kv, num_hidden_layers=a.layers or layers,
                     vocab_size=vocabulary, max_position_embeddings=4096, eos_token_id=None, bos_token_id=None, pad_token_id=0)
config._attn_implementation = 'sdpa'
with torch.device('meta'):
    model = LlamaForCausalLM(config)


def fill(module, inside):
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and inside:
            setattr(module, name, quantized(child, device, bnb))
        else:
            fill(child, inside or name == 'layers')
    for name, p in list(module.named_parameters(recurse=False)):
        if p.is_meta:
            value = torch.randn(p.shape, device=device) * 0.02 if p.dim() > 1 else torch.ones(p.shape, device=device)
            setattr(module, name, nn.Parameter(value, requires_grad=False))


fill(model, False)
model.model.rotary_emb = type(model.model.rotary_emb)(config, device=device)
model.eval()
ids = torch.randint(0, vocabulary, (a.rows, a.prompt), device=device)


def run(n):
    torch.cuda.synchronize()
    start = time.time()
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False)
    torch.cuda.synchronize()
    assert out.shape[1] == a.prompt + n
    return time.time() - start


run(8)
seconds = [run(a.tokens) for _ in range(a.repetitions)]
short = sorted(run(8) for _ in range(a.repetitions))[a.repetitions // 2]
whole = sorted(seconds)[a.repetitions // 2]
free, total = torch.cuda.mem_get_info()
print(json.dumps(dict(vars(a), layers=config.num_hidden_layers, device=torch.cuda.get_device_name(), torch=torch.__version__, transformers=transformers.__version__,
                      bitsandbytes=bnb.__version__, seconds=seconds, tokens_per_second=a.rows * a.tokens / whole,
                      decode_tokens_per_second=a.rows * (a.tokens - 8) / (whole - short), peak_bytes=total - free)))
