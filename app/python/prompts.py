"""Prompts to go on from: each a text or a conversation, given one by one or in a file; and the texts that end an answer."""

import pathlib

from input_error import InputError
from row_reader import read_lines_of_text, read_rows

ROWS_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
SYSTEM_ROLES = ("system", "developer")


def _holds_rows(path):
    if path.suffix in ROWS_SUFFIXES:
        return True
    if path.suffix == ".txt":
        return False
    with open(path, "rb") as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def read_prompts(path):
    """[(place, request)] of a file of rows with prompt, messages or instruction, or of lines of text."""
    path = pathlib.Path(path)
    if _holds_rows(path):
        return read_rows(path)
    prompts = [(where, {"prompt": line}) for where, line in read_lines_of_text(path) if line.strip()]
    if not prompts:
        raise InputError(f"{path}: holds no prompt")
    return prompts


def _with_system(messages, system):
    has_own = isinstance(messages[0], dict) and messages[0].get("role") in SYSTEM_ROLES
    return messages if has_own else [{"role": "system", "content": system}, *messages]


def as_conversation(request, system, where):
    """A text prompt as the user's message; `system`, if any, speaks first where the conversation has none of its own."""
    name = next((name for name in ("prompt", "messages", "conversations") if name in request), None)
    if name is None:
        raise InputError(f"{where}: a chat goes on from prompt or messages, got {', '.join(request) or '(nothing)'}")
    messages = request[name]
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": messages}]
    if messages and system is not None:
        messages = _with_system(messages, system)
    others = {key: value for key, value in request.items() if key != name}
    return {**others, "messages": messages}


def split_stops(tokenizer, texts):
    """(ids, texts) that end an answer: a special token, which is never printed, by its id; everything else by its text."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for text in tokenizer.all_special_tokens:
        special.setdefault(text, tokenizer.convert_tokens_to_ids(text))
    ids = [special[text] for text in texts if text in special]
    rest = [text for text in texts if text not in special]
    for text in rest:
        if not text:
            raise InputError("--stop: an empty text would end every answer before it begins")
        for token in special:
            if token in text:
                raise InputError(
                    f'--stop: "{text}" holds the special token {token}, which is never printed; give {token} alone'
                )
    return ids, rest
