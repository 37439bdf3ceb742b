"""Prompts for generate: files of them, chats, and what ends an answer."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "app" / "python"))

import text_tokens  # noqa: E402
from input_error import InputError  # noqa: E402
from prompts import as_conversation, read_prompts, split_stops  # noqa: E402
from tokenizer_files import load_tokenizer  # noqa: E402

MODEL = ROOT / "examples" / "adverbs" / "model"


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.txt", b"\xef\xbb\xbfone\r\n\n  two\n", [(":1", {"prompt": "one"}), (":3", {"prompt": "  two"})]),
        ("a.txt", b'{"prompt": "x"}', [(":1", {"prompt": '{"prompt": "x"}'})]),
        ("a.jsonl", b'{"prompt": "x"}\n', [(":1", {"prompt": "x"})]),
        ("named", b' {"messages": [1]}\n', [(":1", {"messages": [1]})]),
        ("named", b"one\ntwo", [(":1", {"prompt": "one"}), (":2", {"prompt": "two"})]),
        ("a.csv", b"prompt\nx\n", [(":2", {"prompt": "x"})]),
    ],
)
def test_files_hold_lines_or_rows(tmp_path, name, content, wanted):
    path = tmp_path / name
    path.write_bytes(content)
    assert read_prompts(path) == [(f"{path}{place}", request) for place, request in wanted]


@pytest.mark.parametrize(("content", "reason"), [(b"\n\n", "holds no prompt"), (b"a\n\xff", "a.txt:2: not UTF-8")])
def test_bad_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_prompts(path)


def test_chats_get_a_system_message_where_they_have_none():
    user, system, own = ({"role": role, "content": role[0]} for role in ("user", "system", "developer"))
    assert as_conversation({"prompt": "u"}, "s", "") == {"messages": [user, system][::-1]}
    assert as_conversation({"prompt": "u"}, None, "") == {"messages": [user]}
    assert as_conversation({"messages": [user], "tools": []}, "s", "") == {"tools": [], "messages": [system, user]}
    assert as_conversation({"messages": [own, user]}, "s", "") == {"messages": [own, user]}
    with pytest.raises(InputError, match="row: a chat goes on from prompt or messages, got instruction"):
        as_conversation({"instruction": "u"}, None, "row")


def test_special_tokens_end_by_their_id_and_texts_by_their_text():
    tokenizer, _ = load_tokenizer(MODEL)
    assert split_stops(tokenizer, ["</s>", "\n\n", "<s>"]) == ([257, 256], ["\n\n"])
    for text, reason in (("", "empty"), ("</s>\n", "holds the special token </s>")):
        with pytest.raises(InputError, match=reason):
            split_stops(tokenizer, [text])


def test_rows_that_are_no_prompt_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    text = text_tokens.Text(text_tokens.parse_arguments(["serve", "--tokenizer", str(MODEL)]))
    with pytest.raises(InputError, match="a.jsonl:2: expected prompt, instruction or messages, got text"):
        text.encode(file=str(path))
    answer = text.encode(prompts=[{"prompt": "a"}], stop=["<s>", "b"])
    assert (answer["ids"], answer["stop_ids"], answer["stop_texts"]) == ([[256, 97]], [256, 257], ["b"])
