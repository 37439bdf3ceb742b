#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), no GPU. Where ptxas makes Hopper's matrix instructions wait for each other for want of
# registers, it says so as "info", which no option makes an error: a loop of two groups of products with 120 registers a thread
# is "serialized" (C7512) and compiles with exit status 0 under --warning-as-error, and -w, which inhibits warnings, still
# prints it. Registers that spill, which --warn-on-spills reports, do make the exit status 255, in a loop of more sums with 88
# registers. With 144 registers nothing is serialized. So a build that treats warnings as errors passes; whoever wants to know
# must read ptxas' output.
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


def kernel(sums, instructions, registers):
    """A loop of two groups, each of two steps of so many instructions beside each other, operands loaded to registers."""
    each = sums // instructions
    operands = [[f"%a{step}_{word}" for word in range(4)] for step in range(4)]
    lines = ["begin:"]
    for group in range(2):
        steps = range(2 * group, 2 * group + 2)
        lines.append("wgmma.wait_group.sync.aligned 1;")
        lines += [f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{', '.join(operands[step])}}}, [%r1+{32 * step}];" for step in steps]
        lines.append("wgmma.fence.sync.aligned;")
        for step in steps:
            for part in range(instructions):
                names = ", ".join(f"%f{part * each + i}" for i in range(each))
                lines.append(f"wgmma.mma_async.sync.aligned.m64n{2 * each}k16.f32.bf16.bf16 {{{names}}}, "
                             f"{{{', '.join(operands[step])}}}, %rd1, 1, 1, 1, 0;")
        lines.append("wgmma.commit_group.sync.aligned;")
    lines += ["add.u32 %r1, %r1, 128;", "sub.u32 %r2, %r2, 1;", "setp.ne.u32 goes_on, %r2, 0;", "@goes_on bra begin;",
              "wgmma.wait_group.sync.aligned 0;"]
    lines += [f"st.global.f32 [%rd2+{4 * i}], %f{i};" for i in range(sums)]
    zeros = "\n".join(f"mov.f32 %f{i}, 0f00000000;" for i in range(sums))
    declared = ", ".join(word for step in operands for word in step)
    return f"""
.version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 b, .param .u32 turns, .param .u32 first, .param .u64 out)
.maxntid 128
.maxnreg {registers}
{{
.reg .b64 %rd<3>;
.reg .b32 %r<3>, {declared};
.reg .pred goes_on;
.reg .f32 %f<{sums}>;
ld.param.u64 %rd1, [b];
ld.param.u32 %r2, [turns];
ld.param.u32 %r1, [first];
ld.param.u64 %rd2, [out];
cvta.to.global.u64 %rd2, %rd2;
{zeros}
{chr(10).join(lines)}
ret;
}}
"""


def compile(text, *options):
    source = work / "kernel.ptx"
    source.write_text(text)
    run = subprocess.run([ptxas, "-arch=sm_90a", *options, source, "-o", work / "kernel.cubin"], capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


few, enough, far_too_few = kernel(64, 1, 120), kernel(64, 1, 144), kernel(80, 2, 88)
strict = ("--warning-as-error", "--warn-on-spills")
for name, text, options in (("120 registers", few, strict), ("120 registers", few, ("-w",)), ("144 registers", enough, strict),
                            ("88 registers, more sums", far_too_few, strict)):
    status, output = compile(text, *options)
    print(f"{name}, {' '.join(options)}: exit status {status}", *output.splitlines(), sep="\n  ")

status, output = compile(few, *strict)
assert status == 0 and "info" in output and "C7512" in output and "serialized" in output
status, output = compile(few, "-w")
assert status == 0 and "serialized" in output
status, output = compile(enough, *strict)
assert status == 0 and "serialized" not in output
status, output = compile(far_too_few, *strict)
assert status != 0 and "error" in output and "spill" in output
PYTHON
