"""Adapters over 4-bit base models across the border, both ways, in float32 on a CPU.

    python peft_on_4bit.py --qshard QSHARD --logits ADAPTER_LOGITS --golden correctness/golden/families

Of each kind of peft_adapters.py the base is quantized once by bitsandbytes (transformers writes it) and once by
`qshard quantize`; a line tells which tensors of the two differ (seen: the 8-bit block maxima of one or two weights, where
bitsandbytes runs on a CPU; QShard is held to what it gives on a GPU). On each, QShard trains an adapter that PEFT loads over
bitsandbytes' layers, and QShard loads the one that PEFT trained. The logits may differ by 2e-6 of the largest one.
Ends with 1 where something is further apart.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import bitsandbytes
import numpy as np
import peft
import safetensors.numpy
import torch
import transformers
from peft_adapters import KINDS, arguments_of, qshard_logits, train, write_rows

BOUND = 2e-6


def load(base, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager", **options)


def bytes_of(folder):
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= safetensors.numpy.load_file(file)
    return {name: (tensor.shape, tensor.tobytes()) for name, tensor in tensors.items() if "quant_state" not in name}


def differing(a, b):
    """How many tensors differ, by the last part of their names."""
    assert a.keys() == b.keys()
    names = [name.rsplit(".", 1)[1] for name in a if a[name] != b[name]]
    return {name: names.count(name) for name in names} or "none"


def bases(qshard, base, folder):
    """The same model in 4 bits, by bitsandbytes and by QShard."""
    load(base).save_pretrained(folder / "dense")
    form = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    load(folder / "dense", quantization_config=form).save_pretrained(folder / "bitsandbytes")
    run(qshard, "quantize", "--model", folder / "dense", "--output", folder / "qshard")
    return [folder / "bitsandbytes", folder / "qshard"]


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def peft_logits(base, adapter, ids):
    model = peft.PeftModel.from_pretrained(load(base), adapter).eval()
    assert any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.modules())
    with torch.no_grad():
        return model(torch.from_numpy(ids).long()).logits.numpy()


def main():
    arguments = arguments_of(__doc__)
    transformers.utils.logging.disable_progress_bar()
    print(json.dumps({module.__name__: module.__version__ for module in (bitsandbytes, peft, torch, transformers)}))
    failed = False
    for kind, options in KINDS.items():
        of = (arguments.golden / kind).resolve()
        ids = safetensors.numpy.load_file(of / "trajectory.safetensors")["input_ids"].astype(np.int32)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_rows(folder / "data", ids)
            in_4bit = bases(arguments.qshard, of / "base", folder)
            print(f"{kind:24}tensors of the two 4-bit bases that differ: {differing(*map(bytes_of, in_4bit))}")
            for base in in_4bit:
                train(arguments.qshard, base, options, folder / "data", folder / f"trained {base.name}")
                for what, adapter in (("QShard's in PEFT", folder / f"trained {base.name}"),
                                      ("PEFT's in QShard", of / "adapter_final_fp32")):
                    theirs = peft_logits(base, adapter, ids)
                    ours = qshard_logits(arguments.logits, base, adapter, ids, folder)
                    with torch.no_grad():
                        moved = np.abs(theirs - load(base)(torch.from_numpy(ids).long()).logits.numpy()).max()
                    largest = np.abs(theirs).max()
                    difference = np.abs(theirs - ours).max() / largest
                    good = difference <= BOUND and moved > 100 * BOUND * largest
                    failed = failed or not good
                    print(f"{kind:24}{what:18} on {base.name + chr(39) + 's base':20}logits differ by {difference:.1e} "
                          f"(the adapter moves them by {moved / largest:.1e}){'' if good else '  WRONG'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
