"""Ways to build runs and to run the command line."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture
def recorded() -> Path:
    """A result that Google Benchmark 1.7.1 wrote: two benchmarks with three repetitions and one that reports an error."""
    return DATA / "google_benchmark.json"


@pytest.fixture
def write_result(tmp_path):
    """Writes a result file from {name: time, list of times, or a dict of entry keys} and returns its path."""

    def write(stem: str, rows: dict, context: dict | None = None, unit: str = "ns") -> str:
        entries = []
        for name, value in rows.items():
            if isinstance(value, dict):
                entries.append({"name": name, "run_name": name, "run_type": "iteration", "time_unit": unit} | value)
                continue
            for index, time in enumerate(value if isinstance(value, list) else [value]):
                entries.append(
                    {
                        "name": name,
                        "run_name": name,
                        "run_type": "iteration",
                        "repetition_index": index,
                        "real_time": time,
                        "cpu_time": time,
                        "time_unit": unit,
                    }
                )
        path = tmp_path / f"{stem}.json"
        path.write_text(
            json.dumps({"context": {"host_name": "one"} if context is None else context, "benchmarks": entries})
        )
        return str(path)

    return write


@pytest.fixture
def run_gate(capsys):
    """Runs the command line and returns (exit code, standard output, standard error)."""
    from gate.cli import main

    def run(*arguments: str):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = end.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def compare(write_result, run_gate):
    """`gate compare` of 12 rounds made from two functions round -> rows; returns (exit code, output, errors)."""

    def run(base, candidate, *arguments: str, rounds: int = 12, contexts=(None, None), units=("ns", "ns")):
        one = [write_result(f"b{k}", base(k), contexts[0], units[0]) for k in range(rounds)]
        other = [write_result(f"c{k}", candidate(k), contexts[1], units[1]) for k in range(rounds)]
        return run_gate("compare", "--base", *one, "--candidate", *other, *arguments)

    return run
