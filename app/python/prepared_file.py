"""Rows as token ids and labels, and the file that keeps them under a key of everything they depend on."""

import datetime
import hashlib
import importlib.metadata
import json
import pathlib
from array import array

from input_error import InputError
from tokenizer_files import tokenizer_files
from whole_file import remove_leftovers, replace_file

# Part of the cache key: raise it whenever the same input would give other tokens.
PREPARATION_VERSION = 4
IGNORED_LABEL = -100
LIBRARIES = ("transformers", "tokenizers", "jinja2")
METADATA = "qshard"


def _common_length(a, b):
    length = 0
    for left, right in zip(a, b):
        if left != right:
            break
        length += 1
    return length


def _mask_of_spans(offsets, spans):
    """1 for each token that overlaps a span; tokens and spans are in order."""
    mask, at = [], 0
    for begin, end in offsets:
        while at < len(spans) and begin >= spans[at][1]:
            at += 1
        mask.append(at < len(spans) and end > spans[at][0])
    return mask


def _encode(tokenizer, texts, is_plain, with_offsets=False):
    if not texts:
        return {"input_ids": [], "offset_mapping": []}
    return tokenizer(texts, add_special_tokens=is_plain, return_attention_mask=False, return_offsets_mapping=with_offsets)


def _labels(ids, learned):
    return [token if bit else IGNORED_LABEL for token, bit in zip(ids, learned)]


def tokenize(tokenizer, rows):
    """(ids, labels) of each Row. After a prompt the answer begins at the first token that differs from the prompt's."""
    result = [(row.ids, _labels(row.ids, row.mask)) if row.ids is not None else None for row in rows]
    for is_plain in (True, False):
        for has_spans in (False, True):
            chosen = [
                i
                for i, row in enumerate(rows)
                if row.ids is None and row.is_plain == is_plain and (row.spans is not None) == has_spans
            ]
            encoded = _encode(tokenizer, [rows[i].text for i in chosen], is_plain, has_spans)
            prompted = [i for i in chosen if rows[i].prompt is not None]
            prompts = dict(zip(prompted, _encode(tokenizer, [rows[i].prompt for i in prompted], is_plain)["input_ids"]))
            for place, i in enumerate(chosen):
                ids = encoded["input_ids"][place]
                labels = ids
                if has_spans:
                    labels = _labels(ids, _mask_of_spans(encoded["offset_mapping"][place], rows[i].spans))
                elif i in prompts:
                    masked = _common_length(prompts[i], ids)
                    labels = [IGNORED_LABEL] * masked + ids[masked:]
                result[i] = (ids, labels)
    return result


class Columns:
    """The three columns of a prepared file, filled row by row."""

    def __init__(self):
        self.input_ids, self.labels, self.offsets = array("i"), array("i"), array("q", [0])

    def append(self, ids, labels):
        self.input_ids.extend(ids)
        self.labels.extend(labels)
        self.offsets.append(len(self.input_ids))


def _template_date(given, contents):
    """The date that a template may print: the given one, or today's where a template asks for it."""
    if given:
        return given
    return datetime.date.today().isoformat() if any(b"strftime_now" in content for content in contents) else ""


def cache_key(settings, tokenizer_directory, inputs, template_date):
    """A hash of the settings, the libraries, the tokenizer's files, the inputs and the date that a template prints."""
    files = tokenizer_files(tokenizer_directory)
    contents = [path.read_bytes() for path in files]
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    head = [PREPARATION_VERSION, versions, settings, [path.name for path in files], _template_date(template_date, contents)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for content in [*contents, *(pathlib.Path(path).read_bytes() for path in inputs)]:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:32]


def _content_hash(columns, notes):
    """A hash of everything that a prepared file says."""
    digest = hashlib.sha256(json.dumps(notes).encode())
    for name, column in sorted(columns.items()):
        digest.update(f"{name} {column.dtype} {column.shape} ".encode())
        digest.update(column.tobytes())
    return digest.hexdigest()


def _serialize(arrays, notes):
    """The file's bytes. The same rows give the same: one entry of metadata, since safetensors writes several in any order."""
    from safetensors.numpy import save

    return save(arrays, {METADATA: json.dumps({"notes": notes, "sha256": _content_hash(arrays, notes)})})


def write_prepared(path, columns, notes):
    import numpy

    arrays = {
        "input_ids": numpy.frombuffer(columns.input_ids, dtype=numpy.int32),
        "labels": numpy.frombuffer(columns.labels, dtype=numpy.int32),
        "offsets": numpy.frombuffer(columns.offsets, dtype=numpy.int64),
    }
    content = _serialize(arrays, notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    replace_file(path, content)


def _read(path):
    """(columns by name, notes) of a prepared file. Errors: as read_prepared."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            columns = {name: file.get_tensor(name) for name in ("input_ids", "labels", "offsets")}
            metadata = (file.metadata() or {}).get(METADATA)
        if metadata is None:  # somebody else's file
            return columns, []
        said = json.loads(metadata)
        notes, checksum = said["notes"], said["sha256"]
    except (SafetensorError, KeyError, ValueError, TypeError, UnicodeError) as error:
        raise InputError(f"{path}: not a prepared data set that can be read: {' '.join(str(error).split())}") from None
    if checksum != _content_hash(columns, notes):
        raise InputError(f"{path}: is not what was written: its checksum differs")
    return columns, notes


def read_prepared(path):
    """(input_ids, labels, offsets, notes) of a prepared file. Errors: InputError for one that is not what was written."""
    columns, notes = _read(path)
    return columns["input_ids"], columns["labels"], columns["offsets"], notes


def is_whole(path):
    """Whether a file of the cache is as it was written, to the last byte."""
    try:
        return path.read_bytes() == _serialize(*_read(path))
    except (InputError, OSError):
        return False
