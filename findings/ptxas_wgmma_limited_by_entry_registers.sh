#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), no GPU. A warpgroup may raise its registers with setmaxnreg above what the kernel's threads
# start with, and the sums of its matrix instructions then use them. But a single wgmma instruction must fit into the registers
# that the kernel starts with: m64n256k16 is refused ("Insufficient registers (128)") in a block of 512 threads whose warpgroup
# has just asked for 200, with a target of 154 as advice, while two of m64n128k16, with as many sums, compile.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet nvidia-cuda-nvcc==13.0.88
"$work/venv/bin/python" - "$work" <<'PYTHON'
import subprocess
import sys
import sysconfig
from pathlib import Path

work = Path(sys.argv[1])
ptxas = next(Path(sysconfig.get_path("purelib")).rglob("bin/ptxas"))


def kernel(threads, registers, columns, count):
    """The first warpgroup asks for `registers` and multiplies by `count` instructions of so many columns."""
    each = columns // 2
    sums = range(each * count)
    multiply = "".join(
        f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16 "
        f"{{{', '.join(f'%f{i}' for i in range(at, at + each))}}}, %rd1, %rd2, 1, 1, 1, 0, 0;\n"
        for at in range(0, each * count, each))
    return f"""
.version 8.0
.target sm_90a
.address_size 64
.visible .entry product(.param .u64 a, .param .u64 b, .param .u64 out)
.maxntid {threads}, 1, 1
.minnctapersm 1
{{
.reg .b64 %rd<4>;
.reg .f32 %f<{len(sums)}>;
.reg .b32 %r<1>;
.reg .pred %others;
ld.param.u64 %rd1, [a];
ld.param.u64 %rd2, [b];
ld.param.u64 %rd3, [out];
mov.u32 %r0, %tid.x;
setp.ge.u32 %others, %r0, 128;
@%others bra rest;
setmaxnreg.inc.sync.aligned.u32 {registers};
{''.join(f'mov.f32 %f{i}, 0f00000000;' for i in sums)}
wgmma.fence.sync.aligned;
{multiply}wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
{''.join(f'st.global.f32 [%rd3+{4 * i}], %f{i};' for i in sums)}
ret;
rest:
setmaxnreg.dec.sync.aligned.u32 24;
ret;
}}
"""


def compiled(*arguments):
    source = work / "product.ptx"
    source.write_text(kernel(*arguments))
    result = subprocess.run([ptxas, "-arch=sm_90a", "-v", source, "-o", work / "product.cubin"], text=True, capture_output=True)
    said = [line for line in result.stderr.splitlines() if "Insufficient" in line or "Used" in line]
    print("%d threads, %d registers asked for, m64n%dk16 x %d: %s" % (*arguments, said[0] if said else result.stderr))
    return result.returncode == 0, result.stderr


print(subprocess.run([ptxas, "--version"], text=True, capture_output=True).stdout.splitlines()[-2])
assert compiled(384, 240, 256, 1)[0], "168 registers at the start"
good, said = compiled(512, 200, 256, 1)
assert not good and "Insufficient registers (128)" in said and "154 or higher" in said
good, said = compiled(512, 200, 128, 2)
assert good and "spill" not in said.replace("0 bytes spill stores, 0 bytes spill loads", "")
good, said = compiled(640, 152, 160, 1)
assert not good and "Insufficient registers (96)" in said
assert compiled(640, 152, 80, 2)[0]
PYTHON
