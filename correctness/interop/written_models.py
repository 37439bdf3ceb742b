"""Directories that `quantize`, `dequantize` and `merge` write, opened by transformers and bitsandbytes on a CPU.

    python written_models.py --qshard QSHARD --logits ADAPTER_LOGITS --golden correctness/golden

Each directory is held to what the loaders of transformers and vLLM ask of one: an index that names every tensor of
every weight file and nothing else (vLLM reads all *.safetensors that it finds), tensors of the names and shapes that the
configuration asks for, 4-bit weights with all parts that QuantState.from_dict wants and a quantization_config that says
what they are (vLLM: bitsandbytes, 4 bits, nf4 or fp4, stored as uint8), none where nothing is quantized, the
tokenizer's files, and nothing of an adapter. Then transformers opens it without a missing or unexpected key, and its
logits in float32 may differ from QShard's by 2e-6 of the largest one. Ends with 1 where something is not so.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import bitsandbytes
import numpy as np
import safetensors
import safetensors.numpy
import torch
import transformers
from peft_adapters import arguments_of

BOUND = 2e-6
PARTS = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4"}
TOKENIZER = {"tokenizer.json": "{}", "tokenizer_config.json": "{}", "chat_template.jinja": "{{ messages }}"}


def qshard(program, *arguments):
    subprocess.run([str(word) for word in (program, *arguments)], check=True, stdout=subprocess.DEVNULL)


def stored_shapes(folder):
    """The shapes of all tensors of all weight files, by name; none may be there twice."""
    shapes = {}
    for file in folder.glob("*.safetensors"):
        with safetensors.safe_open(file, "np") as tensors:
            for name in tensors.keys():
                assert name not in shapes, f"{name} is there twice"
                shapes[name] = (tensors.get_slice(name).get_shape(), file.name)
    return shapes


def check_rules(folder, wanted):
    """wanted: the dense shapes by name. Returns how many weights are in 4 bits."""
    config = json.loads((folder / "config.json").read_text())
    shapes = stored_shapes(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        assert json.loads(index.read_text())["weight_map"] == {name: file for name, (_, file) in shapes.items()}
    else:
        assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    quantized = {name for name in wanted if f"{name}.quant_state.bitsandbytes__nf4" in shapes}
    parts = {name + part for name in quantized for part in PARTS}
    assert shapes.keys() == wanted.keys() | parts, shapes.keys() ^ (wanted.keys() | parts)
    for name, shape in wanted.items():
        assert shapes[name][0] == ([np.prod(shape) // 2, 1] if name in quantized else shape), name
    settings = config.get("quantization_config")
    assert (settings is None) == (not quantized)
    if settings:
        expected = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}
        expected |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "uint8", "bnb_4bit_use_double_quant": True}
        assert expected.items() <= settings.items(), settings
        assert not any("lm_head" in name or "embed" in name for name in quantized)
    for name, text in TOKENIZER.items():
        assert (folder / name).read_text() == text, name
    assert not list(folder.glob("*adapter*"))
    return len(quantized)


def logits(folder, ids):
    model, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(told.values()), told
    layers = sum(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.modules())
    with torch.no_grad():
        return model(torch.from_numpy(ids).long()).logits.numpy(), layers


def make_base(golden, folder):
    """The golden Llama in float32 over two files, with a tokenizer and an adapter left behind in it."""
    base = folder / "base"
    model = transformers.AutoModelForCausalLM.from_pretrained(golden / "base", dtype=torch.float32)
    model.save_pretrained(base, max_shard_size="4MB")
    assert (base / "model.safetensors.index.json").exists()
    for name, text in TOKENIZER.items():
        (base / name).write_text(text)
    for file in (golden / "adapter_init").iterdir():
        shutil.copy(file, base)
    return base, {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def main():
    arguments = arguments_of(__doc__)
    transformers.utils.logging.disable_progress_bar()
    print(json.dumps({module.__name__: module.__version__ for module in (bitsandbytes, torch, transformers)}))
    golden = arguments.golden.resolve() / "llama"
    ids = safetensors.numpy.load_file(golden / "trajectory.safetensors")["input_ids"].astype(np.int32)
    ids = ids.reshape(-1, ids.shape[-1])[:2]
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base, wanted = make_base(golden, folder)
        merge = ["merge", "--adapter", golden / "adapter_final_fp32", "--model"]
        cases = {
            "quantize": ["quantize", "--model", base],
            "dequantize": ["dequantize", "--model", folder / "quantize"],
            "merge onto 16 or 32 bits": [*merge, base],
            "merge onto 4 bits": [*merge, folder / "quantize"],
            "merge, --write 4bit": [*merge, folder / "quantize", "--write", "4bit"],
            "merge of 32 bits, --write 4bit": [*merge, base, "--write", "4bit"],
        }
        safetensors.numpy.save_file({"input_ids": ids}, folder / "ids")
        for what, command in cases.items():
            output = folder / what
            qshard(arguments.qshard, *command, "--output", output)
            quantized = check_rules(output, wanted)
            theirs, layers = logits(output, ids)
            # An adapter that adds nothing.
            subprocess.run([arguments.logits, output, golden / "adapter_init", folder / "ids", folder / "out"], check=True)
            ours = safetensors.numpy.load_file(folder / "out")["logits"]
            difference = np.abs(theirs - ours).max() / np.abs(theirs).max()
            good = difference <= BOUND and layers == quantized == (14 if what == "quantize" or "4bit" in what else 0)
            failed = failed or not good
            print(f"{what:32}{layers:3} layers in 4 bits, logits differ by {difference:.1e}{'' if good else '  WRONG'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
