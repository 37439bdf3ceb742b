"""Small training runs of the built qshard program on the golden model, for the commands beside this file."""
import json
import random
import struct
from pathlib import Path

from process_group import run

GOLDEN_BASE = Path(__file__).resolve().parents[1] / "golden/llama/base"
# Of a row of metrics.jsonl, what a clock or the number of ranks decides.
NOT_COMPARED = ("step_seconds", "tokens_per_second", "eval_seconds", "peak_memory_bytes")


def write_dataset(path, rows, seed):
    """A prepared data set of random rows for the golden model (vocabulary of 512)."""
    generator = random.Random(seed)
    offsets, ids = [0], []
    for _ in range(rows):
        ids += [generator.randrange(512) for _ in range(generator.randrange(4, 13))]
        offsets.append(len(ids))
    columns = [("input_ids", "I32", struct.pack(f"<{len(ids)}i", *ids)), ("labels", "I32", struct.pack(f"<{len(ids)}i", *ids)),
               ("offsets", "I64", struct.pack(f"<{len(offsets)}q", *offsets))]
    header, data = {}, b""
    for name, dtype, content in sorted(columns, key=lambda column: column[1] != "I64"):
        header[name] = {"dtype": dtype, "shape": [len(content) // (8 if dtype == "I64" else 4)],
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class TinyRuns:
    """Runs in a folder of their own, all of the same data and settings."""

    def __init__(self, program, folder, *, rows=30, steps=10, start="--gpus"):
        self.program, self.folder, self.steps, self.start = Path(program).resolve(), Path(folder), steps, start
        (self.folder / "train.yaml").write_text("lora: {r: 4, lora_alpha: 8}\n")
        write_dataset(self.folder / "data.safetensors", rows, 7)

    def arguments(self, output, ranks, rows_a_rank, options):
        data = str(self.folder / "data.safetensors")
        fixed = {"model_name_or_path": GOLDEN_BASE, "dataset.path": data, "dataset.eval_path": data,
                 "training.output_dir": self.folder / output, "training.max_steps": self.steps,
                 "training.per_device_train_batch_size": rows_a_rank, "training.learning_rate": "1e-3",
                 "lora.lora_dropout": "0.1"}
        words = [str(self.program), "train", str(self.folder / "train.yaml"), self.start, str(ranks)]
        for key, value in {**fixed, **options}.items():
            words += [f"--{key}", str(value)]
        return words

    def run(self, output, ranks=2, rows_a_rank=2, limit=60, variables=None, **options):
        """Options are keys of the run configuration with __ for a point; a run that takes longer than limit is killed."""
        words = self.arguments(output, ranks, rows_a_rank, {key.replace("__", "."): value for key, value in options.items()})
        return run(words, variables or {}, limit)

    def metrics(self, output):
        lines = [json.loads(line) for line in (self.folder / output / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in NOT_COMPARED} for line in lines if "context" not in line]

    def losses(self, output):
        return [line["loss"] for line in self.metrics(output) if "loss" in line]
