#!/usr/bin/env bash
# torch 2.9.1, CPU. AdamW on bfloat16 parameters: fused=True keeps the moments in float within the step and rounds them
# when it stores them; foreach and the plain loop round each operation's result. After three steps 11 % of the parameters have
# other bits; foreach and the loop agree to the bit. Who compares a run with a recorded one needs to know which it was.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1
"$work/venv/bin/python" - <<'PYTHON'
import torch

def train(**kind):
    random = torch.Generator().manual_seed(1)
    parameter = torch.nn.Parameter((torch.randn(100_000, generator=random) * 0.02).bfloat16())
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.01, **kind)
    for _ in range(3):
        parameter.grad = torch.randn(100_000, generator=random).bfloat16() * 1e-2
        optimizer.step()
    return parameter.detach()

fused, foreach, loop = train(fused=True), train(foreach=True), train(foreach=False)
print(f"torch {torch.__version__}")
print(f"of 100000 parameters differ: fused and foreach {(fused != foreach).sum()}, foreach and loop {(foreach != loop).sum()}")
assert (fused != foreach).sum() > 1000 and (foreach != loop).sum() == 0
PYTHON
