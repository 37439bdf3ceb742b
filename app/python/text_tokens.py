"""Text to tokens and back, by the tokenizers and chat templates of transformers; called by the qshard program.

prepare  turns files of rows (JSONL, a JSON list, CSV or Parquet) into a safetensors file of input_ids I32 [total],
         labels I32 [total] (-100: masked) and offsets I64 [rows + 1], kept under a hash of everything it depends on.
show     prints rows of a prepared file as text, what is learned set apart.
encode   turns prompts (JSON on standard input) into token ids (JSON on standard output).
decode   turns token ids into texts, likewise.
serve    answers lines of JSON on standard input, each {"encode": {...}} or {"decode": ids}, line by line.

Wrong input ends with exit code 2 and one message that names file and line; a lack of memory with 3.
"""

import argparse
import errno
import json
import mmap
import os
import pathlib
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from input_error import InputError  # noqa: E402
from prepared_file import (  # noqa: E402
    IGNORED_LABEL,
    Columns,
    cache_key,
    is_whole,
    read_prepared,
    tokenize,
    write_prepared,
)
from row_reader import read_rows  # noqa: E402
from template_limits import BAD_INPUT, OUT_OF_RESOURCES, limited_memory, run_supervised  # noqa: E402

ROWS_AT_ONCE = 1000
ROOM = 160 << 20  # bytes of address space for the libraries; with too few, NumPy's OpenBLAS asks for them again without end


class Text:
    """The tokenizer and the chat template of a model directory."""

    def __init__(self, arguments):
        from chat_template import ChatTemplate, fix_date
        from tokenizer_files import load_tokenizer

        self.directory = arguments.tokenizer
        self.tokenizer, self.notes = load_tokenizer(self.directory)
        self.template = ChatTemplate(self.tokenizer, self.directory)
        if arguments.template_date:
            fix_date(arguments.template_date)

    def encode(self, prompts=(), file=None, chat=False, system=None, stop=()):
        """Token ids of prompts, given and of a file; with `chat` all of them are conversations. `stop`: texts that end one."""
        from prompts import as_conversation, read_prompts, split_stops
        from row_formats import Renderer
        from tokenizer_files import stop_ids

        requests = [(f"prompt {i + 1}", prompt) for i, prompt in enumerate(prompts)]
        requests += [] if file is None else read_prompts(file)
        if chat:
            requests = [(where, as_conversation(request, system, where)) for where, request in requests]
        renderer = Renderer(self.tokenizer, self.template)
        with limited_memory():
            rows = [renderer.render_prompt(request, where) for where, request in requests]
        ids = [encoded for encoded, _ in tokenize(self.tokenizer, rows)]
        for (where, _), encoded in zip(requests, ids):
            if not encoded:
                raise InputError(f"{where} has no token; give a text to go on from")
        ending, texts = split_stops(self.tokenizer, stop)
        ending = sorted({*ending, *stop_ids(self.tokenizer, self.directory)})
        return {"ids": ids, "stop_ids": ending, "stop_texts": texts, "prompts": [row.text for row in rows]}

    def decode(self, rows):
        return {"texts": [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]}


def _progress(arguments, text):
    if arguments.progress:
        print(f"progress {text}", file=sys.stderr, flush=True)


def _notes(text, rows, row_format, arguments):
    from row_formats import unused_columns

    notes = list(text.notes)
    unused = unused_columns(rows[0][1], row_format, arguments.text_field)
    if unused:
        notes.append(f"columns that are not used: {', '.join(unused)}")
    if text.tokenizer.eos_token is None:
        notes.append("the tokenizer has no end of text: the model does not learn where to stop")
    return notes


def _note_missing_bos(text, columns, row_format):
    first = columns.input_ids[0] if columns.input_ids else None
    plain = text.tokenizer("x")["input_ids"]
    bos = text.tokenizer.bos_token_id
    if row_format == "messages" and bos is not None and plain[:1] == [bos] and first != bos:
        return [f"the chat template does not begin with {text.tokenizer.bos_token}, which plain text does; as transformers"]
    return []


def _prepare_rows(arguments, inputs):
    from row_formats import Renderer, detect_format, rename_columns

    rows = [row for path in inputs for row in read_rows(path)]
    rows = [(where, rename_columns(fields, arguments.columns, where)) for where, fields in rows]
    row_format = arguments.format
    if row_format == "auto":
        row_format = detect_format(rows[0][1], arguments.text_field, rows[0][0])
    text = Text(arguments)
    renderer = Renderer(text.tokenizer, text.template, arguments.text_field, arguments.completion_only_loss)
    columns = Columns()
    for start in range(0, len(rows), ROWS_AT_ONCE):
        with limited_memory():
            some = [renderer.render(fields, row_format, where) for where, fields in rows[start : start + ROWS_AT_ONCE]]
        for ids, labels in tokenize(text.tokenizer, some):
            columns.append(ids, labels)
        _progress(arguments, f"{min(start + ROWS_AT_ONCE, len(rows))} of {len(rows)} rows")
    return columns, _notes(text, rows, row_format, arguments) + _note_missing_bos(text, columns, row_format)


