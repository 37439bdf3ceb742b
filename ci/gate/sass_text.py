"""From the text that cuobjdump prints to kernels that can be compared."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

ARCHITECTURE = re.compile(r"^(?:arch = |\s*code for )(\S+)")
RESOURCES_OF = re.compile(r"^\s*Function (\S+):\s*$")
RESOURCE = re.compile(r"([A-Z]+)(?:\[\d+\])?:(\d+)")
CODE_OF = re.compile(r"^\s*Function : (\S+)\s*$")
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;?\s*(?:/\* 0x[0-9a-f]{16} \*/)?\s*$")
JUMP = re.compile(r"(?:@!?U?P\w+ )?(?:BRA|BRX|BSSY|BREAK|CALL|JMP|JMX|RET|SSY|PBK|PCNT|CAL|WARPSYNC|YIELD)\b")
ADDRESS = re.compile(r"0x[0-9a-f]+")
ANONYMOUS = re.compile(r"(\d+)(?=_GLOBAL__N__)")


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture. stack, shared: bytes. local_accesses: instructions that read or write local memory,
    which spills and indexed arrays do. code: normalised instructions."""

    architecture: str
    name: str
    registers: int
    stack: int
    shared: int
    code: tuple[str, ...]

    @property
    def local_accesses(self) -> int:
        """Number of LDL and STL instructions."""
        return sum(re.search(r"\b(LDL|STL)\b", line) is not None for line in self.code)

    @property
    def digest(self) -> str:
        """SHA-256 of the normalised code."""
        return hashlib.sha256("\n".join(self.code).encode()).hexdigest()


def stable_name(name: str) -> str:
    """`name` with the hash of an anonymous namespace, which depends on the file's path, replaced by the usual mangling."""
    found = ANONYMOUS.search(name)
    if found is None:
        return name
    end = found.end() + int(found.group(1))
    return name[: found.start()] + "12_GLOBAL__N_1" + stable_name(name[end:])


def parse_resources(text: str) -> dict[tuple[str, str], dict[str, int]]:
    """`cuobjdump -res-usage`: (architecture, kernel) to REG, STACK, SHARED and so on."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    architecture, name = "", None
    for line in text.splitlines():
        if match := ARCHITECTURE.match(line):
            architecture = match.group(1)
        elif match := RESOURCES_OF.match(line):
            name = match.group(1)
        elif name is not None and "REG:" in line:
            found[architecture, name] = {key: int(value) for key, value in RESOURCE.findall(line)}
            name = None
    return found


def parse_code(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """`cuobjdump -sass`: (architecture, kernel) to its normalised instructions."""
    listings: dict[tuple[str, str], list[tuple[int, str]]] = {}
    architecture = ""
    current: list[tuple[int, str]] | None = None
    for line in text.splitlines():
        if match := ARCHITECTURE.match(line):
            architecture, current = match.group(1), None
        elif match := CODE_OF.match(line):
            current = listings.setdefault((architecture, match.group(1)), [])
        elif current is not None and (match := INSTRUCTION.match(line)) and not match.group(2).startswith("/*"):
            current.append((int(match.group(1), 16), " ".join(match.group(2).split())))
    return {key: normalise(listing) for key, listing in listings.items()}


def normalise(listing: list[tuple[int, str]]) -> tuple[str, ...]:
    """Instructions without addresses and encodings, jump targets as labels, without the padding at the end.

    An inserted instruction therefore changes one line and not every later one.
    """
    known = {address for address, _ in listing}
    targets = sorted(
        {
            int(word, 16)
            for _, line in listing
            if JUMP.match(line)
            for word in ADDRESS.findall(line)
            if int(word, 16) in known
        }
    )
    labels = {address: f".L{index}" for index, address in enumerate(targets)}

    def target(match: re.Match[str]) -> str:
        return labels.get(int(match.group(), 16), match.group())

    lines = []
    for address, line in listing:
        if address in labels:
            lines.append(labels[address] + ":")
        lines.append(ADDRESS.sub(target, line) if JUMP.match(line) else line)
    while lines and lines[-1] == "NOP":
        lines.pop()
    return tuple(lines)


def kernels(resources_text: str, code_text: str) -> list[Kernel]:
    """All kernels of one `cuobjdump -res-usage` and one `cuobjdump -sass` output, sorted; device functions that have code of
    their own are among them, with 0 for what is not known of them."""
    resources = parse_resources(resources_text)
    found = []
    for (architecture, name), code in sorted(parse_code(code_text).items()):
        usage = resources.get((architecture, name)) or resources.get(
            ("", name), {}
        )  # a cubin's table names no architecture
        found.append(
            Kernel(
                architecture,
                stable_name(name),
                usage.get("REG", 0),
                usage.get("STACK", 0),
                usage.get("SHARED", 0),
                code,
            )
        )
    return found
