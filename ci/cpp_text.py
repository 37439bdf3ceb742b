"""What regular expressions tell of a C++ or CUDA source; standard library only."""

import re

# A string or character is matched so that no comment begins in it.
TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
# A function's head at a namespace's level, as clang-format lays it out: at a line's begin.
HEAD = re.compile(r"^(?!using|return|namespace|static_assert)[\w\[][^;{}()=\n]*?\b(\w+)\(", re.MULTILINE)
BEHIND_PARAMETERS = re.compile(r"\s*(?:noexcept\s*)?([;{])")


def without_comments(text):
    return TOKEN.sub(lambda token: " " if token[0].startswith("/") else token[0], text)


def code_of(text):
    """The text without comments, blank space or line ends that say nothing to a compiler."""
    return " ".join(without_comments(text).split())


def functions(text):
    """(declared, defined): the names of functions at a namespace's level; members of classes are not among them."""
    text = without_comments(text)
    found = {";": set(), "{": set()}
    for head in HEAD.finditer(text):
        behind = BEHIND_PARAMETERS.match(text, end_of_parentheses(text, head.end() - 1))
        if behind:
            found[behind[1]].add(head[1])
    return found[";"], found["{"]


def end_of_parentheses(text, begin):
    """Where the text goes on behind the parentheses that begin there."""
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    return len(text)