def prepare(arguments):
    inputs = [pathlib.Path(path) for path in arguments.input]
    for path in inputs:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    settings = [arguments.format, arguments.text_field, arguments.completion_only_loss, arguments.columns]
    key = cache_key(settings, arguments.tokenizer, inputs, arguments.template_date)
    path = pathlib.Path(arguments.cache) / f"{inputs[0].stem}-{key}.safetensors"
    cached = path.is_file() and is_whole(path)
    if cached:
        notes = read_prepared(path)[3]
    else:
        columns, notes = _prepare_rows(arguments, inputs)
        write_prepared(path, columns, notes)
    return {"path": str(path), "cached": cached, "notes": notes}


def _segments(ids, labels):
    """[(learned, ids)]: neighbours that are alike."""
    segments = []
    for token, label in zip(ids.tolist(), labels.tolist()):
        learned = label != IGNORED_LABEL
        if not segments or segments[-1][0] != learned:
            segments.append((learned, []))
        segments[-1][1].append(token)
    return segments


def show(arguments):
    input_ids, labels, offsets, _ = read_prepared(arguments.prepared)
    tokenizer = Text(arguments).tokenizer
    rows = []
    for row in range(min(arguments.rows, len(offsets) - 1)):
        begin, end = int(offsets[row]), int(offsets[row + 1])
        rows.append(
            [
                {"learned": learned, "tokens": len(ids), "text": tokenizer.decode(ids, skip_special_tokens=False)}
                for learned, ids in _segments(input_ids[begin:end], labels[begin:end])
            ]
        )
    return {"rows": rows}


def encode(arguments):
    return Text(arguments).encode(json.load(sys.stdin))


def decode(arguments):
    return Text(arguments).decode(json.load(sys.stdin))


def _answer(text, line):
    request = json.loads(line)
    try:
        return text.encode(**request["encode"]) if "encode" in request else text.decode(request["decode"])
    except InputError as error:
        return {"error": str(error)}


def serve(arguments):
    text = Text(arguments)
    for line in sys.stdin:
        print(json.dumps(_answer(text, line)), flush=True)


def _column(text):
    known, equals, name = text.partition("=")
    if not (known and equals and name):
        raise argparse.ArgumentTypeError(f"{text}: expected KNOWN=COLUMN")
    return known, name


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    prepare_parser = commands.add_parser("prepare", help="tokenize a data set")
    prepare_parser.add_argument("--input", required=True, action="append", help="file of rows; may be given again")
    prepare_parser.add_argument("--cache", required=True, help="directory for prepared files")
    prepare_parser.add_argument(
        "--format", default="auto", choices=["auto", "alpaca", "prompt_completion", "messages", "text"]
    )
    prepare_parser.add_argument("--text-field", default="text", help="field of the text format")
    prepare_parser.add_argument(
        "--column", type=_column, action="append", default=[], metavar="KNOWN=COLUMN", help="a column under another name"
    )
    prepare_parser.add_argument(
        "--no-completion-only-loss", dest="completion_only_loss", action="store_false", help="learn the prompts too"
    )
    prepare_parser.add_argument("--progress", action="store_true", help="say on standard error how far it is")
    prepare_parser.set_defaults(run=prepare)
    show_parser = commands.add_parser("show", help="rows of a prepared file as text")
    show_parser.add_argument("--prepared", required=True, help="safetensors file")
    show_parser.add_argument("--rows", type=int, default=3)
    show_parser.set_defaults(run=show)
    for name, run, text in (
        ("encode", encode, "prompts on standard input to token ids"),
        ("decode", decode, "token ids on standard input to texts"),
        ("serve", serve, "both, line by line"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=run)
    for command in commands.choices.values():
        command.add_argument("--tokenizer", required=True, help="model directory with the tokenizer's files")
        command.add_argument("--template-date", default="", help="ISO date that strftime_now of templates says")
    arguments = parser.parse_args(words)
    arguments.columns = dict(getattr(arguments, "column", []))
    return arguments


def work(arguments):
    """Exit code of a command; its answer goes to standard output."""
    try:
        mmap.mmap(-1, ROOM).close()
        answer = arguments.run(arguments)
        if answer is not None:
            json.dump(answer, sys.stdout)
        return 0
    except (InputError, UnicodeEncodeError) as error:
        message = str(error)
    except MemoryError:
        print("out of memory while tokenizing; a chat template or a row asks for too much", file=sys.stderr)
        return OUT_OF_RESOURCES
    except OSError as error:
        advice = "; raise the limit on address space (ulimit -v)" if error.errno == errno.ENOMEM else ""
        print(f"{error.filename or 'tokenization'}: {error.strerror or error}{advice}", file=sys.stderr)
        lacks = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
        return OUT_OF_RESOURCES if lacks else BAD_INPUT
    except ModuleNotFoundError as error:
        install = f"{sys.executable} -m pip install -r ci/requirements.txt"
        message = f"the Python package {error.name} is missing; install it with: {install}"
    except BaseException as error:  # the libraries raise anything
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        if type(error).__name__ == "PanicException" and os.strerror(errno.EAGAIN) in str(error):
            print("the tokenizers library can start no thread; raise the limits (ulimit -u, ulimit -v)", file=sys.stderr)
            return OUT_OF_RESOURCES
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        message = f"{arguments.tokenizer}: {type(error).__name__}: {reason} ({place.filename}:{place.lineno})"
    print(message, file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    os.environ.setdefault("PYTHONIOENCODING", "utf-8")
    os.environ["RUST_BACKTRACE"] = "0"  # the tokenizers library's own words are enough
    given = parse_arguments()
    sys.exit(run_supervised(lambda: work(given)))
