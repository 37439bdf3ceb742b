"""What a run of CTest says by claim (correctness/claims.txt): cases, passed, skipped, failed.

Usage: python3 ci/verify_summary.py LOG [NUMBER OF ALL TESTS]      (LOG: what `ctest` printed)
       python3 ci/verify_summary.py --ignore-case PATTERN          prints PATTERN as one that matches in any case
"""

import fnmatch
import re
import sys
from pathlib import Path

CLAIMS = Path(__file__).resolve().parents[1] / "correctness" / "claims.txt"
RESULT = re.compile(r"^ *\d+/\d+ Test +#\d+: (.+?) \.{2,} *(?:\*+)?(Passed|Failed|Skipped|Not Run|Timeout|Exception|Subprocess)", re.M)
KINDS = {"Passed": "passed", "Skipped": "skipped"}  # everything else failed


def read_claims(path: Path = CLAIMS) -> list[tuple[str, list[str]]]:
    """Each claim with the patterns of its suites, in the file's order."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [(claim, suites.split()) for claim, _, suites in (line.partition(": ") for line in lines)]


def suite_of(test: str) -> str:
    """The suite of a test's name: `Storages/ShardedUnit.Gathers/3` is of ShardedUnit."""
    return test.partition(".")[0].rpartition("/")[2]


def claim_of(test: str, claims: list[tuple[str, list[str]]]) -> str:
    """The first claim with a pattern that matches the test's suite."""
    suite = suite_of(test)
    return next((claim for claim, suites in claims if any(fnmatch.fnmatchcase(suite, one) for one in suites)), "others")


def summary(log: str, all_tests: int | None, claims: list[tuple[str, list[str]]]) -> str:
    """The table, empty where the log holds no test."""
    counts: dict[str, dict[str, int]] = {}
    results = RESULT.findall(log)
    for test, result in results:
        row = counts.setdefault(claim_of(test, claims), {"cases": 0, "passed": 0, "skipped": 0, "failed": 0})
        row["cases"] += 1
        row[KINDS.get(result, "failed")] += 1
    if not results:
        return ""
    width = max(len(claim) for claim in counts)
    lines = [f"{'claim':<{width}}  cases  passed  skipped  failed"]
    for claim, _ in [*claims, ("others", [])]:
        if claim in counts:
            row = counts[claim]
            lines.append(f"{claim:<{width}}  {row['cases']:5}  {row['passed']:6}  {row['skipped']:7}  {row['failed']:6}")
    of_all = f" of {all_tests}" if all_tests else ""
    return "\n".join([*lines, f"{len(results)}{of_all} tests"]) + "\n"


def ignoring_case(pattern: str) -> str:
    """A regular expression for CTest, which knows no flag for it, that matches `pattern` in any case."""
    parts = re.findall(r"\\.|\[[^]]*\]|.", pattern)
    return "".join(_any_case(part) for part in parts)


def _any_case(part: str) -> str:
    if part.startswith("["):
        letters = [c for c in part[1:-1] if c.isalpha()]
        return part[:-1] + "".join(c.swapcase() for c in letters if c.swapcase() not in part) + "]" if "-" not in part else part
    return f"[{part.lower()}{part.upper()}]" if part.isalpha() else part


if __name__ == "__main__":
    if sys.argv[1] == "--ignore-case":
        print(ignoring_case(sys.argv[2]))
    else:
        total = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2].isdigit() else None
        print(summary(Path(sys.argv[1]).read_text(errors="replace"), total, read_claims()), end="")
