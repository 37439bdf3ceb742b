"""Kernels that start before earlier ones end wait for them.

A missing wait shows in no test of one kernel: what its inputs come from has long ended there. The GPU tests early_launch_*
write the inputs late; this needs no GPU, and finds a wait that is missing in kernels for shapes that those do not have."""
import re
import sys
from functools import lru_cache
from pathlib import Path

OPTIMIZED = Path(__file__).resolve().parents[2] / "optimized"
WAIT = re.compile(r"\b(?:grid_dependency_synchronize|begin_early_kernel)\(\)")
DEFINITION = re.compile(r"\b(__global__|__device__)\b[^;{}]*?\b(\w+)\((?=[^;{}]*\{)")
ATTRIBUTE = re.compile(r"__(?:launch_bounds|cluster_dims)__\((?:[^()]|\([^()]*\))*\)")
PLAIN_LAUNCH = re.compile(r"\b(\w+)(?:<[^;{}()]*>)?\s*<<<")


def body_at(text, start):
    begin = text.index("{", start)
    depth = 0
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin:end]
    raise ValueError(f"no end of what begins with {text[start:start + 80]!r}")


@lru_cache(maxsize=None)
def sources():
    files = [path for path in sorted(OPTIMIZED.rglob("*")) if path.suffix in (".cu", ".cuh", ".h")]
    return {path: ATTRIBUTE.sub("", re.sub(r"//.*", "", path.read_text())) for path in files}


def functions(kind):
    """Name and file -> bodies; overloads have several."""
    found = {}
    for path, text in sources().items():
        for match in DEFINITION.finditer(text):
            if match[1] == kind:
                found.setdefault((match[2], path), []).append(body_at(text, match.end()))
    return found


def called_from(path, name, device):
    """(file, body) of the functions of that name in the file, or else in its folder."""
    for near in (lambda other: other == path, lambda other: other.parent == path.parent):
        found = [(other, body) for (known, other), bodies in device.items() if known == name and near(other) for body in bodies]
        if found:
            return found
    return []


def waits(path, body, device, depth=3):
    if WAIT.search(body):
        return True
    names = set(re.findall(r"\b(\w+)(?:<[^;{}()]*>)?\(", body))
    return depth > 0 and any(waits(other, inner, device, depth - 1) for name in names for other, inner in called_from(path, name, device))


def plainly_launched():
    """By name, or by a variable that is given the name."""
    names = set()
    for text in sources().values():
        for launched in PLAIN_LAUNCH.findall(text):
            given = re.search(rf"\bauto {launched} = ([^;]*);", text)
            names.update(re.findall(r"\w+", given[1]) if given else [launched])
    return names


def kernels_without_a_wait():
    device = functions("__device__")
    plain = plainly_launched()
    return sorted(f"{name} ({path.relative_to(OPTIMIZED)})" for (name, path), bodies in functions("__global__").items()
                  if name not in plain and not all(waits(path, body, device) for body in bodies))


def test_there_are_kernels():
    assert len(functions("__global__")) > 50


def test_every_early_kernel_waits():
    assert kernels_without_a_wait() == []


def test_a_forgotten_wait_is_found(monkeypatch):
    rope = next(path for path in sources() if path.name == "rope.cu")
    without = {path: WAIT.sub("", text) if path == rope else text for path, text in sources().items()}
    monkeypatch.setattr(sys.modules[__name__], "sources", lambda: without)
    assert kernels_without_a_wait() == ["rotate_kernel (rope.cu)"]
