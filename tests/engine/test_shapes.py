"""Published shapes: their counts are the published ones, and names find them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewright.engine.shapes import SHAPES, SIZES, find_shape, published, read_model
from tunewright.foundation.errors import TunewrightError

PUBLISHED = {
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-1.7B": 1_711_376_384,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-72B": 72_706_203_648,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Mistral-7B": 7_248_023_552,
    "Gemma-2-2b": 2_614_341_888,
    "Gemma-2-9b": 9_241_705_984,
    "Gemma-2-27b": 27_227_128_320,
    "Phi-4": 14_659_507_200,
}
"""The parameters that the Hub shows for the models' safetensors files."""


def test_every_shape_has_the_published_parameters() -> None:
    assert {name: published(name).anatomy.total_parameters for name in SHAPES} == PUBLISHED
    assert set(SIZES.values()) <= set(SHAPES)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("8b", "Llama-3.1-8B"),
        ("70B", "Llama-3.1-70B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-70B", "Llama-3.1-70B"),
        ("Qwen/Qwen3-4B-Instruct-2507", "Qwen3-4B"),
        ("google/gemma-2-9b-it", "Gemma-2-9b"),
        ("mistralai/Mistral-7B-v0.3", "Mistral-7B"),
        ("microsoft/phi-4", "Phi-4"),
        ("Qwen/Qwen3-4", None),
        ("9000b", None),
    ],
)
def test_names_find_shapes(name: str, shape: str | None) -> None:
    assert find_shape(name) == shape


def test_a_file_comes_before_a_shape_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "8b"
    folder.mkdir()
    shape = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "vocab_size": 256, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    found = read_model("8b")
    assert (found.anatomy.layers, found.note) == (2, "")
    assert read_model("1b").note == "The shape is Llama-3.2-1B's published one."


@pytest.mark.parametrize("name", ["", "  ", "nothing", "x/" * 400, "~nobody-of-that-name/model", "no\0body", "a.json"])
def test_what_is_no_model_is_told(name: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        read_model(name)
    assert caught.value.remedy


def test_the_nearest_shape_is_named() -> None:
    with pytest.raises(TunewrightError, match="Did you mean qwen3-14b"):
        read_model("Qwen3-15B")


@pytest.mark.slow
def test_an_architecture_without_a_formula_is_counted(tmp_path: Path) -> None:
    shape = {
        "model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "ffn_dim": 128, "vocab_size": 512, "word_embed_proj_dim": 64,
        "max_position_embeddings": 128,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(shape))
    found = read_model(str(tmp_path))
    assert "transformers' own class was counted" in found.note
    assert {each.name for each in found.anatomy.projections} == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
