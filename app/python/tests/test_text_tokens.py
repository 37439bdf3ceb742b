"""text_tokens.py on the example's byte-level tokenizer: a token is a byte, so that expected ids can be written down."""

import json
import pathlib
import subprocess
import sys

import numpy
import pytest
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "app" / "python" / "text_tokens.py"
MODEL = ROOT / "examples" / "adverbs" / "model"
BOS, EOS, IGNORED = 256, 257, -100

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def run(command, *arguments, tokenizer=MODEL, stdin=None):
    return subprocess.run(
        [sys.executable, str(SCRIPT), command, "--tokenizer", str(tokenizer), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def prepare(tmp_path, content, *arguments, tokenizer=MODEL):
    source = tmp_path / "data.jsonl"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    return run("prepare", "--input", source, "--cache", tmp_path / "cache", *arguments, tokenizer=tokenizer)


def rows_of(result):
    assert result.returncode == 0, result.stderr
    tensors = load_file(json.loads(result.stdout)["path"])
    assert [tensors[name].dtype for name in ("input_ids", "labels", "offsets")] == [
        numpy.int32,
        numpy.int32,
        numpy.int64,
    ]
    offsets = tensors["offsets"]
    pairs = zip(offsets[:-1], offsets[1:])
    return [(tensors["input_ids"][b:e].tolist(), tensors["labels"][b:e].tolist()) for b, e in pairs]


def expected(prompt, completion):
    prompt, completion = list(prompt.encode()), list(completion.encode())
    return [BOS, *prompt, *completion, EOS], [IGNORED] * (1 + len(prompt)) + [*completion, EOS]


@pytest.fixture
def chat_model(tmp_path):
    directory = tmp_path / "chat"
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((MODEL / name).read_bytes())
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return directory


def test_alpaca_with_and_without_input(tmp_path):
    content = '{"instruction": "Say.", "input": "é", "output": "ü!"}\n\n{"instruction": "Say.", "output": "x"}\n'
    assert rows_of(prepare(tmp_path, content)) == [
        expected("### Instruction:\nSay.\n\n### Input:\né\n\n### Response:\n", "ü!"),
        expected("### Instruction:\nSay.\n\n### Response:\n", "x"),
    ]


def test_prompt_completion(tmp_path):
    assert rows_of(prepare(tmp_path, '{"prompt": "ab", "completion": "cd"}')) == [expected("ab", "cd")]


def test_text_and_whole_loss_learn_everything(tmp_path):
    ids = [BOS, *b"ab", EOS]
    labels = [IGNORED, *b"ab", EOS]
    assert rows_of(prepare(tmp_path, '{"body": "ab"}', "--text-field", "body")) == [(ids, labels)]
    content = '{"prompt": "a", "completion": "b"}'
    assert rows_of(prepare(tmp_path, content, "--no-completion-only-loss")) == [(ids, labels)]


def test_a_json_list_is_as_good_as_lines(tmp_path):
    content = '\n[{"prompt": "ab",\n "completion": "cd"}]'
    assert rows_of(prepare(tmp_path, content)) == [expected("ab", "cd")]


def test_messages_learn_what_the_assistant_says(tmp_path, chat_model):
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "so"},
        {"role": "assistant", "content": "ok"},
    ]
    result = prepare(tmp_path, json.dumps({"messages": messages}), tokenizer=chat_model)
    [(ids, labels)] = rows_of(result)
    assert ids == [BOS, *b"[user]hi[assistant]yo", EOS, *b"[user]so[assistant]ok", EOS]
    learned = [i for i, label in enumerate(labels) if label != IGNORED]
    assert bytes(ids[i] for i in learned if ids[i] < 256) == b"yook"
    assert [ids[i] for i in learned] == [labels[i] for i in learned]
    assert ids.count(EOS) == 2 and labels.count(EOS) == 2


