"""Which sources a recorded GPU result depends on: the repository's own files, and stamps that are spoiled."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measured_sources


def hash_of_file(path):
    return hashlib.sha256((measured_sources.ROOT / path).read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dequantize.json").write_text('{"context": {"device": "a GPU"},\n"benchmarks": [\n{"name": "row"}\n]}\n')
    (tmp_path / "tests.json").write_text(json.dumps({"total": {}, "programs": {"quantize_gpu_test": {"tests": 7}}}))
    for name in ("dequantize.json", "tests.json"):
        measured_sources.stamp(tmp_path / name)
    return tmp_path


def spoil(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_every_result_has_sources_of_its_operation():
    for name in measured_sources.all_names():
        assert measured_sources.sources_of(name), name
    linear = measured_sources.sources_of("linear4bit")
    assert {"optimized/linear4bit/few_rows/few_rows_tma.cu", "optimized/matmul.cpp", "bench/gpu/measure.cu"} <= linear.keys()
    for name in measured_sources.RESULTS:
        assert any(path.startswith("optimized/") for path in measured_sources.sources_of(name)), name
    dequantize = measured_sources.sources_of("dequantize")
    assert "optimized/device_math.cuh" in dequantize
    assert not any("linear4bit" in path or "quantize.cu" == Path(path).name for path in dequantize)


def test_a_source_counts_that_defines_a_function_of_another_headers_name():
    assert "optimized/quantize.cu" in measured_sources.sources_of("double_quant_gpu_test")  # quantize_tiles.h
    assert "optimized/attention/warpgroup/warpgroup_forward.cu" in measured_sources.sources_of("attention")
    assert "optimized/sharded/nccl_exchange.cpp" in measured_sources.sources_of("sharded_step")


def test_the_cpu_side_does_not_count():
    for name in measured_sources.all_names():
        assert not any(path.startswith(("core/", "reference/", "app/")) for path in measured_sources.sources_of(name))


def test_what_was_just_stamped_holds(folder, capsys):
    assert measured_sources.check(folder) == {"dequantize", "quantize_gpu_test"}
    assert "again" not in capsys.readouterr().out


def test_a_stamped_file_keeps_its_rows(folder):
    lines = (folder / "dequantize.json").read_text().splitlines()
    assert '{"name": "row"}' in lines
    assert json.loads("\n".join(lines))["context"] == {"device": "a GPU"}


def test_a_changed_file_is_named(folder, capsys):
    def change(content):
        content["measured"]["files"]["optimized/dequantize.cu"] = "0" * 64

    spoil(folder / "dequantize.json", change)
    assert measured_sources.check(folder) == {"quantize_gpu_test"}
    assert "dequantize: to be recorded again; other then: optimized/dequantize.cu" in capsys.readouterr().out


def test_another_comment_outdates_nothing_another_constant_does(folder, monkeypatch):
    texts = {"comment": ("constexpr int kThreads", "// Measured.\nconstexpr  int kThreads"), "code": ("kThreads = 256", "kThreads = 128")}
    text_of = measured_sources.text_of
    for kind, change in texts.items():
        monkeypatch.setattr(measured_sources, "text_of", lambda path: text_of(path).replace(*change))
        assert text_of("optimized/quantize.cu") != measured_sources.text_of("optimized/quantize.cu")
        assert ("quantize_gpu_test" in measured_sources.check(folder)) == (kind == "comment")


def test_a_stamp_of_whole_files_holds(folder):
    def change(content):
        files = content["measured"]["files"]
        files.update((path, hash_of_file(path)) for path in files)

    spoil(folder / "dequantize.json", change)
    assert "dequantize" in measured_sources.check(folder)


def test_a_file_that_came_or_went_is_named(folder, capsys):
    def change(content):
        files = content["programs"]["quantize_gpu_test"]["measured"]["files"]
        files["optimized/gone.cu"] = files.pop("optimized/quantize.cu")

    spoil(folder / "tests.json", change)
    assert measured_sources.check(folder) == {"dequantize"}
    assert "other then: optimized/gone.cu, optimized/quantize.cu" in capsys.readouterr().out


def test_an_old_record_holds_by_content_wherever_its_files_were(folder, capsys):
    spoil(folder / "dequantize.json", lambda content: content.pop("measured"))
    hashes = [hash_of_file(path) for path in measured_sources.sources_of("dequantize")]
    (folder / "sources.sha256").write_text("".join(f"{digest}  moved/{i}.cu\n" for i, digest in enumerate(hashes)))
    assert "dequantize" in measured_sources.check(folder)
    (folder / "sources.sha256").unlink()
    assert "dequantize" not in measured_sources.check(folder)


def test_a_test_that_is_gone_is_said(folder, capsys):
    spoil(folder / "tests.json", lambda content: content["programs"].update(old_gpu_test={"tests": 1}))
    assert "old_gpu_test" not in measured_sources.check(folder)
    assert "no such benchmark or test any more" in capsys.readouterr().out


def test_stamping_twice_is_refused(folder):
    with pytest.raises(SystemExit, match="stamped already"):
        measured_sources.stamp(folder / "dequantize.json")
