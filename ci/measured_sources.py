#!/usr/bin/env python3
"""Which sources the numbers of a recorded GPU result depend on; standard library only.

measured_sources.py --list NAME      prints "SHA-256  path" of each of them, sorted; NAME: a result file without .json,
                                     or a GPU test program; the hash is of the code without its comments
measured_sources.py --names          prints the names of all results
measured_sources.py --stamp FILE     writes into a result file what it was measured on: the sources at hand
measured_sources.py --check FOLDER   says for each result of FOLDER whether it was measured on the sources at hand;
                                     exits 1 unless all were

A result depends on the files it starts from, on what they include, and on the sources that define what an included
header declares: those beside it whose names begin with the header's, and those beside it or in folders below that define
one of its functions and include it, also through others. Only optimized/, bench/ and correctness/gpu/ count: from core/
and reference/ come types, error messages and the values that a result is checked against, which the tests on a CPU hold
in place. So a commit on the CPU side outdates no result, and neither does another comment.
"""

import hashlib
import json
import re
import sys
from functools import lru_cache
from pathlib import Path

from cpp_text import code_of, functions

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("optimized/", "bench/", "correctness/gpu/")
SUFFIXES = (".cu", ".cpp")

# What every row of the GPU table runs through: measuring, checking and the peers.
BENCH = ["bench/gpu/*", "bench/providers/bitsandbytes*", "bench/providers/cublas.cpp", "bench/providers/dense_product*"]
# Only the operations are the provider's own; so it counts with them, and not all that it includes.
PROVIDER = ["bench/providers/qshard.cpp"]
DEQUANTIZE = ["optimized/dequantize.cu"]
QUANTIZE = ["optimized/quantize.cu", "optimized/double_quant.cu"]
LINEAR = ["optimized/linear4bit/linear4bit_plan.cpp"]
RESULTS = {
    "dequantize": DEQUANTIZE,
    "quantize": QUANTIZE,
    "linear4bit": LINEAR,
    "linear4bit_backward": LINEAR,
    "ladder": DEQUANTIZE + ["bench/ladder/*", "bench/providers/ladder.cpp", "bench/providers/example_plugin/naive_dequantize.cu"],
    "dequantize_models": DEQUANTIZE,
    "quantize_models": QUANTIZE,
    "blocksizes": DEQUANTIZE + QUANTIZE,
    "dtypes": DEQUANTIZE + QUANTIZE,
    "linear4bit_models": LINEAR,
    "linear4bit_one_row": LINEAR,
    "linear4bit_middle": LINEAR,
    "linear4bit_portable": LINEAR,
    "linear4bit_half_chunks": LINEAR,
    "linear4bit_sustained": LINEAR,
    "dequantize_random": DEQUANTIZE,
    "quantize_random": QUANTIZE,
    "reference": DEQUANTIZE + QUANTIZE + ["bench/providers/reference.cpp"],
    "step_kernels": ["bench/gpu/step_kernel.cpp"],
    "lora": ["bench/gpu/lora_kernels.cpp"],
    "attention": ["bench/gpu/attention_rows.cpp"],
    "generate": ["bench/generate/main.cpp"],
    "sharded_step": ["bench/sharded_step/main.cpp"],
    "sharded_step_transports": ["bench/sharded_step/main.cpp"],
    "sharded_step_no_p2p": ["bench/sharded_step/main.cpp"],
    "sharded_step_idle": ["bench/sharded_step/main.cpp"],
    "sharded_step_budget": ["bench/sharded_step/main.cpp"],
    "sharded_step_offload": ["bench/sharded_step/main.cpp"],
    "sharded_step_one_gpu": ["bench/sharded_step/main.cpp"],
    "sharded_step_two_gpus": ["bench/sharded_step/main.cpp"],
    "sharded_step_four_gpus": ["bench/sharded_step/main.cpp"],
    "shard_layout": ["bench/shard_layout/main.cpp", "bench/shard_layout/byte_pattern.cu"],
}
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def counts(path):
    return path.startswith(ROOMS) and (ROOT / path).is_file()


@lru_cache(maxsize=None)
def text_of(path):
    return (ROOT / path).read_text()


@lru_cache(maxsize=None)
def includes(path):
    return frozenset(name for name in INCLUDE.findall(text_of(path)) if counts(name))


@lru_cache(maxsize=None)
def functions_of(path):
    return functions(text_of(path))


@lru_cache(maxsize=None)
def sources_below(folder):
    """Of this folder of the repository and those below."""
    return sorted(str(p.relative_to(ROOT)) for suffix in SUFFIXES for p in (ROOT / folder).rglob(f"*{suffix}"))


