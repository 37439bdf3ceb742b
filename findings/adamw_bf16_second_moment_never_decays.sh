#!/usr/bin/env bash
# torch 2.9.1, CPU. Where an adapter is bfloat16, torch's AdamW keeps bfloat16 moments. exp_avg_sq shrinks by 0.1 % a step
# (beta2 0.999), less than half a step of bfloat16, so it rounds back: it can grow and never shrinks. After ten steps of
# large gradients and 5,000 of gradients a hundredth of that, float32 has forgotten the large ones (1/60 of the second
# moment is left), bfloat16 has all of it, and its steps are about an eighth as long. The same with foreach and fused.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.9.1 numpy
"$work/venv/bin/python" - <<'PYTHON'
import torch

print(f"torch {torch.__version__}")
torch.set_num_threads(1)
for name, options in {"loop": dict(foreach=False), "foreach": dict(foreach=True), "fused": dict(fused=True)}.items():
    for dtype in [torch.float32, torch.bfloat16]:
        torch.manual_seed(0)
        parameter = torch.nn.Parameter((torch.randn(4096) * 0.02).to(dtype))
        optimizer = torch.optim.AdamW([parameter], lr=1e-4, **options)
        for step in range(5010):
            parameter.grad = (torch.randn(4096) * (1.0 if step < 10 else 0.01)).to(dtype)
            optimizer.step()
            if step == 9:
                large = optimizer.state[parameter]["exp_avg_sq"].double().mean().item()
        left = optimizer.state[parameter]["exp_avg_sq"].double().mean().item() / large
        print(f"{name}, {dtype}: {left:.4f} of the second moment is left after 5,000 small steps")
        assert (left < 0.03) if dtype == torch.float32 else (left > 0.99), left
PYTHON
