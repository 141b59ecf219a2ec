"""What would fail once weights are loaded is refused before, from small real files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright import starter
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine import preflight
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.weights import read_header, read_weights
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the starter model."""
    return Path(shutil.copytree(starter.MODEL, tmp_path / "model"))


@pytest.fixture
def of(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Makes a recipe of that copy."""
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))

    def make(*changes: str, method: str = "lora") -> Recipe:
        with open_registry() as registry:
            recipe = registry.get(f"starter-{method}").recipe
        return change_recipe(recipe, [f"base.model={json.dumps(str(model))}", *changes])

    return make


def change(file: Path, **values: Any) -> None:
    """Change keys of a JSON file."""
    kept = {key: value for key, value in (json.loads(file.read_text()) | values).items() if value is not ...}
    file.write_text(json.dumps(kept))


def refusal(recipe: Recipe) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught:
        preflight.require_ready(recipe)
    return caught.value


def split(model: Path) -> list[str]:
    """Divide the weights between two files with an index, and return the files' names."""
    tensors = read_header(model / "model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    placed = {name: names[position % 2] for position, name in enumerate(sorted(tensors))}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    for file in names:
        chosen = {name: tensors[name] for name, place in placed.items() if place == file}
        header: dict[str, Any] = {}
        end = 0
        for name, tensor in chosen.items():
            size = 2
            for each in tensor.shape:
                size *= each
            header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        (model / file).write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    (model / "model.safetensors").unlink()
    return names


def test_a_whole_model_is_ready(of: Callable[..., Recipe], model: Path) -> None:
    assert preflight.require_ready(of()) == model
    assert preflight.check(of(), model) == ()
    split(model)
    assert preflight.require_ready(of()) == model
    assert read_weights(model).keys() == read_header(starter.MODEL / "model.safetensors").keys()


@pytest.mark.parametrize("cut", [0, 4, 5000, -1])
def test_weights_that_were_cut_off_are_told_from_their_size(of: Callable[..., Recipe], model: Path, cut: int) -> None:
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:cut])
    error = refusal(of())
    assert error.title == "Model damaged"
    assert str(file) in error.message
    if cut == -1:
        assert f"it should have {len(content):,} bytes and has {len(content) - 1:,}" in error.message


@pytest.mark.parametrize(
    "header",
    ['{"a": 1}', '{"a": {"dtype": "F32", "shape": [1]}}', "[]", "{", "9" * 30, '{"a": ' * 4000, '{"a\x1b[2J": {}}'],
)
def test_a_header_that_is_none_is_refused(model: Path, header: str) -> None:
    file = model / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(TunewrightError, match="Model damaged") as caught:
        read_header(file)
    assert "\x1b" not in str(caught.value)


