"""One number for all ids and labels of a data set, whoever made them."""

import array
import hashlib


def digest_of(rows):
    """(tokens, SHA-256 of the rows' lengths, ids and labels) of an iterable of (input_ids, labels)."""
    digest, tokens = hashlib.sha256(), 0
    for ids, labels in rows:
        tokens += len(ids)
        for numbers in ([len(ids)], ids, labels):
            digest.update(array.array("i", numbers).tobytes())
    return tokens, digest.hexdigest()
