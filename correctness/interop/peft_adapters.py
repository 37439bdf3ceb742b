"""Adapters of every kind across the border, both ways, in float32 on a CPU.

    python peft_adapters.py --qshard QSHARD --logits ADAPTER_LOGITS --golden correctness/golden/families

Of each kind: QShard trains a few steps, and PEFT loads what it saved; and QShard loads what PEFT trained (the golden
adapter_final_fp32). Both compute the logits of the same rows, which may differ by 2e-6 of the largest one. Prints a line
a kind with the differences and the warnings that PEFT's loading gave. Ends with 1 where something is further apart, or
where a warning came that is not among those expected.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import peft
import safetensors.numpy
import torch
import transformers

BOUND = 2e-6
# The options of a run that make the kind.
KINDS = {
    "rslora_patterns": ["--lora.use_rslora", "true", "--lora.rank_pattern", "q_proj=4", "--lora.alpha_pattern", "up_proj=32"],
    "targets_regex": ["--lora.target_modules", r".*layers\.1\..*(q|up)_proj"],
    "layers_to_transform": ["--lora.layers_to_transform", "1", "--lora.target_modules", "[q_proj, down_proj]"],
    "dora": ["--lora.use_dora", "true"],
    "lora_bias": ["--lora.lora_bias", "true"],
    "embedding_head_trained": ["--lora.modules_to_save", "[embed_tokens, lm_head]"],
}
# PEFT says at every lora_bias on a layer without a bias of its own that merging will not be possible.
EXPECTED_WARNINGS = {"lora_bias": "`lora_bias=True` was passed but the targeted layer"}


def write_rows(path, ids):
    """A prepared data set of these rows, all of whose tokens are learned."""
    rows, tokens = ids.shape
    offsets = np.arange(rows + 1, dtype=np.int64) * tokens
    safetensors.numpy.save_file({"input_ids": ids.ravel(), "labels": ids.ravel(), "offsets": offsets}, path)


def arguments_of(description):
    """What every script that also computes QShard's logits takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--qshard", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--golden", required=True, type=pathlib.Path)
    return parser.parse_args()


def train(qshard, base, options, data, output):
    """Three steps in float32, on a base of 4 bits unless the options say otherwise."""
    config = output.parent / "train.yaml"
    config.write_text("lora: {r: 8, lora_alpha: 16}\n")
    command = [qshard, "train", config, "--model_name_or_path", base, "--dataset.path", data, "--dataset.format", "prepared"]
    command += ["--training.output_dir", output, "--training.max_steps", "3", "--training.learning_rate", "5e-3"]
    command += ["--training.per_device_train_batch_size", "4", "--training.save_strategy", "no", "--device", "cpu"]
    command += ["--dtype", "float32", *options]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def peft_logits(base, adapter, ids):
    """The logits by PEFT, and the texts of the warnings that loading gave."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        return model(torch.from_numpy(ids).long()).logits.numpy(), [str(warning.message) for warning in caught]


def qshard_logits(program, base, adapter, ids, folder):
    safetensors.numpy.save_file({"input_ids": ids}, folder / "ids.safetensors")
    subprocess.run([program, base, adapter, folder / "ids.safetensors", folder / "logits.safetensors"], check=True)
    return safetensors.numpy.load_file(folder / "logits.safetensors")["logits"]


def compare(arguments, kind, base, adapter, ids, folder):
    """The largest difference, relative to the largest logit; how far the adapter moves the logits; unexpected warnings."""
    theirs, told = peft_logits(base, adapter, ids)
    ours = qshard_logits(arguments.logits, base, adapter, ids, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        without = model(torch.from_numpy(ids).long()).logits.numpy()
    largest = np.abs(theirs).max()
    unexpected = [text for text in told if EXPECTED_WARNINGS.get(kind, "\0") not in text]
    return np.abs(theirs - ours).max() / largest, np.abs(theirs - without).max() / largest, len(told), unexpected


def main():
    arguments = arguments_of(__doc__)
    versions = {module.__name__: module.__version__ for module in (peft, torch, transformers)}
    print(json.dumps(versions))
    failed = False
    for kind, options in KINDS.items():
        base = (arguments.golden / kind / "base").resolve()
        ids = safetensors.numpy.load_file(arguments.golden / kind / "trajectory.safetensors")["input_ids"].astype(np.int32)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_rows(folder / "data", ids)
            for start in ["true"] if kind == "lora_bias" else ["true", "gaussian"]:
                output = folder / start
                of_run = ["--quantization.load_in_4bit", "false", "--lora.init_lora_weights", start, *options]
                train(arguments.qshard, base, of_run, folder / "data", output)
                saved = json.loads((output / "adapter_config.json").read_text())
                assert saved["base_model_name_or_path"] == str(base), saved["base_model_name_or_path"]
            cases = {"QShard's in PEFT": folder / "true", "PEFT's in QShard": arguments.golden / kind / "adapter_final_fp32"}
            if kind != "lora_bias":
                cases["QShard's, gaussian"] = folder / "gaussian"
            for what, adapter in cases.items():
                difference, moved, count, unexpected = compare(arguments, kind, base, adapter, ids, folder)
                good = difference <= BOUND and moved > 100 * BOUND and not unexpected
                failed = failed or not good
                print(f"{kind:24}{what:20}logits differ by {difference:.1e} (the adapter moves them by {moved:.1e}), "
                      f"{count} warnings{'' if good else '  WRONG'}")
                for text in unexpected:
                    print(f"    {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
