"""Ids and labels beside what TRL 1.16.0 recorded (trl_rows.json), on templates of the forms of well-known models."""

import json
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import trl_cases  # noqa: E402
from chat_template import ChatTemplate, fix_date  # noqa: E402
from prepared_file import tokenize  # noqa: E402
from row_formats import Renderer, detect_format  # noqa: E402
from tokenizer_files import load_tokenizer  # noqa: E402

RECORDED = json.loads((HERE / "trl_rows.json").read_text())
FORMS = list(trl_cases.SPECIALS)


def rows_of(directory, rows, completion_only_loss=True):
    tokenizer, _ = load_tokenizer(directory)
    fix_date(trl_cases.DATE)
    renderer = Renderer(tokenizer, ChatTemplate(tokenizer, directory), "text", completion_only_loss)
    rendered = [renderer.render(row, detect_format(row, "text", "row"), "row") for row in rows]
    return [[list(ids), list(labels)] for ids, labels in tokenize(tokenizer, rendered)]


def shown(row):
    """A row as text with what is learned in brackets, for messages of failing tests."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173]
    text, learned = "", False
    for token, label in zip(*row):
        if (label >= 0) != learned:
            text, learned = text + ("[[" if label >= 0 else "]]"), label >= 0
        text += chr(order[token]) if token < 256 else f"<{token}>"
    return text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tagged", [True, False])
def test_conversations(form, tagged, tmp_path):
    directory = trl_cases.write_tokenizer(tmp_path / form, form, tagged)
    for kind, row in trl_cases.conversations(form).items():
        assert [shown(r) for r in rows_of(directory, [row])] == [shown(r) for r in RECORDED[form][kind]], kind


@pytest.mark.parametrize("form", FORMS)
def test_whole_conversations(form, tmp_path):
    directory = trl_cases.write_tokenizer(tmp_path / form, form, False)
    rows = list(trl_cases.conversations(form).values())
    assert rows_of(directory, rows, completion_only_loss=False) == RECORDED[form]["whole conversations"]


@pytest.mark.parametrize("form", FORMS)
def test_plain_rows(form, tmp_path):
    directory = trl_cases.write_tokenizer(tmp_path / form, form, False)
    for kind, rows in trl_cases.PLAIN_ROWS.items():
        if kind in RECORDED[form]:
            assert rows_of(directory, rows) == RECORDED[form][kind], kind
