"""The one error type of the gate and its fixed exit codes."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Meaning of the gate's exit status, the same numbers as in the project's other programs; never a count."""

    PASS = 0
    REGRESSION = 1
    BAD_INPUT = 2
    OUT_OF_RESOURCES = 3
    UNSURE = 5
    INTERRUPTED = 130


def one_line(text: object, limit: int = 300) -> str:
    """`text` with every control character escaped and at most `limit` characters, safe in a message."""
    characters = [c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text)]
    joined = "".join(characters)
    return joined if len(joined) <= limit else joined[: limit - 3] + "..."


class InputError(Exception):
    """Bad input or usage: where it is (file or option), what is wrong, what to do. Ends in exit code 2."""

    def __init__(self, where: object, what: object, remedy: str = "") -> None:
        self.where = one_line(where)
        message = f"{self.where}: {one_line(what, 1200)}"
        super().__init__(f"{message}; {remedy}" if remedy else message)
