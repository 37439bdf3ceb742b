#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), nvdisasm 13.2.51 (nvidia-cuda-nvdisasm), no GPU. A kernel multiplies tiles in a loop: matrix
# instructions (wgmma) whose operands lie in a stage of shared memory, then, when a tile is done, a wait until a count in device
# memory is high enough. Stage and addresses are the same in all threads, and wgmma takes them from uniform registers. Where
# all lanes wait for what a shuffle gives them of lane 0's load, the products' loop works on uniform registers alone. Where
# lane 0 waits by itself and the others at a __syncwarp() (bar.warp.sync) behind it, which is how one thread is usually made
# to poll, the products' loop moves every operand from a vector to a uniform register (R2UR), four times for each
# instruction, although all lanes are together again when the next tile begins.
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
PRODUCTS = 4
WAITS = {
    "all lanes wait": """
poll:
ld.acquire.gpu.global.u32 %seen, [%rd1];
shfl.sync.idx.b32 %seen, %seen, 0, 31, 0xffffffff;
setp.lt.u32 %again, %seen, %tile;
@%again bra poll;
""",
    "lane 0 waits": """
@%others bra met;
poll:
ld.acquire.gpu.global.u32 %seen, [%rd1];
setp.lt.u32 %again, %seen, %tile;
@%again bra poll;
met:
bar.warp.sync 0xffffffff;
""",
}


def product(i):
    return f"""
add.u64 %a, %first_a, {2 * i};
add.u64 %b, %first_b, {2 * i};
wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%f0, %f1, %f2, %f3}}, %a, %b, 1, 1, 1, 0, 0;"""


def kernel(wait):
    return f"""
.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 memory[];
.visible .entry multiply(.param .u64 count, .param .u64 out, .param .u32 tiles, .param .u32 steps)
{{
.reg .b64 %rd<3>, %a, %b, %first_a, %first_b, %far;
.reg .b32 %tiles, %steps, %tile, %left, %stage, %place, %lane, %seen, %at;
.reg .f32 %f<4>;
.reg .pred %others, %again, %more, %inside;
ld.param.u64 %rd1, [count];
ld.param.u64 %rd2, [out];
ld.param.u32 %tiles, [tiles];
ld.param.u32 %steps, [steps];
mov.u32 %lane, %tid.x;
and.b32 %lane, %lane, 31;
setp.ne.u32 %others, %lane, 0;
mov.u32 %tile, 0;
mov.u32 %stage, 0;
tile_loop:
mov.f32 %f0, 0f00000000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
mov.u32 %left, %steps;
step_loop:
.pragma "nounroll";
mov.u32 %place, memory;
mul.lo.u32 %at, %stage, 16384;
add.u32 %place, %place, %at;
shr.u32 %place, %place, 4;
and.b32 %place, %place, 0x3fff;
cvt.u64.u32 %far, %place;
or.b64 %first_a, %far, 0x4000004000010000;
add.u64 %first_b, %first_a, 512;
wgmma.fence.sync.aligned;
{''.join(product(i) for i in range(PRODUCTS))}
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
add.u32 %stage, %stage, 1;
setp.lt.u32 %inside, %stage, 5;
selp.b32 %stage, %stage, 0, %inside;
sub.u32 %left, %left, 1;
setp.ne.u32 %more, %left, 0;
@%more bra step_loop;
add.u32 %tile, %tile, 1;
{wait}
st.global.f32 [%rd2], %f0;
setp.lt.u32 %more, %tile, %tiles;
@%more bra tile_loop;
ret;
}}
"""


def moves(wait):
    """From vector to uniform registers between the first product of the loop and the last."""
    (work / "multiply.ptx").write_text(kernel(wait))
    subprocess.run([ptxas, "-arch=sm_90a", work / "multiply.ptx", "-o", work / "multiply.cubin"], check=True)
    listing = subprocess.run([nvdisasm, "-c", work / "multiply.cubin"], text=True, capture_output=True, check=True).stdout
    assert len(re.findall(r"\bHGMMA", listing)) == PRODUCTS
    return len(re.findall(r"\bR2UR\b", listing[:listing.rindex("HGMMA")]))


for name, wait in WAITS.items():
    found = moves(wait)
    print(f"{name}: {found} moves to uniform registers for {PRODUCTS} products")
    assert found == (4 * PRODUCTS if name == "lane 0 waits" else 0)
PYTHON
