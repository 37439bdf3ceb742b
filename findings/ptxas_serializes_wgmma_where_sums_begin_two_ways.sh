#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), nvdisasm 13.2.51 (nvidia-cuda-nvdisasm), no GPU. A loop of Hopper's matrix instructions
# (wgmma) adds to sums that begin either with another product, scaled, or with zeros. Written with a branch, the two beginnings
# meet in front of wgmma.fence, which is what the PTX manual asks for where other instructions have written the registers;
# a fence at the end of each way changes nothing. ptxas says "serialized due to non wgmma instructions defining accumulator
# registers" (C7515) and waits for each product before it starts the next one, in the loop, too, which neither way
# touches: 33 waits for 33 products. With the earlier product made in any case and multiplied by the scale or by 0, which is a
# select of one register, it waits as the PTX does, 10 times: before the scaling, once a turn, and at the end. (The select is
# not the branch for infinities and NaN.)
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
SUMS = 64  # of a thread: 64 x 128 of a warpgroup
HEAD = f"""
.version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 a, .param .u64 b, .param .u32 turns, .param .u32 first, .param .f32 scale, .param .u64 out)
.maxntid 384
.minnctapersm 1
{{
.reg .b64 %rd<12>;
.reg .b32 %r<8>;
.reg .pred adds, overwrites, begins, goes_on;
.reg .f32 %s, %f<{SUMS}>;
ld.param.u64 %rd1, [a];
ld.param.u64 %rd2, [b];
ld.param.u32 %r1, [turns];
ld.param.u32 %r2, [first];
ld.param.f32 %s, [scale];
ld.param.u64 %rd3, [out];
cvta.to.global.u64 %rd3, %rd3;
setp.ne.u32 begins, %r2, 0;
setp.eq.u32 adds, 0, 0;
setp.ne.u32 overwrites, 0, 0;
"""
FENCE, COMMIT, WAIT = "wgmma.fence.sync.aligned;", "wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned {};"


def product(a, b, adds):
    sums = ", ".join(f"%f{i}" for i in range(SUMS))
    return f"wgmma.mma_async.sync.aligned.m64n{2 * SUMS}k16.f32.bf16.bf16 {{{sums}}}, {a}, {b}, {adds}, 1, 1, 0, 0;"


def kernel(beginning):
    earlier = [FENCE, product("%rd1", "%rd2", "overwrites"), COMMIT, WAIT.format(0)]
    earlier += [f"mul.f32 %f{i}, %f{i}, %s;" for i in range(SUMS)]
    zeros = [f"mov.f32 %f{i}, 0f00000000;" for i in range(SUMS)]
    each = [FENCE] if beginning == "branch, a fence on each way" else []
    if beginning == "select":
        lines = ["selp.f32 %s, %s, 0f00000000, begins;", *earlier]
    else:
        lines = ["@!begins bra ZEROS;", *earlier, *each, "bra MEET;", "ZEROS:", *zeros, *each, "MEET:"]
    lines += [FENCE, "mov.u32 %r3, 0;", "LOOP:", FENCE]
    for i in range(4):
        lines += [f"add.u64 %rd4, %rd1, {2 * i};", f"add.u64 %rd5, %rd2, {2 * i};", product("%rd4", "%rd5", "adds")]
    lines += [COMMIT, WAIT.format(1), "add.u32 %r3, %r3, 1;", "setp.lt.u32 goes_on, %r3, %r1;", "@goes_on bra LOOP;", WAIT.format(0)]
    lines += ["mov.u32 %r4, %tid.x;", "mul.wide.u32 %rd6, %r4, 4;", "add.s64 %rd7, %rd3, %rd6;"]
    lines += [f"st.global.f32 [%rd7+{4096 * i}], %f{i};" for i in range(SUMS)]
    return HEAD + "\n".join([*lines, "ret;", "}"]) + "\n"


# ptxas unrolls the loop eight times: 1 + 8 * 4 products, and as written 1 + 8 + 1 waits.
for beginning, wanted in (("branch", 33), ("branch, a fence on each way", 33), ("select", 10)):
    (work / "kernel.ptx").write_text(kernel(beginning))
    result = subprocess.run([ptxas, "-arch=sm_90a", "-v", work / "kernel.ptx", "-o", work / "kernel.cubin"], text=True,
                            capture_output=True, check=True)
    listing = subprocess.run([nvdisasm, "-c", work / "kernel.cubin"], text=True, capture_output=True, check=True).stdout
    products, waits = (len(re.findall(rf"^\s+/\*\w+\*/\s+(?:@!?\S+\s+)?{name}", listing, re.M))
                       for name in ("HGMMA", r"WARPGROUP\.DEPBAR"))
    says = re.findall(r"\((C75\d\d)\)", result.stderr)
    print(f"{beginning:28} {products} products, {waits} waits for them; ptxas says {says}")
    assert (products, waits) == (33, wanted) and says == (["C7515"] if waits == products else []), result.stderr
PYTHON
