"""Divides C++ files into groups that compile as one: no group holds a name twice that two of its files keep to themselves.

Usage: unity_groups.py LARGEST FILE...; prints one "GROUP FILE" a line. A group has at most LARGEST files. The names of a
file are those that its unnamed namespaces declare at the beginning of a line, as clang-format leaves them, and its tests.
"""

import re
import sys
from pathlib import Path

# What is declared, in the order in which it is tried: a type, a test, and a function or a value by the name before (, =, { or ;.
DECLARATIONS = [
    re.compile(r"^(?:struct|class|enum class|enum|union|using|concept) (\w+)"),
    re.compile(r"^TEST(?:_F|_P)?\((\w+, \w+)\)"),
    re.compile(r"^[\w:<>,&*\s\[\]()]*?[\s&*](\w+)(?:\[[^\]]*\])*\s*[({=;]"),
]
SHARED = re.compile(r"^(?:using [\w:]+;|namespace \w+ =|template|[\s#/}])")  # may stand in a group twice, or declare nothing


def private_names(text: str) -> set[str]:
    names = set()
    is_private = False
    for line in text.splitlines():
        if line == "namespace {":
            is_private = True
        elif line.startswith("}  // namespace"):
            is_private = False
        elif is_private and line and not SHARED.match(line):
            matches = (pattern.match(line) for pattern in DECLARATIONS)
            found = next((match for match in matches if match), None)
            if found:
                names.add(found[1])
    return names


def groups_of(files: list[str], largest: int) -> list[list[str]]:
    groups: list[tuple[list[str], set[str]]] = []
    for file in files:
        names = private_names(Path(file).read_text())
        for members, taken in groups:
            if len(members) < largest and not names & taken:
                members.append(file)
                taken |= names
                break
        else:
            groups.append(([file], set(names)))
    return [members for members, _ in groups]


def main() -> None:
    for number, members in enumerate(groups_of(sys.argv[2:], int(sys.argv[1]))):
        for file in members:
            print(number, file)


if __name__ == "__main__":
    main()
