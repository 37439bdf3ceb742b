"""A report of the recorded data, drawn once for all tests."""

from pathlib import Path

import pytest

from reports.__main__ import main

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """The folder of a report of everything in tests/data."""
    folder = tmp_path_factory.mktemp("report")
    assert main([str(DATA), "--output", str(folder)]) == 0
    return folder
