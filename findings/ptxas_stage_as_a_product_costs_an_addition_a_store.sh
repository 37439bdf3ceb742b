#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), nvdisasm 13.2.51 (nvidia-cuda-nvdisasm), no GPU. A loop goes round four stages of shared
# memory and stores eight times in each, at addresses that it keeps: address + stage * 28672. Every thread is at the same
# stage, and a store may add a uniform register to its address, so nothing should be left to compute. ptxas multiplies and
# adds once for each store, eight times, where it could have made the product once. Where the program keeps the product
# as a sum of its own, which grows by 28672 and goes back to 0, all eight stores add it by themselves.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet nvidia-cuda-nvcc==13.0.88 nvidia-cuda-nvdisasm==13.2.51
"$work/venv/bin/python" - "$work" <<'PYTHON'
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

work = Path(sys.argv[1])
packages = Path(sysconfig.get_path("purelib"))
ptxas, nvdisasm = (next(packages.rglob(f"bin/{name}")) for name in ("ptxas", "nvdisasm"))
STORES = range(8)


def kernel(product):
    own = "" if product else "add.u32 %offset, %offset, 28672;"
    return f"""
.version 8.0
.target sm_90a
.address_size 64
.visible .entry fill(.param .u64 out, .param .u32 turns)
{{
.reg .b64 %rd1;
.reg .b32 %turns, %thread, %place, %stage, %offset, %value, %first<8>, %to<8>;
.reg .pred %inside, %more;
.shared .align 16 .b8 memory[114688];
ld.param.u64 %rd1, [out];
ld.param.u32 %turns, [turns];
mov.u32 %thread, %tid.x;
shl.b32 %value, %thread, 7;
mov.u32 %place, memory;
add.u32 %place, %place, %value;
{''.join(f'xor.b32 %first{i}, %place, {16 * i};' for i in STORES)}
mov.u32 %stage, 0;
mov.u32 %offset, 0;
turn:
{'mul.lo.u32 %offset, %stage, 28672;' if product else ''}
{''.join(f'add.u32 %to{i}, %first{i}, %offset; st.shared.v4.u32 [%to{i}], {{%thread, %stage, %thread, %stage}};' for i in STORES)}
bar.sync 0;
add.u32 %stage, %stage, 1;
{own}
setp.lt.u32 %inside, %stage, 4;
@%inside bra stays;
mov.u32 %stage, 0;
mov.u32 %offset, 0;
stays:
sub.u32 %turns, %turns, 1;
setp.ne.u32 %more, %turns, 0;
@%more bra turn;
ld.shared.u32 %value, [%first0];
st.global.u32 [%rd1], %value;
ret;
}}
"""


def loop(product):
    (work / "fill.ptx").write_text(kernel(product))
    subprocess.run([ptxas, "-arch=sm_90a", work / "fill.ptx", "-o", work / "fill.cubin"], check=True)
    listing = subprocess.run([nvdisasm, "-c", work / "fill.cubin"], text=True, capture_output=True, check=True).stdout
    return listing[:listing.index("BAR.SYNC")]


for product in (True, False):
    text = loop(product)
    products = len(re.findall(r"IMAD R\d+, R\d+(?:\.reuse)?, 0x7000", text))
    uniform = len(re.findall(r"STS\.128 \[R\d+\+UR\d+\]", text))
    print(f"{'stage * 28672' if product else 'a sum of its own'}: {products} multiplications, {uniform} of 8 stores with a uniform register")
    assert (products, uniform) == ((8, 0) if product else (0, 8))
PYTHON