def test_the_same_work_is_not_done_twice(tmp_path):
    content = '{"prompt": "a", "completion": "b"}'
    first = json.loads(prepare(tmp_path, content).stdout)
    again = json.loads(prepare(tmp_path, content).stdout)
    other = json.loads(prepare(tmp_path, content, "--no-completion-only-loss").stdout)
    changed = json.loads(prepare(tmp_path, content + "\n" + content).stdout)
    assert (first["cached"], again["cached"], other["cached"], changed["cached"]) == (False, True, False, False)
    assert first["path"] == again["path"]
    assert len({first["path"], other["path"], changed["path"]}) == 3


GOOD = '{"prompt": "a", "completion": "b"}\n'


@pytest.mark.parametrize(
    ("content", "arguments", "parts"),
    [
        (GOOD + "{oops}\n", [], ["data.jsonl:2", "not valid JSON"]),
        (GOOD + "\n" + '{"prompt": "a"}\n', [], ["data.jsonl:3", '"completion" is missing']),
        (GOOD + '{"prompt": 5, "completion": "b"}', [], ["data.jsonl:2", '"prompt" must be a text, is a number']),
        (GOOD + '{"prompt": null, "completion": "b"}', [], ["data.jsonl:2", "is null"]),
        (GOOD + "[1]", [], ["data.jsonl:2", "expected an object"]),
        (GOOD + '{"prompt": NaN, "completion": "b"}', [], ["data.jsonl:2", "NaN is not JSON"]),
        (GOOD + '{"prompt": "\\ud800", "completion": "b"}', [], ["data.jsonl:2", "surrogate"]),
        (GOOD.encode() + b'{"prompt": "\xff", "completion": "b"}', [], ["data.jsonl:2", "not UTF-8"]),
        ("[" * 100000, [], ["data.jsonl", "not valid JSON"]),
        ("", [], ["data.jsonl", "holds no row"]),
        ("[]", [], ["data.jsonl", "holds no row"]),
        ('{"question": "a"}', [], ["data.jsonl:1", "question", "instruction and output"]),
        ('{"messages": []}', [], ["data.jsonl:1", "list of messages"]),
        ('{"messages": [{"role": "user"}]}', [], ["data.jsonl:1", '"content" is missing']),
        ('{"messages": [{"role": "user", "content": "a"}]}', [], ["no chat template"]),
        (GOOD, ["--format", "alpaca"], ["data.jsonl:1", '"instruction" is missing']),
    ],
)
def test_wrong_input_names_file_and_line(tmp_path, content, arguments, parts):
    result = prepare(tmp_path, content, *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True


def test_missing_files_are_named(tmp_path):
    result = run("prepare", "--input", tmp_path / "none.jsonl", "--cache", tmp_path)
    assert result.returncode == 2 and "none.jsonl" in result.stderr
    source = tmp_path / "data.jsonl"
    source.write_text(GOOD)
    result = run("prepare", "--input", source, "--cache", tmp_path, tokenizer=tmp_path)
    assert result.returncode == 2 and "tokenizer.json is missing" in result.stderr
    (tmp_path / "tokenizer.json").write_text("{}")
    result = run("prepare", "--input", source, "--cache", tmp_path, tokenizer=tmp_path)
    assert result.returncode == 2 and "not a tokenizer" in result.stderr


def test_prompts_become_ids_and_ids_texts():
    requests = [{"prompt": "hé"}, {"instruction": "Do.", "input": "x"}]
    answer = json.loads(run("encode", stdin=json.dumps(requests)).stdout)
    assert answer["ids"][0] == [BOS, *"hé".encode()]
    assert bytes(answer["ids"][1][1:]) == b"### Instruction:\nDo.\n\n### Input:\nx\n\n### Response:\n"
    assert answer["stop_ids"] == [EOS]
    decoded = json.loads(run("decode", stdin=json.dumps([answer["ids"][0] + [EOS]])).stdout)
    assert decoded["texts"] == ["hé"]


def test_a_missing_package_is_named_with_the_command(tmp_path):
    code = (
        "import sys, runpy\n"
        "sys.modules['tokenizers'] = None\n"
        f"sys.argv = ['text_tokens.py', 'encode', '--tokenizer', {str(MODEL)!r}]\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], input="[]", capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "package tokenizers is missing" in result.stderr and "pip install" in result.stderr
