#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, CPU, gloo. FSDP2's fully_shard cuts a 4-bit weight's codes between the ranks; its
# scales, which are no parameter, stay whole on each. With float32 scales of blocks of 64 that is a quarter of a rank's codes
# on two ranks, and as much as its codes on eight.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2 numpy
cat >"$work/ranks.py" <<'PYTHON'
import sys

import bitsandbytes
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def train_rank(rank, store):
    world = 2
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = torch.nn.Sequential(bitsandbytes.nn.Linear4bit(
        512, 1024, bias=False, quant_type="nf4", compute_dtype=torch.float32, compress_statistics=False, quant_storage=torch.bfloat16))
    model[0].load_state_dict({"weight": torch.randn(1024, 512) * 0.02})
    model.to("cpu")
    x = torch.randn(4, 512)
    expected, codes, scales = model(x), model[0].weight.nbytes, model[0].weight.quant_state.absmax.nbytes
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    local, kept = model[0].weight.to_local().nbytes, model[0].quant_state.absmax.nbytes
    assert torch.equal(model(x), expected)
    assert local * world == codes and kept == scales and scales * 8 == codes, (codes, local, scales, kept)
    print(f"rank {rank}: codes {codes} -> {local} bytes, scales {scales} -> {kept} bytes, the same outputs", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}", flush=True)
    torch.multiprocessing.spawn(train_rank, args=(sys.argv[1],), nprocs=2)
PYTHON
"$work/venv/bin/python" "$work/ranks.py" "$work/store" 2>&1 | grep -v '^\[Gloo\]'
