"""Records what TRL makes of the rows of trl_cases.py: python make_trl_rows.py (needs torch, trl, datasets; TRL 1.16.0).

Writes trl_rows.json: {form: {kind: [[input_ids, labels] a row]}}.
"""

import json
import os
import pathlib
import tempfile
import types

os.environ["HF_HUB_OFFLINE"] = "1"
import datetime

from datasets import Dataset
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils
from trl import SFTTrainer

import trl_cases

HERE = pathlib.Path(__file__).resolve().parent


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromisoformat(trl_cases.DATE)


chat_template_utils.datetime = FixedDate


def trl_rows(tokenizer, rows, assistant_only_loss, max_length=None):
    """Each row alone, so that no row gives another one its columns."""
    arguments = types.SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=assistant_only_loss,
        max_length=max_length,
        truncation_mode="keep_start",
        shuffle_dataset=False,
    )
    trainer = types.SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=True)
    result = []
    for row in rows:
        made = SFTTrainer._prepare_dataset(
            trainer, Dataset.from_list([row]), tokenizer, arguments, False, None, "train"
        )
        result += [[made[i]["input_ids"], made[i]["labels"]] for i in range(len(made))]
    return result


def main():
    recorded = {}
    with tempfile.TemporaryDirectory() as directory:
        for form in trl_cases.SPECIALS:
            tokenizer = AutoTokenizer.from_pretrained(
                trl_cases.write_tokenizer(pathlib.Path(directory) / form, form, tagged=True)
            )
            rows = {kind: trl_rows(tokenizer, [row], True) for kind, row in trl_cases.conversations(form).items()}
            rows["whole conversations"] = trl_rows(tokenizer, trl_cases.conversations(form).values(), False)
            for kind, plain in trl_cases.PLAIN_ROWS.items():
                if not (form == "gemma" and kind.endswith("messages")):
                    rows[kind] = trl_rows(tokenizer, plain, False)
            recorded[form] = rows
    (HERE / "trl_rows.json").write_text(json.dumps(recorded, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
