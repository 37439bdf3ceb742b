"""Writes the result files in tests/data: `python -m reports.tests.make_data`.

The numbers are made up, from a fixed seed, in the formats of Google Benchmark 1.7, the gate, the trainer and
`qshard plan`; the device name says so. They show what the figures must cope with, and nothing about any hardware.
"""

import json
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
SHAPES = [(1024, 1024), (4096, 4096), (8192, 8192), (28672, 8192)]
COPY, PRODUCT = 4.05e12, 7.1e14
CONTEXT = {
    "date": "2026-11-20T10:00:00+00:00",
    "host_name": "example",
    "executable": "./dequantize_bench",
    "num_cpus": 16,
    "mhz_per_cpu": 2600,
    "device": "Made-up GPU (test data)",
    "driver": "580.00",
    "clock_sm_mhz": "1980",
    "clock_mem_mhz": "3201",
    "copy_bytes_per_second": str(COPY),
    "read_bytes_per_second": "4.3e12",
    "write_bytes_per_second": "4.1e12",
    "product_flops_per_second": str(PRODUCT),
    "source_hash": "0123456789abcdef0123456789abcdef",
    "command": "ci/gpu --repetitions 9",
}
LADDER = [
    ("one_byte_a_thread", 0.11, "as the reference reads: one byte, two values"),
    ("shared_table", 0.27, "the 16 values in shared memory instead of a branch tree"),
    ("vector_loads", 0.62, "16 bytes a load, 64 bytes a store"),
    ("scales_once", 0.91, "one scale a warp instead of one a thread"),
]


def rows(random, name: str, seconds: float, counters: dict, repetitions: int = 9, label: str = "") -> list[dict]:
    """The repetitions of one benchmark as Google Benchmark writes them."""
    result = []
    for index in range(repetitions):
        time = seconds * (1.0 + abs(random.normal(0.0, 0.006)) + 0.0005 * index)
        row = {
            "name": f"{name}/manual_time",
            "run_name": f"{name}/manual_time",
            "run_type": "iteration",
            "repetitions": repetitions,
            "repetition_index": index,
            "threads": 1,
            "iterations": 100,
            "real_time": round(time * 1e6, 6),
            "cpu_time": round(time * 1e6 + 3, 6),
            "time_unit": "us",
        }
        row |= {key: value / time if key.endswith("per_second") else value for key, value in counters.items()}
        result.append(row | ({"label": label} if label else {}))
    return result


def dequantize(random) -> list[dict]:
    result = []
    for dtype, width in (("bf16", 2.0), ("fp32", 4.0)):
        for n, k in SHAPES:
            moved = n * k * (0.5 + 4 / 64 + width)
            for provider, share in (("qshard", 0.9), ("bitsandbytes", 0.37), ("reference", 0.02)):
                seconds = moved / (share * COPY) + 3e-6
                counters = {
                    "bytes_per_second": moved,
                    "flops_per_second": n * k,
                    "copy_fraction": moved / seconds / COPY,
                }
                name = f"dequantize/provider:{provider}/n:{n}/k:{k}/blocksize:64/dtype:{dtype}/nested:1"
                result += rows(random, name, seconds, counters)
    return result


def linear(random) -> list[dict]:
    result = []
    for n, k in SHAPES[1:]:
        for count in (1, 4, 16, 64, 1024):
            weight_bytes, flops = n * k * 0.5625, 2.0 * count * n * k
            moved = weight_bytes + 2 * count * (n + k)
            for provider, share in (("qshard", 0.8), ("bitsandbytes", 0.6 if count < 64 else 0.78)):
                seconds = max(moved / (share * COPY), flops / (share * PRODUCT)) + 4e-6
                counters = {
                    "bytes_per_second": moved,
                    "flops_per_second": flops,
                    "weight_bytes": weight_bytes,
                    "copy_fraction": moved / seconds / COPY,
                    "product_fraction": flops / seconds / PRODUCT,
                }
                if (n, count, provider) != (28672, 1024, "bitsandbytes"):
                    result += rows(
                        random, f"linear4bit/provider:{provider}/rows:{count}/n:{n}/k:{k}", seconds, counters
                    )
    return result


