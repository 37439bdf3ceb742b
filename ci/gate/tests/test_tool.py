"""Running a tool and keeping what it says."""

import os
import sys

import pytest

from gate.errors import InputError
from gate.tool import run_tool, tool_failure


def python(code, **options):
    return run_tool([sys.executable, "-c", code], "record.json", "the tool", os.environ, **options)


def test_what_it_says_is_kept():
    done = python("import sys; print('out'); print('a\\nb\\nc\\nd', file=sys.stderr); sys.exit(3)")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert str(tool_failure(done, "record.json", "the tool", "look")) == (
        "record.json: the tool ended with status 3: b | c | d; look"
    )


def test_it_has_nothing_to_read():
    assert python("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"


def test_a_tool_that_does_not_end_is_refused():
    with pytest.raises(InputError, match="record.json: the tool did not finish in 0.2 s"):
        python("import time; time.sleep(60)", timeout=0.2)


def test_a_tool_that_cannot_be_started_is_refused():
    with pytest.raises(InputError, match="record.json: cannot start /nowhere/tool: .*; install it"):
        run_tool(["/nowhere/tool"], "record.json", "the tool", os.environ, "install it")
