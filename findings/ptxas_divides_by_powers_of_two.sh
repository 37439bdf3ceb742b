#!/usr/bin/env bash
# ptxas 13.0.88 (nvidia-cuda-nvcc), nvdisasm 13.2.51 (nvidia-cuda-nvdisasm), no GPU. PTX that a program writes itself is not
# simplified as C++ is: `div.u32 q, x, 65536` becomes a division by way of a reciprocal in floating point, and `rem.u32` the
# same with a multiplication more, though the divisor is a constant; `mul.hi.u32 q, x, 65536` stays a multiplication.
# `mul.lo.u32` by 65536 does become a shift, and so does a division once nvcc's C++ compiler has made PTX of it. Look-ups
# of packed 4-bit codes take their upper half this way.
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


def instructions(operation, constant, target):
    (work / "one.ptx").write_text(f"""
.version 8.0
.target {target}
.address_size 64
.visible .entry one(.param .u64 to)
{{
.reg .b64 %rd1;
.reg .b32 %x, %q;
ld.param.u64 %rd1, [to];
ld.global.u32 %x, [%rd1];
{operation} %q, %x, {constant};
st.global.u32 [%rd1], %q;
ret;
}}
""")
    subprocess.run([ptxas, f"-arch={target}", work / "one.ptx", "-o", work / "one.cubin"], check=True)
    listing = subprocess.run([nvdisasm, "-c", work / "one.cubin"], text=True, capture_output=True, check=True).stdout
    names = re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\d+ +)?([A-Z0-9.]+)", listing, re.MULTILINE)
    arithmetic = ("I2F", "F2I", "MUFU", "SHF", "LEA", "IMAD.HI", "IMAD.SHL")
    return [name for name in names[:names.index("EXIT")] if name.startswith(arithmetic)]


for target in ("sm_80", "sm_90a"):
    seen = {}
    for operation, constant in (("shr.u32", 16), ("mul.lo.u32", 65536), ("mul.hi.u32", 65536), ("div.u32", 65536), ("rem.u32", 65536)):
        seen[operation] = instructions(operation, constant, target)
        print(f"{target}: {operation} by {constant}: {' '.join(seen[operation])}")
    assert [name.split(".")[0] for name in seen["shr.u32"]] == ["SHF"]
    assert not any(name.startswith(("I2F", "MUFU", "IMAD.HI")) for name in seen["mul.lo.u32"])
    assert seen["mul.hi.u32"] == ["IMAD.HI.U32"]
    for operation in ("div.u32", "rem.u32"):
        kinds = [name.split(".")[0] for name in seen[operation]]
        assert "I2F" in kinds and "MUFU" in kinds and "F2I" in kinds and seen[operation].count("IMAD.HI.U32") == 2
PYTHON
