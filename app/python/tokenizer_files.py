"""A model directory's tokenizer, loaded by transformers, and the files that decide what it does."""

import json
import os
import pathlib

from input_error import InputError

FILE_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")


def tokenizer_files(directory):
    """Every file of the directory that the tokenizer and its templates are read from."""
    directory = pathlib.Path(directory)
    named = [directory / name for name in FILE_NAMES]
    further = sorted((directory / "additional_chat_templates").glob("*.jinja"))
    return [path for path in (*named, *further) if path.is_file()]


def read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object")
    return content


def _model_values(directory, key):
    """What config.json and generation_config.json say, with the file that says it."""
    values = []
    for name in ("generation_config.json", "config.json"):
        path = pathlib.Path(directory) / name
        value = read_json(path).get(key) if path.is_file() else None
        several = value if isinstance(value, list) else [] if value is None else [value]
        values += [(path, value) for value in several]
    return values


def _token_ids(directory, key):
    """_model_values that must be token ids; some write -1 for none."""
    values = _model_values(directory, key)
    for path, value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{path}: {key} is {value!r}, not a token id")
    return [value for _, value in values if value >= 0]


def stop_ids(tokenizer, directory):
    """Tokens that end a text: eos of the tokenizer and those of generation_config.json and config.json."""
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return sorted({*own, *_token_ids(directory, "eos_token_id")})


def _quiet_transformers():
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import transformers

    transformers.utils.logging.set_verbosity_error()


def load_tokenizer(directory):
    """The tokenizer as transformers has it; (tokenizer, notes)."""
    path = pathlib.Path(directory)
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"{path}: tokenizer.json is missing; the directory holds no tokenizer that can be read")
    for name in ("tokenizer_config.json", "config.json"):
        if (path / name).is_file():
            read_json(path / name)
    _quiet_transformers()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries raise anything, bare Exception too
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a tokenizer that transformers can load: {reason}") from None
    notes = []
    ends = [i for _, i in _model_values(directory, "eos_token_id") if isinstance(i, int)]
    if tokenizer.eos_token is None and ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
        notes.append(f"the tokenizer names no end of text; {tokenizer.eos_token} is taken from the model's configuration")
    return tokenizer, notes
