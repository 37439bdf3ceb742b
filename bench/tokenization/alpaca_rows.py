"""Makes rows of Alpaca's columns and lengths from the words of a text file: the same rows for the same seed.

    python3 alpaca_rows.py --words TEXT --rows 50000 --out rows.jsonl

Lengths follow the published set of 52,002 rows: an instruction of about 60 characters, an input of about 60 in four rows
of ten, an output of about 270 with a long tail.
"""

import argparse
import json
import math
import random
import re


def text(words, generator, median):
    """Words up to a length that is log-normal around `median` characters."""
    length = generator.lognormvariate(math.log(median), 0.6)
    some = [generator.choice(words)]
    characters = len(some[0])
    while characters < length:
        some.append(generator.choice(words))
        characters += 1 + len(some[-1])
    return " ".join(some).capitalize() + "."


def make_rows(words, rows, seed=1):
    generator = random.Random(seed)
    for _ in range(rows):
        yield {
            "instruction": text(words, generator, 55),
            "input": text(words, generator, 50) if generator.random() < 0.4 else "",
            "output": text(words, generator, 225),
        }


def write_rows(source, path, rows, seed=1):
    with open(source, encoding="utf-8") as file:
        words = re.findall(r"[^\W\d_]+", file.read())
    with open(path, "w", encoding="utf-8") as file:
        for row in make_rows(words, rows, seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", required=True, help="a text file")
    parser.add_argument("--rows", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    write_rows(options.words, options.out, options.rows, options.seed)
