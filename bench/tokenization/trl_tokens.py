"""The peer: TRL's SFTTrainer tokenizes Alpaca rows as prompt and completion. Prints a JSON line.

    python trl_tokens.py --tokenizer DIR --input rows.jsonl --processes 1

`seconds` and `cpu_seconds` leave the imports out; `digest` is of all ids and labels.
"""

import argparse
import json
import os
import resource
import time
import types

os.environ["HF_HUB_OFFLINE"] = "1"
import datasets
import trl
from transformers import AutoTokenizer

from digest import digest_of


def cpu_seconds():
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def prompt_and_completion(row):
    section = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
    return {
        "prompt": f"### Instruction:\n{row['instruction']}\n\n{section}### Response:\n",
        "completion": row["output"],
    }


def tokenize(rows, tokenizer, processes):
    """What SFTTrainer does with its train_dataset before the first step."""
    arguments = types.SimpleNamespace(
        dataset_num_proc=processes if processes > 1 else None,
        dataset_text_field="text",
        assistant_only_loss=False,
        max_length=None,
        truncation_mode="keep_start",
        shuffle_dataset=False,
    )
    trainer = types.SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=True)
    return trl.SFTTrainer._prepare_dataset(
        trainer, datasets.Dataset.from_list(rows), tokenizer, arguments, False, None, "train"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    datasets.disable_caching()
    wall, cpu = time.perf_counter(), cpu_seconds()
    with open(options.input, encoding="utf-8") as file:
        rows = [prompt_and_completion(json.loads(line)) for line in file]
    made = tokenize(rows, AutoTokenizer.from_pretrained(options.tokenizer), options.processes)
    line = {"seconds": time.perf_counter() - wall, "cpu_seconds": cpu_seconds() - cpu}
    line["tokens"], line["digest"] = digest_of(zip(made["input_ids"], made["labels"]))
    print(json.dumps({**line, "trl": trl.__version__, "datasets": datasets.__version__}))


if __name__ == "__main__":
    main()
