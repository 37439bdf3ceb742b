#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), nvdisasm 13.2.51 (nvidia-cuda-nvdisasm), no GPU. A loop stores to shared memory and makes that
# known to the asynchronous proxy (fence.proxy.async), as a kernel does that writes operands for matrix instructions or for
# TMA. Behind the loop, once, the kernel copies 16 bytes from device memory, either by cp.async or by a bulk copy
# (cp.async.bulk). With a cp.async anywhere in the kernel, which ran after all fences here, ptxas puts four loads from
# shared memory that are never executed (@!PT LDS RZ, [RZ]) in front of every such fence, in the loop, too; with the bulk
# copy, and with neither, there are none. The name of the fence does not tell that another instruction makes it dearer.
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
COPIES = {
    "no copy": "",
    "cp.async": "cp.async.cg.shared.global [%place], [%rd1], 16; cp.async.wait_all;",
    "cp.async.bulk": """
mbarrier.init.shared.b64 [%barrier], 1;
mbarrier.arrive.expect_tx.shared.b64 _, [%barrier], 16;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%place], [%rd1], 16, [%barrier];
wait: mbarrier.try_wait.parity.shared.b64 %more, [%barrier], 0;
@!%more bra wait;""",
}


def kernel(copy):
    return f"""
.version 8.0
.target sm_90a
.address_size 64
.visible .entry fill(.param .u64 in, .param .u64 out, .param .u32 turns)
{{
.reg .b64 %rd1, %rd2;
.reg .b32 %turns, %thread, %place, %barrier, %value;
.reg .pred %more;
.shared .align 16 .b8 memory[4112];
ld.param.u64 %rd1, [in];
ld.param.u64 %rd2, [out];
ld.param.u32 %turns, [turns];
mov.u32 %thread, %tid.x;
mov.u32 %place, memory;
add.u32 %barrier, %place, 4096;
shl.b32 %value, %thread, 4;
add.u32 %place, %place, %value;
turn:
.pragma "nounroll";
st.shared.u32 [%place], %turns;
fence.proxy.async;
bar.sync 0;
sub.u32 %turns, %turns, 1;
setp.ne.u32 %more, %turns, 0;
@%more bra turn;
{copy}
ld.shared.u32 %value, [%place];
st.global.u32 [%rd2], %value;
ret;
}}
"""


def idle_loads(copy):
    (work / "fill.ptx").write_text(kernel(copy))
    subprocess.run([ptxas, "-arch=sm_90a", work / "fill.ptx", "-o", work / "fill.cubin"], check=True)
    listing = subprocess.run([nvdisasm, "-c", work / "fill.cubin"], text=True, capture_output=True, check=True).stdout
    before = listing[:listing.index("FENCE.VIEW.ASYNC")]
    return len(re.findall(r"@!PT LDS RZ", before))


for name, copy in COPIES.items():
    loads = idle_loads(copy)
    print(f"{name}: {loads} idle loads in front of the loop's fence")
    assert loads == (4 if name == "cp.async" else 0)
PYTHON
