#!/usr/bin/env bash
# torch 2.15.0, CPU, gloo. A loss that pulls the sharded weight of a layer under FSDP2 to where it began, evenly cut. By mse_loss
# its value is right and its gradient is as many times too large as there are ranks; the same by difference.square().mean() is
# right in both. smooth_l1_loss, huber_loss, soft_margin_loss and binary_cross_entropy do as mse_loss does; l1_loss,
# binary_cross_entropy_with_logits and mse_loss with reduction="sum" are right. Adam hides it, SGD and a limit for the norm do
# not. torch 2.9.1 refuses mse_loss of such tensors.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.3.5
cat >"$work/ranks.py" <<'PYTHON'
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

dist.init_process_group("gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
mesh = init_device_mesh("cpu", (ranks,))

# name: loss, whether its gradient is right
losses = {
    "(a - b).square().mean()": (lambda a, b: (a - b).square().mean(), True),
    "mse_loss": (F.mse_loss, False),
    "mse_loss, reduction=sum": (lambda a, b: F.mse_loss(a, b, reduction="sum"), True),
    "smooth_l1_loss": (F.smooth_l1_loss, False),
    "huber_loss": (F.huber_loss, False),
    "l1_loss": (F.l1_loss, True),
    "soft_margin_loss": (lambda a, b: F.soft_margin_loss(a, b.sign()), False),
    "binary_cross_entropy": (lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid()), False),
    "binary_cross_entropy_with_logits": (lambda a, b: F.binary_cross_entropy_with_logits(a, b.sigmoid()), True),
}


def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(16, 8, bias=False)


if rank == 0:
    print(f"torch {torch.__version__}, {ranks} ranks", flush=True)
start = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
for name, (loss, right) in losses.items():
    plain = layer()
    expected = loss(plain.weight, start)
    expected.backward()

    sharded = fully_shard(layer(), mesh=mesh)
    value = loss(sharded.weight, distribute_tensor(start, mesh, sharded.weight.placements))
    value.backward()
    value, gradient = value.full_tensor(), sharded.weight.grad.full_tensor()
    times = (gradient.norm() / plain.weight.grad.norm()).item()
    if rank == 0:
        print(f"{name}: {value.item():.5f}, without shards {expected.item():.5f}; gradient {times:.3f} times that without", flush=True)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, plain.weight.grad * (1 if right else ranks))
dist.barrier()
os._exit(0)  # In torch 2.15.0 a rank aborts now and then while it shuts down.
PYTHON
for ranks in 1 2 4; do
  OMP_NUM_THREADS=1 "$work/venv/bin/torchrun" --standalone --nproc-per-node "$ranks" "$work/ranks.py"
done
