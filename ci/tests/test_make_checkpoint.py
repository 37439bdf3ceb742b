"""examples/make_checkpoint: names, shapes and values of a small checkpoint; what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "make_checkpoint"
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2,
          "num_hidden_layers": 3, "vocab_size": 96}  # fmt: skip


def make(tmp_path, name, *options, **changes):
    model = tmp_path / f"{name}-config"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG | changes))
    return subprocess.run([sys.executable, SCRIPT, model, tmp_path / name, *options], text=True, capture_output=True)


def read(directory):
    """Name to values of every tensor, by the index; each file must hold what the index says and nothing else."""
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    tensors = {}
    for path in directory.glob("*.safetensors"):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        assert header.pop("__metadata__") == {"format": "pt"}
        for name, entry in header.items():
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            assert index["weight_map"][name] == path.name and entry["dtype"] == "BF16"
            bits = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            tensors[name] = bits.view(np.float32).reshape(entry["shape"])
        assert end == len(data)
    assert tensors.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(2 * tensor.size for tensor in tensors.values())
    return tensors


def test_a_small_llama(tmp_path):
    run = make(tmp_path, "a", "--layers", "2", "--file-gib", "0.0001")
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    tensors = read(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["num_hidden_layers"] == 2
    shapes = {name: tensor.shape for name, tensor in tensors.items() if ".0." in name or "layers" not in name}
    assert shapes == {
        "model.embed_tokens.weight": (96, 64),
        "model.layers.0.input_layernorm.weight": (64,),
        "model.layers.0.self_attn.q_proj.weight": (64, 64),
        "model.layers.0.self_attn.k_proj.weight": (32, 64),
        "model.layers.0.self_attn.v_proj.weight": (32, 64),
        "model.layers.0.self_attn.o_proj.weight": (64, 64),
        "model.layers.0.post_attention_layernorm.weight": (64,),
        "model.layers.0.mlp.gate_proj.weight": (176, 64),
        "model.layers.0.mlp.up_proj.weight": (176, 64),
        "model.layers.0.mlp.down_proj.weight": (64, 176),
        "model.norm.weight": (64,),
        "lm_head.weight": (96, 64),
    }
    assert len(tensors) == 12 + 9
    for name, tensor in tensors.items():
        if name.endswith("norm.weight"):
            assert (tensor == 1).all()
        else:  # 2,048 values at least: the deviation of their deviation is below 2 %
            assert abs(tensor.std() / 0.02 - 1) < 0.1 and abs(tensor.mean()) < 0.002, name
    assert not np.array_equal(tensors["model.embed_tokens.weight"], tensors["lm_head.weight"])


def test_seed_and_name_decide(tmp_path):
    first, again, other = (make(tmp_path, name, "--seed", seed, *more) for name, seed, more in
                           (("a", "1", ()), ("b", "1", ("--threads", "1", "--file-gib", "1")), ("c", "2", ())))  # fmt: skip
    assert first.returncode == again.returncode == other.returncode == 0
    a, b, c = (read(tmp_path / name) for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["lm_head.weight"], c["lm_head.weight"])


def test_families(tmp_path):
    assert make(tmp_path, "a", model_type="qwen2", tie_word_embeddings=True).returncode == 0
    tensors = read(tmp_path / "a")
    assert "lm_head.weight" not in tensors and not tensors["model.layers.1.self_attn.k_proj.bias"].any()
    assert make(tmp_path, "b", model_type="qwen3", head_dim=32).returncode == 0
    tensors = read(tmp_path / "b")
    assert tensors["model.layers.1.self_attn.q_norm.weight"].shape == (32,)
    assert tensors["model.layers.1.self_attn.q_proj.weight"].shape == (128, 64)


@pytest.mark.parametrize("changes", [{"model_type": "mamba"}, {"model_type": None}])
def test_unknown_families_are_refused(tmp_path, changes):
    run = make(tmp_path, "a", **changes)
    assert run.returncode == 2 and "model_type" in run.stderr
    assert not (tmp_path / "a").exists()


def test_a_directory_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("")
    run = make(tmp_path, "a")
    assert run.returncode == 2 and "not empty" in run.stderr
