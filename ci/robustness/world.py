"""A small model, its data and its run, and how the program is called."""

import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

COMMANDS = ("train", "quantize", "dequantize", "merge", "tokenize", "report")
WRITING = (*COMMANDS, "plan", "generate", "gate")  # these take too little time to be killed in
SLOW = ("tokenize", "report", "generate", "gate")  # seconds each, most of them imports
REPLACING = ("report", "plan", "gate")  # write over what an earlier run of theirs has left
GOLDEN = Path("correctness/golden/llama").resolve()
STEPS = 12
CONFIG = """
dtype: float32
lora: {r: 4, lora_alpha: 8}
training: {per_device_train_batch_size: 2, learning_rate: 1e-3, save_steps: 1, logging_steps: 100}
"""
TIMELESS = ("step_seconds", "tokens_per_second", "eval_seconds", "peak_memory_bytes")


class World:
    """Files that every attempt starts from, in a directory of its own."""

    def __init__(self, directory: Path, chance: random.Random):
        self.directory, self.chance = directory, chance
        self.program, self.python = os.environ["QSHARD_PROGRAM"], os.environ["QSHARD_PYTHON"]
        self.model = directory / "model"
        shutil.copytree(GOLDEN / "base", self.model)
        (directory / "run.yaml").write_text(CONFIG)
        rows = [json.dumps({"prompt": f"row {i}", "completion": "word " * (i % 5 + 1)}) for i in range(12)]
        (directory / "rows.jsonl").write_text("\n".join(rows))
        self.tokenizer = directory / "tokenizer"
        shutil.copytree("examples/adverbs/model", self.tokenizer)
        self._write_data()
        self.times = [directory / f"times-{process}.json" for process in range(16)]
        row = {"name": "row", "run_type": "iteration", "real_time": 5.0, "cpu_time": 5.0, "time_unit": "ns"}
        for path in self.times:
            path.write_text(json.dumps({"context": {}, "benchmarks": [row]}))

    def _write_data(self) -> None:
        ids, offsets = [], [0]
        for row in range(12):
            ids += [self.chance.randrange(512) for _ in range(4 + row % 5)]
            offsets.append(len(ids))
        columns = {"input_ids": ("I32", "i", ids), "labels": ("I32", "i", ids), "offsets": ("I64", "q", offsets)}
        header, data = {}, b""
        for name, (dtype, code, values) in columns.items():
            packed = struct.pack(f"<{len(values)}{code}", *values)
            header[name] = {"dtype": dtype, "shape": [len(values)], "data_offsets": [len(data), len(data) + len(packed)]}
            data += packed
        text = json.dumps(header).encode()
        (self.directory / "data.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)

    def training(self, output: Path, *more: str) -> list[str]:
        data = str(self.directory / "data.safetensors")
        return [
            self.program, "train", str(self.directory / "run.yaml"), "--model_name_or_path", str(self.model),
            "--dataset.path", data, "--dataset.eval_path", data, "--training.output_dir", str(output),
            "--training.max_steps", str(STEPS), "--training.save_total_limit", "3",
            "--training.resume_from_checkpoint", "true", *more,
        ]  # fmt: skip

    def quantizing(self, output: Path) -> list[str]:
        return [self.program, "quantize", "--model", str(self.model), "--output", str(output)]

    def dequantizing(self, output: Path) -> list[str]:
        return [self.program, "dequantize", "--model", str(GOLDEN / "bnb4bit"), "--output", str(output)]

    def merging(self, output: Path) -> list[str]:
        adapter = str(GOLDEN / "adapter_final_fp32")
        return [self.program, "merge", "--model", str(self.model), "--adapter", adapter, "--output", str(output)]

    def tokenizing(self, output: Path) -> list[str]:
        return [
            self.program, "tokenize", str(self.directory / "run.yaml"), "--model_name_or_path", str(self.tokenizer),
            "--dataset.path", str(self.directory / "rows.jsonl"), "--training.output_dir", str(output), "--show", "0",
        ]  # fmt: skip

    def reporting(self, output: Path) -> list[str]:
        results = str(Path("reports/tests/data/adapter_r16").resolve())
        return [self.python, "-m", "reports", results, "--output", str(output), "--small"]

    def planning(self, output: Path) -> list[str]:
        output.mkdir(exist_ok=True)
        return [
            self.program, "plan", str(self.directory / "run.yaml"), "--model_name_or_path", str(self.model),
            "--json", str(output / "plan.json"),
        ]  # fmt: skip

    def generating(self, output: Path) -> list[str]:
        output.mkdir(exist_ok=True)
        answer = [self.program, "generate", "--model", str(self.tokenizer), "--prompt", "quickly", "--json"]
        return ["sh", "-c", 'answers=$1; shift; exec "$@" > "$answers"', "sh", str(output / "answers.jsonl"), *answer]

    def gating(self, output: Path) -> list[str]:
        base, candidate = ([str(path) for path in self.times[side::2]] for side in range(2))
        return [
            self.python, "-m", "gate", "compare", "--base", *base, "--candidate", *candidate,
            "--json", str(output / "result.json"), "--markdown", str(output / "table.md"),
            "--junit", str(output / "junit.xml"),
        ]  # fmt: skip

    def command(self, name: str) -> Callable[[Path], list[str]]:
        """The words that run one of WRITING into a directory."""
        return {"train": self.training, "quantize": self.quantizing, "dequantize": self.dequantizing,
                "merge": self.merging, "tokenize": self.tokenizing, "report": self.reporting,
                "plan": self.planning, "generate": self.generating, "gate": self.gating}[name]  # fmt: skip

    def call(self, words: list[str], timeout: float = 600) -> subprocess.CompletedProcess:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout)


def content(directory: Path) -> dict[str, bytes]:
    """What a finished command left, without what a clock decides."""
    found = {}
    for path in files_of(directory):
        name = str(path.relative_to(directory))
        if path.name == ".lock" or path.name.startswith("metrics-"):
            continue
        found[name] = _timeless(path) if path.name == "metrics.jsonl" else path.read_bytes()
    return found


def _timeless(path: Path) -> bytes:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if key not in TIMELESS} for row in rows if "context" not in row]
    return json.dumps(rows).encode()


def files_of(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def leftovers(directory: Path) -> list[Path]:
    """Half-written files: what the program writes beside what it is to replace."""
    return [path for path in directory.parent.rglob("*.tmp-*") if path.is_relative_to(directory) or path.parent == directory.parent]
