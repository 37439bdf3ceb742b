#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.9.1, CPU, gloo. AdamW8bit over a LoRA pair of 8 x 512 and 512 x 8. FSDP gives it flat
# shards of what a rank holds, and it keeps moments of fewer than 4,096 elements in float32: on 1 and 2 ranks the moments are
# 8-bit, on 4 ranks all of them are float32. FSDP2's fully_shard gives it DTensors, on 1 rank too, and its step raises.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 bitsandbytes==0.50.2 numpy
cat >"$work/ranks.py" <<'PYTHON'
import torch
import torch.distributed as dist
from bitsandbytes.optim import AdamW8bit
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

dist.init_process_group("gloo")
ranks = dist.get_world_size()


def lora_pair():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(512, 8, bias=False), torch.nn.Linear(8, 512, bias=False))


def step(model):
    optimizer = AdamW8bit(model.parameters(), lr=1e-3)
    model(torch.randn(4, 512)).square().mean().backward()
    optimizer.step()
    return {str(state["state1"].dtype) for state in optimizer.state.values()}


moments = step(FullyShardedDataParallel(lora_pair(), use_orig_params=True, device_id=torch.device("cpu")))
print(f"{ranks} ranks, rank {dist.get_rank()}: FSDP: moments in {moments}", flush=True)
assert moments == ({"torch.float32"} if ranks == 4 else {"torch.uint8"}), moments

try:
    step(fully_shard(lora_pair(), mesh=init_device_mesh("cpu", (ranks,))))
except RuntimeError as error:
    print(f"{ranks} ranks, rank {dist.get_rank()}: FSDP2: {str(error)[:100]}", flush=True)
    assert "DTensor" in str(error), error
else:
    raise AssertionError("AdamW8bit took FSDP2's parameters")
dist.barrier()
dist.destroy_process_group()
PYTHON
for ranks in 1 2 4; do
  OMP_NUM_THREADS=1 "$work/venv/bin/torchrun" --standalone --nproc-per-node "$ranks" "$work/ranks.py"
done