def ladder(random) -> list[dict]:
    moved = 8192 * 8192 * 2.5625
    shape = "n:8192/k:8192/blocksize:64/dtype:bf16/nested:1"
    result = []
    for step, (version, share, reason) in enumerate(LADDER, start=1):
        name = f"dequantize_ladder/provider:qshard/step:{step}/version:{version}/{shape}"
        result += rows(
            random, name, moved / (share * COPY), {"bytes_per_second": moved, "copy_fraction": share}, 9, reason
        )
    return result


def gpu() -> dict:
    random = np.random.default_rng(1)
    failed = {
        "name": "quantize/provider:bitsandbytes/n:64/k:64",
        "run_name": "quantize/provider:bitsandbytes/n:64/k:64",
        "run_type": "iteration",
        "repetitions": 9,
        "repetition_index": 0,
        "threads": 1,
        "error_occurred": True,
        "error_message": "the library was not found",
        "iterations": 0,
        "real_time": 0.0,
        "cpu_time": 0.0,
        "time_unit": "us",
    }
    return {"context": CONTEXT, "benchmarks": dequantize(random) + linear(random) + ladder(random) + [failed]}


def cpu() -> dict:
    """A result without any of the optional context keys and with one repetition count below what `samples` needs."""
    random = np.random.default_rng(2)
    context = {key: CONTEXT[key] for key in ("date", "host_name", "executable", "num_cpus", "mhz_per_cpu")}
    benchmarks = []
    for n in (256, 1024, 4096):
        moved = n * n * 2.5625
        benchmarks += rows(
            random, f"dequantize/provider:reference/n:{n}/k:{n}", moved / 4e9, {"bytes_per_second": moved}, 3
        )
    return {"context": context, "benchmarks": benchmarks}


def gate() -> dict:
    random = np.random.default_rng(3)
    changes = [
        ("dequantize", 0.112, "FAIL"),
        ("quantize", 0.021, "UNSURE"),
        ("linear4bit", -0.043, "PASS"),
        ("rmsnorm", 0.002, "PASS"),
        ("double_quant", -0.001, "PASS"),
    ]
    result = []
    for stem, change, outcome in changes:
        half = 0.004 + 0.01 * random.random()
        estimate = {
            "change": change,
            "low": change - half,
            "high": change + half,
            "floor": 0.01 + 0.5 * half,
            "floor_source": "made up",
            "p_value": 0.5,
            "rounds": 12,
            "base_time": 10.0,
            "candidate_time": 10.0 * (1 + change),
            "base_spread": 0.004,
            "candidate_spread": 0.004,
        }
        name = f"{stem}/provider:qshard/n:4096/k:4096/blocksize:64/dtype:bf16"
        result.append(
            {"name": name, "outcome": outcome, "reason": "", "estimate": estimate, "unit": "us", "rounds": []}
        )
    result.append({"name": "rope/provider:qshard/n:4096", "outcome": "MISSING", "reason": "the candidate lacks it"})
    return {
        "schema": "gate/1",
        "verdict": "FAIL",
        "exit_code": 1,
        "settings": {},
        "context": CONTEXT,
        "notes": [],
        "rows": result,
    }


def metrics(seed: int, floor: float, steps: int) -> str:
    random = np.random.default_rng(seed)
    lines = [{"context": {key: CONTEXT[key] for key in ("device", "driver", "date", "source_hash", "command")}}]
    for step in range(1, steps + 1):
        loss = floor + 2.0 * np.exp(-step / 30) + random.normal(0, 0.05)
        lines.append(
            {
                "step": step,
                "loss": round(float(loss), 5),
                "learning_rate": 2e-4,
                "grad_norm": 0.7,
                "num_tokens": 512 * step,
            }
        )
        if step % 40 == 0:
            lines.append({"step": step, "eval_loss": round(floor + 0.1 + 2.0 * float(np.exp(-step / 30)), 5)})
    return "".join(json.dumps(line) + "\n" for line in lines)


def layout(world_size: int) -> dict:
    gib = 1 << 30
    parts = {
        "codes": 33 * gib // world_size,
        "statistics": int(1.1 * gib) // world_size,
        "full_precision": 4 * gib // world_size,
        "lora": int(0.8 * gib) // world_size,
        "gradients": int(0.8 * gib) // world_size,
        "optimizer": int(1.6 * gib) // world_size,
        "gather_buffer": int(0.9 * gib),
        "activations": int(1.3 * gib),
    }
    ranks = [{"rank": rank, "bytes": parts, "capacity_bytes": 24 * gib} for rank in range(world_size)]
    return {"name": f"70B on {world_size} cards", "world_size": world_size, "ranks": ranks, "layouts": layouts(), "step": step()}


