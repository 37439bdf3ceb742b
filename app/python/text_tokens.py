"""Text to tokens and back, on the Hugging Face tokenizers library; called by the qshard program.

prepare  turns a file of rows (JSONL, or a JSON list) into a safetensors file of input_ids I32 [total],
         labels I32 [total] (-100: masked) and offsets I64 [rows + 1], kept under a hash of everything it depends on.
encode   turns prompts (JSON on standard input) into token ids (JSON on standard output).
decode   turns token ids into texts, likewise.

Wrong input ends with exit code 2 and one message that names file and line.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys
from array import array

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from row_formats import InputError, Renderer, detect_format  # noqa: E402
from row_reader import read_rows  # noqa: E402

# Part of the cache key: raise it whenever the same input would give other tokens.
PREPARATION_VERSION = 1
IGNORED_LABEL = -100
ROWS_AT_ONCE = 1000


def load_tokenizer(directory):
    """The tokenizer, and the files that decide what it does."""
    from tokenizers import Tokenizer

    path = pathlib.Path(directory) / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"{path} is missing; a tokenizer in another form is converted by transformers: "
            f"AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenize_row(encoding, row):
    """Ids and labels of a rendered row; a token is learned where it ends inside a learned span."""
    ids = list(row.prefix_ids) + encoding.ids + list(row.suffix_ids)
    labels = [IGNORED_LABEL] * len(row.prefix_ids)
    spans = iter(row.learned)
    begin, end = next(spans, (sys.maxsize, sys.maxsize))
    for token, (_, token_end) in zip(encoding.ids, encoding.offsets):
        while token_end > end:
            begin, end = next(spans, (sys.maxsize, sys.maxsize))
        labels.append(token if begin < token_end <= end else IGNORED_LABEL)
    labels.extend(row.suffix_ids)
    return ids, labels


def prepare_rows(tokenizer, renderer, rows, row_format):
    """(input_ids, labels, offsets) of all rows."""
    input_ids, labels, offsets = array("i"), array("i"), array("q", [0])
    for start in range(0, len(rows), ROWS_AT_ONCE):
        rendered = [renderer.render(fields, row_format, where) for where, fields in rows[start : start + ROWS_AT_ONCE]]
        encodings = tokenizer.encode_batch([row.text for row in rendered], add_special_tokens=False)
        for encoding, row in zip(encodings, rendered):
            row_ids, row_labels = tokenize_row(encoding, row)
            input_ids.extend(row_ids)
            labels.extend(row_labels)
            offsets.append(len(input_ids))
    return input_ids, labels, offsets


def cache_key(arguments):
    digest = hashlib.sha256()
    settings = [PREPARATION_VERSION, arguments.format, arguments.text_field, arguments.completion_only_loss]
    digest.update(json.dumps(settings).encode())
    tokenizer = pathlib.Path(arguments.tokenizer)
    names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    for path in [pathlib.Path(arguments.input), *(tokenizer / name for name in names)]:
        content = path.read_bytes() if path.is_file() else b""
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:32]


def write_prepared(path, input_ids, labels, offsets):
    import numpy
    from safetensors.numpy import save

    content = save(
        {
            "input_ids": numpy.frombuffer(input_ids, dtype=numpy.int32),
            "labels": numpy.frombuffer(labels, dtype=numpy.int32),
            "offsets": numpy.frombuffer(offsets, dtype=numpy.int64),
        }
    )
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def prepare(arguments):
    source = pathlib.Path(arguments.input)
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    path = pathlib.Path(arguments.cache) / f"{source.stem}-{cache_key(arguments)}.safetensors"
    cached = path.is_file()
    if not cached:
        tokenizer = load_tokenizer(arguments.tokenizer)
        rows = read_rows(source)
        row_format = arguments.format
        if row_format == "auto":
            row_format = detect_format(rows[0][1], arguments.text_field, rows[0][0])
        renderer = Renderer(tokenizer, arguments.tokenizer, arguments.text_field, arguments.completion_only_loss)
        columns = prepare_rows(tokenizer, renderer, rows, row_format)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_prepared(path, *columns)
    return {"path": str(path), "cached": cached}


def encode(arguments):
    tokenizer = load_tokenizer(arguments.tokenizer)
    renderer = Renderer(tokenizer, arguments.tokenizer, "text", True)
    prompts = [renderer.render_prompt(request) for request in json.load(sys.stdin)]
    encodings = tokenizer.encode_batch([row.text for row in prompts], add_special_tokens=False)
    ids = [list(row.prefix_ids) + encoding.ids for encoding, row in zip(encodings, prompts)]
    return {"ids": ids, "stop_ids": renderer.stop_ids(), "prompts": [row.text for row in prompts]}


def decode(arguments):
    tokenizer = load_tokenizer(arguments.tokenizer)
    return {"texts": [tokenizer.decode(ids, skip_special_tokens=True) for ids in json.load(sys.stdin)]}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    prepare_parser = commands.add_parser("prepare", help="tokenize a data set")
    prepare_parser.add_argument("--input", required=True, help="JSONL file, or a file with one JSON list")
    prepare_parser.add_argument("--cache", required=True, help="directory for prepared files")
    prepare_parser.add_argument(
        "--format", default="auto", choices=["auto", "alpaca", "prompt_completion", "messages", "text"]
    )
    prepare_parser.add_argument("--text-field", default="text", help="field of the text format")
    prepare_parser.add_argument(
        "--no-completion-only-loss", dest="completion_only_loss", action="store_false", help="learn the prompts too"
    )
    prepare_parser.set_defaults(run=prepare)
    encode_parser = commands.add_parser("encode", help="prompts on standard input to token ids")
    encode_parser.set_defaults(run=encode)
    decode_parser = commands.add_parser("decode", help="token ids on standard input to texts")
    decode_parser.set_defaults(run=decode)
    for command in (prepare_parser, encode_parser, decode_parser):
        command.add_argument("--tokenizer", required=True, help="model directory with tokenizer.json")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    try:
        json.dump(arguments.run(arguments), sys.stdout)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f"the Python package {error.name} is missing; install it with: "
            f"{sys.executable} -m pip install -r ci/requirements.txt",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
