#!/usr/bin/env bash
# torch 2.9.1 with gloo, CPU, 4 ranks. all_reduce of bfloat16 rounds after each addition, and ranks are added in another order
# for other parts of a tensor: vectors that are constant on every rank come back with two values. Two equal gradients of
# one parameter get different sums by where they lie, so the bits of a sharded run depend on how shards are cut.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 numpy==2.3.5
cat > "$work/sums.py" <<'PYTHON'
import os

import torch
import torch.distributed
import torch.multiprocessing

VALUES = (1.5410, 0.6614, 0.3923, 0.8033)


def run(rank, directory):
    torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=4)
    seen = {}
    for dtype in (torch.float32, torch.bfloat16):
        summed = torch.full((1 << 16,), VALUES[rank], dtype=dtype)
        torch.distributed.all_reduce(summed)
        seen[dtype] = summed.unique().tolist()
        if rank == 0:
            print(f"{dtype}: {seen[dtype]}", flush=True)
    assert len(seen[torch.bfloat16]) > 1
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    print(f"torch {torch.__version__}")
    torch.multiprocessing.spawn(run, (os.path.dirname(__file__),), nprocs=4)
PYTHON
"$work/venv/bin/python" "$work/sums.py"