def step() -> dict:
    """As `qshard plan` predicts it, of 8 layers: each is gathered beside the one before it, and its inputs go to the host."""
    layers, gather, forward, backward = 8, 0.001, 0.007, 0.013
    spans = []
    for layer in range(layers):
        begin = gather + forward * layer
        spans.append(_span("link", "gather", layer, max(0.0, begin - forward), gather))
        spans.append(_span("compute", "forward", layer, begin, forward))
        spans.append(_span("host", "input to the host", layer, begin, 0.5 * gather))
    for place, layer in enumerate(reversed(range(layers))):
        begin = gather + forward * layers + backward * place
        spans.append(_span("compute", "backward", layer, begin, backward))
        spans.append(_span("link", "gradient sum", layer, begin + backward, 0.2 * gather))
    parts = {"forward": 0.448, "recomputation": 0.3, "backward": 0.532, "waiting for gathers": 0.008, "optimizer": 0.0}
    memory = [{"at": 0.01 * moment, "gathered_bytes": 1 << 29, "input_bytes": moment << 25} for moment in range(10)]
    knobs = [("fsdp.world_size x 2", 1.31, -0.017), ("training.gradient_checkpointing: false", 0.988, 0.304)]
    return {"gpu": "made-up", "link": "nvlink", "seconds": sum(parts.values()), "hidden_share": 0.9, "parts": parts, "timeline": spans,
            "pipeline_seconds": 1.61, "knobs": [dict(zip(("change", "seconds", "gain"), knob)) for knob in knobs], "memory": memory}  # fmt: skip


def _span(lane: str, what: str, layer: int, begin: float, lasts: float) -> dict:
    return {"lane": lane, "what": what, "layer": layer, "begin": begin, "end": begin + lasts}


def layouts() -> list[dict]:
    """As `qshard plan --layouts` compares a 70B model's over 2 ranks, two strategies and two dtypes of it."""
    rows: list[dict] = []
    for strategy, passes in (("FULL_SHARD", 2), ("NO_SHARD", 0)):
        for scales in ("sharded", "every rank"):
            for unit, storage, messages in (
                ("layer", "bfloat16", 242),
                ("layer", "uint8", 1282),
                ("linear", "bfloat16", 1282),
                ("linear", "uint8", 1282),
            ):
                held = 35.41 if passes == 0 else 17.7 if scales == "sharded" else 18.21
                sent = 0 if passes == 0 else messages if scales == "sharded" else messages - (messages - 82) // 2
                row = {
                    "storage": storage,
                    "unit": unit,
                    "scales": scales,
                    "strategy": strategy,
                    "held_bytes": int(held * (1 << 30)),
                    "gathered_bytes": int(35.41 * (1 << 30)) if passes else 0,
                    "messages": sent,
                    "gather_seconds": passes * (0.46 + 1e-4 * sent),
                    "step_seconds": 12.76,
                }
                same = next((i for i, other in enumerate(rows) if _moves_as(other, row)), len(rows))
                rows.append({**row, "same_as": same})
    return rows


def _moves_as(one: dict, other: dict) -> bool:
    keys = ("scales", "strategy", "held_bytes", "messages")
    return all(one[key] == other[key] for key in keys)


def write_json(name: str, document: dict) -> None:
    rounded = json.loads(json.dumps(document), parse_float=lambda text: float(f"{float(text):.7g}"))
    lines = json.dumps(rounded).replace('{"name"', '\n{"name"')
    (DATA / name).write_text(lines + "\n")


def main() -> None:
    for name, document in (("gpu.json", gpu()), ("cpu.json", cpu()), ("gate.json", gate())):
        write_json(name, document)
    write_json("layout.json", layout(2))
    for name, text in (("adapter_r16", metrics(4, 0.62, 160)), ("adapter_r64", metrics(5, 0.55, 160))):
        (DATA / name).mkdir(parents=True, exist_ok=True)
        (DATA / name / "metrics.jsonl").write_text(text)


if __name__ == "__main__":
    main()