def defines(source, header):
    """Whether a source defines what a header declares."""
    path = Path(source)
    if path.parent == Path(header).parent and path.name.startswith(Path(header).stem):
        return True
    return not functions_of(source)[1].isdisjoint(functions_of(header)[0]) and header in closure([source], following=includes)


@lru_cache(maxsize=None)
def neighbours(path):
    """What a file includes, and the sources that define what a header declares."""
    if not path.endswith(".h"):
        return includes(path)
    return includes(path).union(source for source in sources_below(Path(path).parent) if defines(source, path))


def closure(starts, leaves=(), following=neighbours):
    """All files reached from `starts` by `following`; from `leaves` that are no starts nothing is followed."""
    seen = set(leaves) - set(starts)
    open_files = list(starts)
    while open_files:
        path = open_files.pop()
        if path in seen:
            continue
        seen.add(path)
        open_files.extend(following(path))
    return sorted(seen)


def expand(patterns):
    found = [str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern) if p.is_file()]
    if not found and patterns:
        sys.exit(f"measured_sources.py: no file matches {patterns}")
    return found


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_source(name):
    for folder in ("correctness/gpu", "correctness"):
        if (ROOT / folder / f"{name}.cpp").is_file():
            return f"{folder}/{name}.cpp"
    return None


def sources_of(name):
    """{path: digest} of what the result or test program `name` depends on; None where there is no such name."""
    if name in RESULTS:
        paths = closure(expand(RESULTS[name]), expand(BENCH + PROVIDER))
    elif (source := test_source(name)) is not None:
        paths = closure([source])
    else:
        return None
    return {path: digest(code_of(text_of(path))) for path in paths}


def total_hash(sources):
    return digest("".join(f"{code}  {path}\n" for path, code in sorted(sources.items())))


def stamp_of(name):
    sources = sources_of(name)
    return {"hash": total_hash(sources), "files": sources}


def parts_of(path):
    """(name, recorded stamp or None) of what a result file holds: itself, or each program of tests.json."""
    content = json.loads(path.read_text())
    if "programs" in content:
        return [(name, program.get("measured")) for name, program in content["programs"].items()]
    return [(path.stem, content.get("measured"))] if "benchmarks" in content else []


def moved_or_same(name, folder):
    """Files that differ from those of a run from before stamps, by content alone: a moved file is the same file."""
    listed = folder / "sources.sha256"
    recorded = {line.split()[0] for line in listed.read_text().splitlines()} if listed.is_file() else set()
    return [path for path in sources_of(name) if digest(text_of(path)) not in recorded]


def differing(name, stamp, folder):
    """Stamps from before comments were left out hold hashes of whole files."""
    if stamp is None:
        return moved_or_same(name, folder)
    now, then = sources_of(name), stamp["files"]
    same = {path for path in now if then.get(path) in (now[path], digest(text_of(path)))}
    return sorted((now.keys() | then.keys()) - same)


def check(folder):
    """Prints a line a result; returns the names that hold."""
    held = set()
    for path in sorted(folder.glob("*.json")):
        for name, stamp in parts_of(path):
            label = name if path.stem == name else f"{path.stem}, {name}"
            if sources_of(name) is None:
                print(f"  {label}: there is no such benchmark or test any more")
                continue
            files = differing(name, stamp, folder)
            if not files:
                held.add(name)
                print(f"  {label}: measured on these sources")
                continue
            shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
            print(f"  {label}: to be recorded again; other then: {shown}")
    return held


def all_names():
    tests = [p.stem for p in sorted((ROOT / "correctness/gpu").glob("*_test.cpp"))]
    return [*RESULTS, *tests, "bench_rows_test"]


def stamp(path):
    text = path.read_text()
    content = json.loads(text)
    if '"measured"' in text:
        sys.exit(f"measured_sources.py: {path} is stamped already: record it again")
    if "programs" in content:
        for name, program in content["programs"].items():
            program["measured"] = stamp_of(name)
        path.write_text(json.dumps(content, indent=1) + "\n")
    else:  # one repetition a line stays one repetition a line
        path.write_text('{"measured": ' + json.dumps(stamp_of(path.stem), indent=1) + ",\n" + text.removeprefix("{"))


def main(arguments):
    match arguments:
        case ["--list", name]:
            sources = sources_of(name)
            if sources is None:
                sys.exit(f"measured_sources.py: there is no result and no GPU test named {name}; see --names")
            for path, digest in sources.items():
                print(f"{digest}  {path}")
        case ["--names"]:
            print("\n".join(all_names()))
        case ["--stamp", folder]:
            stamp(Path(folder))
        case ["--check", folder]:
            held = check(Path(folder))
            sys.exit(0 if held >= set(all_names()) else 1)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
