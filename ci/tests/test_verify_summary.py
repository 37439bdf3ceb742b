"""The summary of `qshard verify`: every suite has a claim, results are counted, patterns match in any case."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci"))

from verify_summary import claim_of, ignoring_case, read_claims, suite_of, summary  # after the path is set

LOG = """
      Start  1: Quantize.A
 1/5 Test  #1: Quantize.A .......................   Passed    0.01 sec
 2/5 Test  #2: QuantizeGpu.B ....................***Skipped   0.01 sec
 3/5 Test  #3: All/ShardedUnitTest.C/nf4_2 ......***Failed    0.01 sec
 4/5 Test #14: Progress.D .......................***Timeout 600.00 sec
 5/5 Test #15: Quantize.E .......................   Passed    0.01 sec
"""


def test_results_are_counted_by_claim():
    text = summary(LOG, 435, read_claims())
    lines = {line.rsplit(maxsplit=4)[0]: line.split()[-4:] for line in text.splitlines()[1:-1]}
    assert lines["quantize and dequantize equal bitsandbytes to the bit"] == ["2", "2", "0", "0"]
    assert lines["the CUDA kernels equal the reference, to the bit or within a stated bound"] == ["1", "0", "1", "0"]
    assert lines["shards and ranks change no bit"] == ["1", "0", "0", "1"]
    assert lines["the parts underneath"] == ["1", "0", "0", "1"]
    assert text.endswith("5 of 435 tests\n") and summary("", 3, read_claims()) == ""


def test_suites_of_instantiations_and_first_claims():
    assert suite_of("Storages/ShardedUnitTest.Gathers/3") == "ShardedUnitTest"
    assert claim_of("QuantizeGpu.X", read_claims()) != claim_of("Quantize.X", read_claims())


@pytest.mark.parametrize("pattern", ["quantize", "^QUANT.*gpu", r"a\.b", "[qx]uan"])
def test_patterns_match_in_any_case(pattern):
    made = ignoring_case(pattern)
    for name in ("Quantize.A", "quantizeGpu.B", "a.b", "A.B", "Xuantum"):
        assert bool(re.search(made, name)) == bool(re.search(pattern, name, re.IGNORECASE)), name


def test_the_example_of_the_help_finds_every_suite_that_it_names():
    sources = subprocess.run(
        ["git", "-C", ROOT, "grep", "-ho", r"^TEST\(_F\|_P\|\)(Quantize[A-Za-z]*", "--", "correctness"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    suites = {line.partition("(")[2] for line in sources.split()}
    assert len(suites) >= 4 and all(re.search(ignoring_case("quantize"), suite) for suite in suites)
