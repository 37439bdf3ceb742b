#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), no GPU. 65,536 registers of a multiprocessor over 544 threads are 120 each, so a kernel of
# 16 warps to which a 17th is added, which only starts copies for instance, might be expected to keep nearly all of its 128.
# ptxas gives it 96: warps lie on four schedulers with 16,384 registers each, and one of them has five of the 17. So warps 18
# to 20 cost nothing more, and the 21st takes the next step, to 80. The kernel here holds 200 values; what it does not get
# is spilled.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet nvidia-cuda-nvcc==13.0.88
"$work/venv/bin/python" - "$work" <<'PYTHON'
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

work = Path(sys.argv[1])
ptxas = next(Path(sysconfig.get_path("purelib")).rglob("bin/ptxas"))
VALUES = range(200)


def kernel(warps, target):
    return f"""
.version 8.0
.target {target}
.address_size 64
.visible .entry hold(.param .u64 in, .param .u64 out)
.maxntid {32 * warps}, 1, 1
.minnctapersm 1
{{
.reg .b64 %rd<3>;
.reg .f32 %f<{len(VALUES)}>;
ld.param.u64 %rd1, [in];
ld.param.u64 %rd2, [out];
{''.join(f'ld.volatile.global.f32 %f{i}, [%rd1+{4 * i}];' for i in VALUES)}
bar.sync 0;
{''.join(f'st.volatile.global.f32 [%rd2+{4 * i}], %f{i};' for i in VALUES)}
ret;
}}
"""


def registers(warps, target):
    source = work / "hold.ptx"
    source.write_text(kernel(warps, target))
    result = subprocess.run([ptxas, f"-arch={target}", "-v", source, "-o", work / "hold.cubin"], text=True, capture_output=True, check=True)
    used = int(re.search(r"Used (\d+) registers", result.stderr).group(1))
    spilled = int(re.search(r"(\d+) bytes spill stores", result.stderr).group(1))
    print(f"{target}: {warps} warps, 65536 / {32 * warps} = {65536 // (32 * warps)}: {used} registers, {spilled} bytes spilled")
    return used


print(subprocess.run([ptxas, "--version"], text=True, capture_output=True).stdout.splitlines()[-2])
for target in ("sm_80", "sm_90a"):
    assert [registers(warps, target) for warps in (16, 17, 18, 19, 20, 21, 24)] == [128, 96, 96, 96, 96, 80, 80]
PYTHON
