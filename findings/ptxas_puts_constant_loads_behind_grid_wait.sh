#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), nvdisasm 13.2.51 (nvidia-cuda-nvdisasm), no GPU. A kernel that starts before the one ahead of
# it in the stream ends (programmatic dependent launch) is written so that it loads its weights first and then waits:
# griddepcontrol.wait, cudaGridDependencySynchronize() in CUDA. Loads through const __restrict__ pointers and __ldg() become
# ld.global.nc, and to ptxas these have no order with the wait. Eight of them that stand before it in the PTX, with
# arithmetic on them, come behind it in the machine code, so that nothing is left of the head start; as plain ld.global
# they stay before it.
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
HEAD = """
.version 9.0
.target sm_90
.address_size 64
.visible .entry kernel(.param .u64 in, .param .u64 weights, .param .u64 out)
{
.reg .b64 %rd<9>;
.reg .b32 %r<2>;
.reg .f32 %f<30>;
ld.param.u64 %rd1, [in];
ld.param.u64 %rd2, [weights];
ld.param.u64 %rd3, [out];
cvta.to.global.u64 %rd4, %rd1;
cvta.to.global.u64 %rd5, %rd2;
cvta.to.global.u64 %rd6, %rd3;
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd7, %r1, 4;
add.s64 %rd8, %rd4, %rd7;
"""
END = "add.s64 %rd6, %rd6, %rd7;\nst.global.f32 [%rd6], %f0;\nret;\n}\n"


def loads_before_the_wait(load):
    lines = ["mov.f32 %f0, 0f3F800000;"]
    for i in range(8):
        lines += [f"{load}.f32 %f{i + 1}, [%rd5+{4 * i}];", f"fma.rn.f32 %f0, %f0, %f1, %f{i + 1};"]
    return "\n".join([*lines, "griddepcontrol.wait;", "ld.global.f32 %f20, [%rd8];", "mul.f32 %f0, %f0, %f20;", ""])


def order(text):
    """W for a wait and l for a load, as they come."""
    (work / "kernel.ptx").write_text(HEAD + text + END)
    subprocess.run([ptxas, "-arch=sm_90", work / "kernel.ptx", "-o", work / "kernel.cubin"], check=True)
    listing = subprocess.run([nvdisasm, "-c", work / "kernel.cubin"], text=True, capture_output=True, check=True).stdout
    return "".join("W" if found == "ACQBULK" else "l" for found in re.findall(r"\b(ACQBULK|LDG)\b", listing))


for load, wanted in {"ld.global": "llllllllWl", "ld.global.nc": "Wlllllllll"}.items():
    found = order(loads_before_the_wait(load))
    print(f"{load:13} {found}")
    assert found == wanted, wanted
PYTHON
