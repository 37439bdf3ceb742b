"""text_tokens.py on the example's byte-level tokenizer: a token is a byte, so that expected ids can be written down."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys
import types

import numpy
import pytest
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "app" / "python" / "text_tokens.py"
MODEL = ROOT / "examples" / "adverbs" / "model"
sys.path.insert(0, str(SCRIPT.parent))

import text_tokens  # noqa: E402

BOS, EOS, IGNORED = 256, 257, -100

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def run(command, *arguments, tokenizer=MODEL, stdin=""):
    """The command within this process: what it prints and its exit code."""
    words = [command, "--tokenizer", str(tokenizer), *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = text_tokens.work(text_tokens.parse_arguments(words))
    return types.SimpleNamespace(returncode=code, stdout=output.getvalue(), stderr=errors.getvalue())


def run_alone(command, *arguments, tokenizer=MODEL, before=""):
    """The command in a process of its own, as the program starts it."""
    words = ["text_tokens.py", command, "--tokenizer", str(tokenizer), *map(str, arguments)]
    code = f"{before}\nimport sys, runpy\nsys.argv = {words!r}\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], input="[]", capture_output=True, text=True, check=False)


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
    assert rows_of(prepare(tmp_path, '{"body": "ab"}', "--text-field", "body")) == [(ids, ids)]
    content = '{"prompt": "a", "completion": "b"}'
    assert rows_of(prepare(tmp_path, content, "--no-completion-only-loss")) == [(ids, ids)]


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


def test_a_missing_package_is_named_with_the_command():
    result = run_alone("encode", before="import sys; sys.modules['transformers'] = None")
    assert result.returncode == 2
    assert "package transformers is missing" in result.stderr and "pip install" in result.stderr


def test_csv_parquet_and_several_files_are_read_alike(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": 'a,"b"\nc', "completion": "ü"}, {"prompt": "d", "completion": "e"}]
    wanted = [expected(row["prompt"], row["completion"]) for row in rows]
    table = tmp_path / "rows.csv"
    table.write_bytes('\ufeffprompt,completion\r\n"a,""b""\nc",ü\r\nd,e\r\n'.encode())
    assert rows_of(run("prepare", "--input", table, "--cache", tmp_path)) == wanted
    parquet = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    assert rows_of(run("prepare", "--input", parquet, "--cache", tmp_path)) == wanted
    both = run("prepare", "--input", parquet, "--input", table, "--cache", tmp_path)
    assert rows_of(both) == wanted + wanted
    table.write_text("prompt,completion\na\n")
    result = run("prepare", "--input", table, "--cache", tmp_path)
    assert result.returncode == 2 and "rows.csv:2: 1 cells for 2 columns" in result.stderr
    parquet.write_bytes(parquet.read_bytes()[:-20])
    result = run("prepare", "--input", parquet, "--cache", tmp_path)
    assert result.returncode == 2 and "not a Parquet file" in result.stderr


def test_keys_that_parquet_adds_are_not_there(tmp_path, chat_model):
    import pyarrow
    import pyarrow.parquet

    template = "{% for m in messages %}{{ m.keys() | sort | join(',') }}{{ m.content }};{% endfor %}"
    (chat_model / "chat_template.jinja").write_text(template)
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "name": "x"}]}]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    options = ["--no-completion-only-loss", "--input", path, "--cache", tmp_path]
    [(ids, _)] = rows_of(run("prepare", *options, tokenizer=chat_model))
    assert bytes(ids) == b"content,roleq;content,name,rolea;"


def test_columns_get_the_known_names(tmp_path):
    content = '{"question": "ab", "answer": "cd", "id": 7}'
    result = prepare(tmp_path, content, "--column", "prompt=question", "--column", "completion=answer")
    assert rows_of(result) == [expected("ab", "cd")]
    assert json.loads(result.stdout)["notes"] == ["columns that are not used: id"]
    result = prepare(tmp_path, content, "--column", "prompt=query")
    assert result.returncode == 2 and 'data.jsonl:1: there is no "query"' in result.stderr
    result = prepare(tmp_path, '{"prompt": "a", "chosen": "b", "completion": "c"}')
    assert result.returncode == 2 and '"chosen" cannot be learned' in result.stderr


def test_conversations_of_from_and_value(tmp_path, chat_model):
    turns = [("system", "be"), ("human", "hi"), ("gpt", "yo")]
    row = {"conversations": [{"from": sender, "value": text} for sender, text in turns]}
    [(ids, labels)] = rows_of(prepare(tmp_path, json.dumps(row), tokenizer=chat_model))
    assert ids == [BOS, *b"[system]be[user]hi[assistant]yo", EOS]
    assert [label for label in labels if label != IGNORED] == [*b"yo", EOS]
    row["conversations"][1]["from"] = "bot"
    result = prepare(tmp_path, json.dumps(row), tokenizer=chat_model)
    assert result.returncode == 2
    assert 'conversations[1]: role "bot" is unknown' in result.stderr and "human, gpt" in result.stderr


def test_content_in_parts_is_joined_or_given_to_the_template(tmp_path, chat_model):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "yo"}]}
    [(ids, _)] = rows_of(prepare(tmp_path, json.dumps(row), tokenizer=chat_model))
    assert ids == [BOS, *b"[user]hi[assistant]yo", EOS]
    template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}({{ part.text }}){% endfor %}{% endif %}{% endfor %}"
    )
    (chat_model / "chat_template.jinja").write_text(template)
    [(ids, _)] = rows_of(prepare(tmp_path, json.dumps(row), tokenizer=chat_model))
    assert bytes(ids) == b"[user](h)(i)[assistant]yo"
    parts.append({"type": "image", "url": "x"})
    result = prepare(tmp_path, json.dumps(row), tokenizer=chat_model)
    assert result.returncode == 2 and "of type image" in result.stderr


def test_a_message_of_weight_0_is_not_learned(tmp_path, chat_model):
    row = {"messages": [{"role": "assistant", "content": "no", "weight": 0}, {"role": "assistant", "content": "yo"}]}
    [(_, labels)] = rows_of(prepare(tmp_path, json.dumps(row), tokenizer=chat_model))
    assert [label for label in labels if label != IGNORED] == [*b"yo", EOS]
    row["messages"][0]["weight"] = 2
    assert prepare(tmp_path, json.dumps(row), tokenizer=chat_model).returncode == 2


def test_special_tokens_of_older_directories(tmp_path):
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    moved = {name: config.pop(name) for name in ("bos_token", "eos_token", "pad_token")}
    (tmp_path / "tokenizer.json").write_bytes((MODEL / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(moved))
    assert rows_of(prepare(tmp_path, '{"text": "abc"}', tokenizer=tmp_path))[0][0] == [BOS, *b"abc", EOS]
    (tmp_path / "special_tokens_map.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "llama", "eos_token_id": 257}')
    result = prepare(tmp_path, '{"text": "abc"}', tokenizer=tmp_path)
    assert rows_of(result)[0][0][-1] == EOS
    assert "</s> is taken from the model's configuration" in json.loads(result.stdout)["notes"][0]


def test_the_date_of_a_template_is_part_of_the_key(tmp_path, chat_model):
    template = "{{ strftime_now('%d.%m.%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    (chat_model / "chat_template.jinja").write_text(template)
    content = '{"messages": [{"role": "user", "content": "q"}]}'

    def on(date):
        return prepare(tmp_path, content, "--template-date", date, tokenizer=chat_model)

    first, other, again = on("2026-01-31"), on("2027-12-01"), on("2026-01-31")
    assert bytes(rows_of(first)[0][0]) == b"31.01.2026q"
    assert bytes(rows_of(other)[0][0]) == b"01.12.2027q"
    assert json.loads(again.stdout)["cached"] and json.loads(again.stdout)["path"] == json.loads(first.stdout)["path"]
    assert on("soon").returncode == 2


BAD_TEMPLATES = {
    "{% include 'x' %}": "no loader",
    "{{ 1/0 }}": "division by zero",
    "{{ 'a' + 1 }}": "TypeError",
    "{{ messages() }}": "not callable",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    "{% for m in": "line 1",
    "{{ raise_exception('never so') }}": "never so",
}


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_a_template_that_fails_is_named_with_its_reason(template, tmp_path, chat_model):
    (chat_model / "chat_template.jinja").write_text(template)
    result = prepare(tmp_path, '{"messages": [{"role": "user", "content": "q"}]}', tokenizer=chat_model)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "chat template" in result.stderr and str(chat_model) in result.stderr
    assert BAD_TEMPLATES[template] in result.stderr


@pytest.mark.parametrize(
    ("template", "code", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", 2, "ran longer than 1 seconds"),
        ("{{ (10 ** (9 ** 9)) | string | length }}", 2, "ran longer than"),
        ("{{ 'a' * 99999999999 }}", 3, "out of memory"),
    ],
)
def test_a_template_without_end_is_ended(template, code, reason, tmp_path, chat_model):
    (chat_model / "chat_template.jinja").write_text(template)
    source = tmp_path / "data.jsonl"
    source.write_text('{"messages": [{"role": "user", "content": "q"}]}')
    path = str(SCRIPT.parent)
    shorter = f"import sys; sys.path.insert(0, {path!r}); import template_limits as t; t.SECONDS_A_RENDERING = 1; t.SECONDS_BEFORE_KILLING = 3"
    result = run_alone("prepare", "--input", source, "--cache", tmp_path, tokenizer=chat_model, before=shorter)
    assert (result.returncode, result.stderr.count("\n")) == (code, 1)
    assert reason in result.stderr


def test_rows_are_shown_with_what_is_learned_apart(tmp_path):
    path = json.loads(prepare(tmp_path, '{"prompt": "ab", "completion": "cd"}').stdout)["path"]
    [row] = json.loads(run("show", "--prepared", path, "--rows", 5).stdout)["rows"]
    assert [(s["learned"], s["tokens"], s["text"]) for s in row] == [(False, 3, "<s>ab"), (True, 3, "cd</s>")]


def test_requests_are_served_line_by_line(chat_model):
    asked = [
        {"encode": {"prompts": [{"messages": [{"role": "user", "content": "hi"}]}]}},
        {"encode": {"prompts": [{"messages": [{"role": "assistant", "content": "hi"}]}]}},
        {"decode": [[BOS, *b"so"]]},
    ]
    lines = run("serve", tokenizer=chat_model, stdin="".join(json.dumps(a) + "\n" for a in asked)).stdout.splitlines()
    encoded, refused, decoded = map(json.loads, lines)
    assert encoded["ids"] == [[BOS, *b"[user]hi[assistant]"]] and encoded["stop_ids"] == [EOS]
    assert "the last message is the assistant's" in refused["error"]
    assert decoded == {"texts": ["so"]}


def test_too_little_address_space_is_exit_code_3_and_not_a_wait():
    result = run_alone("encode", before="import resource\nresource.setrlimit(resource.RLIMIT_AS, (110 << 20,) * 2)")
    assert result.returncode == 3 and result.stderr.count("\n") == 1 and "ulimit -v" in result.stderr


def test_a_row_that_memory_does_not_suffice_for_is_exit_code_3(tmp_path):
    source = tmp_path / "data.jsonl"
    source.write_text(json.dumps({"text": "word " * 1_000_000}))
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (400 << 20,) * 2)"
    result = run_alone("prepare", "--input", source, "--cache", tmp_path / "cache", before=limit)
    assert result.returncode == 3 and "memory" in result.stderr.splitlines()[-1], result.stderr
    assert not list(tmp_path.glob("cache/*"))


def test_a_library_that_can_start_no_thread_is_exit_code_3(capsys):
    class PanicException(BaseException):
        """As PyO3's: no Exception."""

    def run(_):
        raise PanicException("ThreadPoolBuildError: Resource temporarily unavailable")

    assert text_tokens.work(types.SimpleNamespace(run=run, tokenizer="model")) == 3
    assert "ulimit" in capsys.readouterr().err
