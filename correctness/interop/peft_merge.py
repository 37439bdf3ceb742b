"""`qshard merge` beside PEFT's merge_and_unload, for adapters of every kind, on a CPU.

    python peft_merge.py --qshard QSHARD --golden correctness/golden

Of each kind the adapter is merged by both: into the base model in bfloat16, float16 and float32, and into what its
4-bit form dequantizes to; adapters are in float32 and, onto the bfloat16 base, in bfloat16 and float16 as well. Every
tensor of the merged models is compared: a line tells how many values the merge changed, in how many the two differ, and
by how many units in the last place of the dtype at most. All sums have PyTorch's order on an x86 CPU, so none may differ.
Where PEFT refuses, QShard must refuse, too. Ends with 1 where anything differs or a merge changes nothing.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import peft
import safetensors.torch
import torch
import transformers

WORDS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def load(base):
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")


def cast_base(base, dtype, output):
    load(base).to(dtype).save_pretrained(output)


def cast_adapter(adapter, dtype, output):
    shutil.copytree(adapter, output)
    file = output / "adapter_model.safetensors"
    safetensors.torch.save_file({k: v.to(dtype) for k, v in safetensors.torch.load_file(file).items()}, file)


def qshard(program, *arguments):
    """What the program wrote, where it failed; else nothing."""
    done = subprocess.run([str(word) for word in (program, *arguments)], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stdout + done.stderr


def random_adapter(base, output, seed, **options):
    """An adapter of PEFT's making: whatever it trains is moved by random numbers."""
    torch.manual_seed(seed)
    options.setdefault("target_modules", ["q_proj", "down_proj"])
    model = peft.get_peft_model(load(base), peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(output)


def golden_adapters(golden, folder):
    """Name, base and adapter of every kind."""
    families = golden / "families"
    yield "plain", golden / "llama/base", golden / "llama/adapter_final_fp32"
    for kind in ("rslora_patterns", "targets_regex", "layers_to_transform", "dora", "lora_bias", "embedding_head_trained"):
        yield kind, families / kind / "base", families / kind / "adapter_final_fp32"
    made = {
        "lora_bias onto biases": ("llama_bias", {"lora_bias": True}),
        "dora onto biases": ("llama_bias", {"use_dora": True}),
        "biases trained": ("llama_bias", {"bias": "all"}),
        "output head adapted": ("llama_bias", {"target_modules": ["q_proj", "lm_head"]}),
        "tied, embedding trained": ("qwen2", {"modules_to_save": ["embed_tokens"]}),
        "tied, head trained": ("qwen2", {"modules_to_save": ["lm_head"]}),
        "tied, kept tied": ("qwen2", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    }
    for seed, (kind, (family, options)) in enumerate(made.items()):
        random_adapter(families / family / "base", folder / f"made{seed}", seed, **options)
        yield kind, families / family / "base", folder / f"made{seed}"


def peft_merged(base, adapter):
    """The merged tensors, or what PEFT says against it."""
    try:
        return peft.PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    except RuntimeError as error:
        return str(error)


def units_apart(a, b):
    """By how many places of the dtype each value of a is from b's."""
    places = []
    for tensor in (a, b):
        bits = tensor.contiguous().view(WORDS[tensor.dtype]).numpy().astype(np.int64)
        places.append(np.where(bits < 0, np.iinfo(np.int16 if tensor.element_size() == 2 else np.int32).min - bits, bits))
    return np.abs(places[0] - places[1])


def compare(program, base, adapter, mine, folder):
    """What is to be printed, and whether it is good. `mine` are the arguments by which QShard merges onto this base."""
    theirs = peft_merged(base, adapter)
    output = folder / "merged"
    shutil.rmtree(output, ignore_errors=True)
    refused = qshard(program, "merge", *mine, "--adapter", adapter, "--output", output)
    if isinstance(theirs, str) or refused:
        both = isinstance(theirs, str) and refused is not None and "has none in" in refused
        return f"{'refused by both' if both else f'WRONG: PEFT: {theirs}; QShard: {refused}'}", both
    ours = load(output)
    if ours.config.tie_word_embeddings != theirs.config.tie_word_embeddings:
        return f"WRONG: tie_word_embeddings is {ours.config.tie_word_embeddings}", False
    wanted, got = theirs.state_dict(), ours.state_dict()
    if wanted.keys() != got.keys():
        return f"WRONG: tensors {wanted.keys() ^ got.keys()}", False
    dtypes = {tensor.dtype for tensor in got.values()}
    if dtypes != {tensor.dtype for tensor in wanted.values()} or len(dtypes) != 1:
        return f"WRONG: dtypes {dtypes}", False
    apart = np.concatenate([units_apart(wanted[name], got[name]).ravel() for name in wanted])
    before = load(base).state_dict()
    moved = sum(torch.count_nonzero(before[name] != tensor).item() for name, tensor in got.items())
    differ = np.count_nonzero(apart)
    text = f"{moved:7} of {apart.size} values change; {differ} differ from PEFT's, by {apart.max()} units at most"
    return text, differ == 0 and moved > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qshard", required=True)
    parser.add_argument("--golden", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    print(json.dumps({module.__name__: module.__version__ for module in (peft, torch, transformers)}))
    failed = False
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for number, (kind, base, adapter) in enumerate(golden_adapters(arguments.golden.resolve(), root)):
            folder = root / f"kind{number}"
            folder.mkdir()
            for dtype in (torch.bfloat16, torch.float16):
                cast_adapter(adapter, dtype, folder / str(dtype))
            for dtype in (torch.float16, torch.float32):
                cast_base(base, dtype, folder / f"base {dtype}")
            for made in (("quantize", base, "4bit"), ("dequantize", folder / "4bit", "dense")):
                problem = qshard(arguments.qshard, made[0], "--model", made[1], "--output", folder / made[2])
                assert problem is None, problem
            cases = [("bfloat16", base, adapter, base), ("bfloat16, adapter bfloat16", base, folder / "torch.bfloat16", base)]
            cases += [("bfloat16, adapter float16", base, folder / "torch.float16", base)]
            cases += [(d, folder / f"base torch.{d}", adapter, folder / f"base torch.{d}") for d in ("float16", "float32")]
            cases += [("dequantized 4-bit", folder / "dense", adapter, folder / "4bit")]
            for what, dense, of_case, model in cases:
                text, good = compare(arguments.qshard, dense, of_case, ["--model", model], folder)
                failed = failed or not good
                print(f"{kind:25}{what:28}{text}{'' if good else '  WRONG'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
