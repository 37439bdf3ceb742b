"""Broken inputs of every reader end in a fixed exit code, never in a traceback, and bad ones name the file."""

import json
import random

import pytest

SEED = 20240607
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1e308,
    1e999,
    -0.0,
    "",
    "ns",
    "NaN",
    "\u0000\u001b[31m",
    "\ud800",
    [],
    [[]],
    {},
    {"a": {}},
    10**400,
    "x" * 5000,
    "%0A::error::",
    "<script>&\"']]>",
    "a\nb",
    3.5,
]
ALLOWED = {0, 1, 2, 3, 5}


def places(document, path=()):
    """Every (container, key) in a JSON document."""
    found = []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        found.append((document, key))
        found += places(value)
    return found


def mutated_documents(text, count, generator):
    """`count` texts with one to three values of the document replaced, removed or doubled."""
    for _ in range(count):
        document = json.loads(text)
        for _ in range(generator.randint(1, 3)):
            container, key = generator.choice(places(document))
            action = generator.random()
            if action < 0.2:
                container.pop(key, None) if isinstance(container, dict) else container and container.pop()
            elif action < 0.3 and isinstance(container, list):
                container.append(container[key] if key < len(container) else None)
            elif isinstance(container, dict) or key < len(container):
                container[key] = generator.choice(VALUES)
        yield json.dumps(document).encode()


def mutated_bytes(text, count, generator):
    """`count` byte strings: truncated, with bytes changed, or with a part repeated."""
    data = text.encode()
    for index in range(count):
        place = generator.randrange(len(data))
        if index % 3 == 0:
            yield data[:place]
        elif index % 3 == 1:
            changed = bytearray(data)
            for _ in range(generator.randint(1, 8)):
                changed[generator.randrange(len(data))] = generator.randrange(256)
            yield bytes(changed)
        else:
            yield data[:place] + data[generator.randrange(len(data)) :]


def check(code, out, err, path):
    """What holds for any input."""
    assert code in ALLOWED
    assert "Traceback" not in out + err
    if code == 2:
        errors = [line for line in err.splitlines() if not line.startswith("gate: note: ")]
        assert len(errors) == 1 and str(path) in errors[0] and errors[0].startswith("gate: error: ")


def test_result_files(recorded, tmp_path, run_gate):
    print("seed", SEED)
    generator = random.Random(SEED)
    text = recorded.read_text()
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(text)
    outputs = (
        "--json",
        tmp_path / "o.json",
        "--markdown",
        tmp_path / "o.md",
        "--junit",
        tmp_path / "o.xml",
        "--annotations",
    )
    refused = 0
    for data in [*mutated_documents(text, 300, generator), *mutated_bytes(text, 300, generator)]:
        bad.write_bytes(data)
        sides = (good, bad) if generator.random() < 0.5 else (bad, good)
        code, out, err = run_gate("compare", "--base", sides[0], "--candidate", sides[1], *outputs)
        check(code, out, err, bad if "bad.json" in err else good)
        refused += code == 2
        if code != 2:
            json.loads((tmp_path / "o.json").read_text(), parse_constant=pytest.fail)
            __import__("xml.etree.ElementTree").etree.ElementTree.parse(tmp_path / "o.xml")
    assert refused > 200


def test_every_truncation_is_refused(recorded, tmp_path, run_gate):
    text = recorded.read_text().rstrip()
    bad = tmp_path / "bad.json"
    for length in range(0, len(text), 37):
        bad.write_text(text[:length])
        code, out, err = run_gate("compare", "--base", bad, "--candidate", recorded)
        check(code, out, err, bad)
        assert code == 2


@pytest.mark.parametrize(
    "command, text",
    [
        (
            ("compare", "--base", "{good}", "--candidate", "{good}", "--scatter", "{bad}"),
            json.dumps(
                {"schema": "gate-scatter/1", "context": {"host_name": "recorded"}, "round_scatter": {"BM_ok/64": 0.01}}
            ),
        ),
        (
            ("instructions", "{bad}"),
            json.dumps(
                {
                    "schema": "gate-instructions/1",
                    "limit_percent": 2,
                    "environment": {"machine": "none"},
                    "entries": [
                        {
                            "name": "a",
                            "command": "/nowhere/a --x",
                            "function": "f*",
                            "instructions": 5,
                            "variables": {"A": "1"},
                        }
                    ],
                }
            ),
        ),
        (
            ("sass", "--base", "{bad}", "--candidate", "{bad}"),
            json.dumps(
                {
                    "schema": "gate-sass/1",
                    "kernels": [
                        {
                            "architecture": "sm_90",
                            "name": "k",
                            "registers": 8,
                            "stack": 0,
                            "shared": 0,
                            "code": ["EXIT"],
                        }
                    ],
                }
            ),
        ),
    ],
    ids=["scatter", "instructions", "sass"],
)
def test_records(recorded, tmp_path, run_gate, command, text):
    print("seed", SEED)
    generator = random.Random(SEED)
    bad = tmp_path / "bad.json"
    arguments = [word.format(good=recorded, bad=bad) for word in command]
    for data in [*mutated_documents(text, 120, generator), *mutated_bytes(text, 120, generator)]:
        bad.write_bytes(data)
        code, out, err = run_gate(*arguments)
        err = "\n".join(line for line in err.splitlines() if not line.startswith("gate: counting"))
        check(code, out, err, "bad.json" if "bad.json" in err else "valgrind")