def test_a_header_of_absurd_length_is_not_read(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(TunewrightError, match="Model damaged"):
        read_header(file)


def test_a_file_that_the_index_names_is_missed(of: Callable[..., Recipe], model: Path) -> None:
    names = split(model)
    (model / names[1]).unlink()
    assert names[1] in refusal(of()).message


def test_an_index_does_not_lead_out_of_its_folder(of: Callable[..., Recipe], model: Path) -> None:
    names = split(model)
    outside = model.parent / "outside.safetensors"
    shutil.copy(model / names[0], outside)
    change(
        model / "model.safetensors.index.json", weight_map={"a": "../outside.safetensors", "b": names[0], "c": names[1]}
    )
    assert "which is no safetensors file beside it" in refusal(of()).message


def test_an_index_that_names_what_no_file_has(of: Callable[..., Recipe], model: Path) -> None:
    names = split(model)
    index = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    change(model / "model.safetensors.index.json", weight_map=index | {"model.extra.weight": names[0]})
    assert "names model.extra.weight" in refusal(of()).message


def test_more_tokens_than_the_embedding_has_rows(of: Callable[..., Recipe], model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    added = [
        {"id": 2048 + number, "content": f"<new-{number}\x1b[2J>", "special": True, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
        for number in range(7)
    ]  # fmt: skip
    change(model / "tokenizer.json", added_tokens=tokenizer["added_tokens"] + added)
    error = refusal(of())
    assert error.title == "Tokenizer and model do not match"
    assert "7 tokens" in error.message and "2,048 rows" in error.message and "and 2 more" in error.message
    assert "<new-0" in error.message and "\x1b" not in error.message
    assert "resize_token_embeddings" in error.remedy


def test_weights_of_another_vocabulary_than_the_config_says(of: Callable[..., Recipe], model: Path) -> None:
    change(model / "config.json", vocab_size=2080)
    error = refusal(of())
    assert error.title == "Weights and config.json differ"
    assert "2,048 × 256" in error.message and "2,080 × 256" in error.message


@pytest.mark.parametrize("pad", ["<|im_end|>", {"content": "<|im_end|>"}])
def test_a_pad_token_that_is_the_end_token_is_explained(of: Callable[..., Recipe], model: Path, pad: object) -> None:
    change(model / "tokenizer_config.json", pad_token=pad, eos_token="<|im_end|>")
    (note,) = preflight.check(of(), model)
    assert "<|im_end|>" in note and "the end is learned all the same" in note
    plan = plan_recipe(of(), inspect_machine(Path("/tmp")))
    assert note in plan.notes


@pytest.mark.parametrize(
    ("changes", "title", "words"),
    [
        (['method.targets=["q_prj"]'], "Unknown target module", "Did you mean q_proj?"),
        (['method.modules_to_save=["lm_heads"]'], "Unknown module to save", "Did you mean lm_head?"),
        (['method.modules_to_save=["self_attn"]'], "Unknown module to save", "input_layernorm"),
        (['method.targets=["q_proj"]', 'method.modules_to_save=["q_proj"]'], "No targets left", "modules_to_save"),
    ],
)
def test_modules_that_do_not_exist(of: Callable[..., Recipe], changes: list[str], title: str, words: str) -> None:
    error = refusal(of(*changes))
    assert error.title == title
    assert words in str(error)


def test_the_nearest_modules_are_named_first(of: Callable[..., Recipe]) -> None:
    message = refusal(of('method.targets=["gate_projection"]')).message
    assert message.index("gate_proj,") < message.index("q_proj")


def test_a_matrix_in_four_bits_cannot_be_trained_whole(of: Callable[..., Recipe]) -> None:
    error = refusal(of('method.modules_to_save=["down_proj"]', method="qlora"))
    assert error.title == "Module cannot be saved in 4 bits"
    preflight.require_ready(of('method.modules_to_save=["down_proj"]'))


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes", "mxfp4", "new\x1b[2J"])
@pytest.mark.parametrize("kind", ["lora", "qlora", "full"])
def test_quantised_checkpoints_are_refused_with_the_reason(
    of: Callable[..., Recipe], model: Path, method: str, kind: str
) -> None:
    change(model / "config.json", quantization_config={"quant_method": method})
    error = refusal(of(method=kind))
    assert error.title == "Quantised checkpoint"
    assert "16-bit weights" in error.remedy and "\x1b" not in str(error)


def test_code_in_the_model_is_never_run(of: Callable[..., Recipe], model: Path) -> None:
    code = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    change(model / "config.json", model_type="own", auto_map=code)
    (model / "modeling_own.py").write_text("raise SystemExit('it was run')")
    error = refusal(of())
    assert error.title == "Model needs its own code" and "never run" in error.message
    change(model / "config.json", model_type="llama")  # transformers has this one itself
    preflight.require_ready(of())


def test_an_architecture_that_is_not_known(of: Callable[..., Recipe], model: Path) -> None:
    change(model / "config.json", model_type="llamma")
    assert "its architecture is llamma" in refusal(of()).message


def test_rows_beyond_the_models_context(of: Callable[..., Recipe], model: Path) -> None:
    change(model / "config.json", max_position_embeddings=64)
    with pytest.raises(TunewrightError, match="Rows beyond the model's context") as caught:
        plan_recipe(of(), inspect_machine(Path("/tmp")))
    assert "data.max_length = 64" in caught.value.remedy
    plan_recipe(of("data.max_length=64"), inspect_machine(Path("/tmp")))
    # Positions that are stretched reach further.
    change(model / "config.json", rope_parameters={"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0})
    plan_recipe(of(), inspect_machine(Path("/tmp")))


def test_a_pair_is_as_long_as_the_longer_of_both_answers(of: Callable[..., Recipe]) -> None:
    recipe = of()
    preflight.require_lengths(recipe, 512)
    with pytest.raises(TunewrightError):
        preflight.require_lengths(recipe, 513)
    training = recipe.training.model_copy(update={"objective": "dpo"})
    preflight.require_lengths(recipe.model_copy(update={"training": training}), 1024)


def test_conversations_need_a_template(of: Callable[..., Recipe], model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    with pytest.raises(TunewrightError, match="No chat template") as caught:
        plan_recipe(of(), inspect_machine(Path("/tmp")))
    assert 'data.template = "chatml"' in caught.value.remedy


def test_a_tokenizer_is_needed(of: Callable[..., Recipe], model: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(TunewrightError, match="No fast tokenizer"):
        plan_recipe(of(), inspect_machine(Path("/tmp")))
