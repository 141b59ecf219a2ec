"""Other tools' configurations: what each key means there, what is not carried, and what a hostile file can do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes import catalogue
from tunewright.recipes.interchange import FORMATS, TARGETS
from tunewright.recipes.interchange.conversion import export_recipe, guess_format, import_recipe
from tunewright.recipes.interchange.ledger import Imported
from tunewright.recipes.interchange.reading import read_values
from tunewright.recipes.model import Recipe, parse_recipe, validate_recipe

RIVALS = Path(__file__).parent / "rivals"
"""Facts of examples that the six tools ship: repository, commit, path, keys with their values, and what they mean.

The meaning was worked out from each tool's own source, without our import.
"""
WRITTEN = [each for each in TARGETS if not each.startswith("python-")]
AXOLOTL = {"base_model": "owner/model", "learning_rate": "2e-4", "datasets": [{"path": "owner/data", "type": "alpaca"}]}
LLAMA_FACTORY = {"model_name_or_path": "owner/model", "stage": "sft", "dataset": "alpaca_en", "cutoff_len": 1024}
TRL = {"model_name_or_path": "owner/model", "dataset_name": "owner/data"}
OUMI = {"model": {"model_name": "owner/model"}, "training": {"trainer_type": "TRL_SFT"}, "data": {"train": {"datasets": [{"dataset_name": "yahma/alpaca-cleaned"}]}}}  # fmt: skip
TORCHTUNE = {
    "model": {"_component_": "torchtune.models.llama3.lora_llama3_8b", "lora_rank": 8, "lora_attn_modules": ["q_proj", "output_proj"]},
    "checkpointer": {"checkpoint_dir": "/models/llama"},
    "dataset": {"_component_": "torchtune.datasets.alpaca_dataset"},
    "optimizer": {"_component_": "torch.optim.AdamW", "lr": 3e-4},
}  # fmt: skip
UNSLOTH = {"model": "owner/model", "data": {"dataset": "owner/data"}, "training": {"max_steps": 0}, "lora": {}}
SMALLEST = {"axolotl": AXOLOTL, "llamafactory": LLAMA_FACTORY, "torchtune": TORCHTUNE, "trl": TRL, "unsloth": UNSLOTH, "oumi": OUMI}  # fmt: skip


def flat(value: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        where = f"{at}{key}"
        found |= flat(inner, f"{where}.") if isinstance(inner, dict) and where != "data.columns" else {where: inner}
    return found


def leaves(value: Any, at: str | None = None) -> set[str]:
    if isinstance(value, dict) and value:
        return {leaf for key, inner in value.items() for leaf in leaves(inner, key if at is None else f"{at}.{key}")}
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return {leaf for index, inner in enumerate(value) for leaf in leaves(inner, f"{at}[{index}]")}
    return {at or ""}


def load(values: dict[str, Any], **options: Any) -> Imported:
    return import_recipe(yaml.safe_dump(values), **options)


def fields(values: dict[str, Any], **options: Any) -> dict[str, Any]:
    return flat(load(values, **options).recipe.model_dump(mode="json", exclude_none=True))


@pytest.mark.parametrize("tool", FORMATS)
def test_shipped_examples_mean_what_their_tool_says(tool: str) -> None:
    examples = json.loads((RIVALS / f"{tool}.json").read_text(encoding="utf-8"))
    assert len(examples) >= 30
    for example in examples:
        assert re.fullmatch(r"[0-9a-f]{40}", example["commit"])
        imported = import_recipe(yaml.safe_dump(example["keys"]), example["path"], tool)
        found = flat(imported.recipe.model_dump(mode="json", exclude_none=True))
        assert {key: found.get(key) for key in example["expected"]} == example["expected"], example["path"]
        said = [each.key for each in (*imported.mapped, *imported.dropped)]
        assert set(said) == leaves(example["keys"]), example["path"]
        assert len(said) == len(set(said)), example["path"]
        assert guess_format(example["keys"], example["path"]) == tool


def test_the_figures_are_of_all_examples() -> None:
    """What benchmarks/interchange.py found in the tools' repositories."""
    figures = json.loads((Path(__file__).parents[2] / "benchmarks" / "interchange.json").read_text(encoding="utf-8"))
    assert figures["examples"].keys() == set(FORMATS)
    for tool, parts in figures["examples"].items():
        loaded, failed = (sum(len(part[key]) for part in parts) for key in ("loaded", "failed"))
        assert loaded >= 0.95 * (loaded + failed) > 30, tool
    for target, each in figures["round_trips"].items():
        kept = [name for name in RECIPES if comes_back(name, target)]
        assert (each["recipes"], each["same"]) == (len(RECIPES), len(kept)), target


def comes_back(name: str, target: str) -> bool:
    """Tell whether a recipe of the catalogue has its hash after it was written for `target` and read again."""
    try:
        exported = export_recipe(RECIPES[name], target)
    except TunewrightError:
        return False
    return not exported.lost


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("axolotl", {"data.max_length": 512, "data.overlong": "drop", "data.loss_on": "assistant", "training.schedule": "cosine",
                     "training.warmup.value": 0.03, "training.epochs": 1.0, "training.global_batch": 1, "method.kind": "full"}),
        ("llamafactory", {"method.rank": 8, "method.alpha": 16.0, "method.targets": "all-linear", "training.learning_rate": 5e-5,
                          "training.epochs": 3.0, "training.global_batch": 8, "training.schedule": "linear", "training.warmup.value": 0.0}),
        ("torchtune", {"data.loss_on": "all", "data.source": "tatsu-lab/alpaca", "training.weight_decay": 0.01,
                       "training.schedule": "constant", "training.max_grad_norm": 1e6, "method.targets": ["q_proj", "o_proj"]}),
        ("trl", {"data.max_length": 1024, "training.learning_rate": 2e-5, "training.epochs": 3.0, "training.global_batch": 8,
                 "method.kind": "full", "data.loss_on": "all", "training.schedule": "linear"}),
        ("unsloth", {"training.seed": 3407, "training.optimizer": "adamw_8bit", "training.warmup.value": 5.0, "method.kind": "qlora",
                     "training.global_batch": 8, "training.weight_decay": 0.01, "data.loss_on": "all"}),
        ("oumi", {"training.learning_rate": 5e-5, "data.max_length": 1024, "training.epochs": 3.0, "data.loss_on": "all", "method.kind": "full"}),
    ],
)  # fmt: skip
def test_the_tools_own_defaults_are_written_down(tool: str, expected: dict[str, Any]) -> None:
    imported = load(SMALLEST[tool])
    found = flat(imported.recipe.model_dump(mode="json", exclude_none=True))
    assert {key: found[key] for key in expected} == expected
    told = {each.field for each in imported.defaulted} | {each.field for each in imported.mapped}
    hidden = {key for key in found if not key.startswith(("card.", "evaluation."))} - told
    assert hidden <= {"training.objective", "data.format", "training.warmup.kind", "data.validation.kind", "data.share"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (AXOLOTL | {"adapter": "qlora", "load_in_4bit": True, "lora_r": 4}, {"method.alpha": 8.0, "method.double_quantisation": True}),
        (TRL | {"use_peft": True, "load_in_4bit": True}, {"method.alpha": 32.0, "method.double_quantisation": False, "method.targets": "qv"}),
        (LLAMA_FACTORY | {"lora_rank": 32}, {"method.alpha": 64.0}),
        (LLAMA_FACTORY | {"val_size": 0.1}, {"data.validation.kind": "fraction", "data.validation.value": 0.1}),
        (LLAMA_FACTORY | {"val_size": 200}, {"data.validation.kind": "rows", "data.validation.value": 200.0}),
        (LLAMA_FACTORY | {"packing": True, "neat_packing": True}, {"data.packing": True, "data.overlong": "drop"}),
        (AXOLOTL | {"lr_scheduler": "constant", "warmup_steps": 10}, {"training.schedule": "constant", "training.warmup.value": 0.0}),
        (AXOLOTL | {"cosine_min_lr_ratio": 0.1, "adam_beta2": 0.95}, {"training.floor": 0.1, "training.beta2": 0.95}),
        (AXOLOTL | {"warmup_steps": 0.1}, {"training.warmup.kind": "ratio", "training.warmup.value": 0.1}),
        (AXOLOTL | {"max_steps": 50, "num_epochs": 3}, {"training.steps": 50}),
        (AXOLOTL | {"train_on_inputs": True}, {"data.loss_on": "all"}),
        (AXOLOTL | {"excess_length_strategy": "truncate"}, {"data.overlong": "cut"}),
        (AXOLOTL | {"rl": "orpo", "orpo_alpha": 0.2}, {"training.objective": "orpo", "training.preference.beta": 0.2}),
        (TRL | {"max_grad_norm": 0}, {"training.max_grad_norm": 1e6}),
        (TRL | {"warmup_steps": 0.05}, {"training.warmup.kind": "ratio"}),
        (TRL | {"beta": 0.01, "loss_type": "ipo"}, {"training.objective": "dpo", "training.preference.loss": "ipo", "data.loss_on": "assistant"}),
        (TORCHTUNE | {"clip_grad_norm": 1.0}, {"training.max_grad_norm": 1.0}),
    ],
)  # fmt: skip
def test_traps_between_tools(values: dict[str, Any], expected: dict[str, Any]) -> None:
    found = fields(values)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (AXOLOTL | {"load_in_8bit": True, "adapter": "lora"}, "in 8 bits"),
        (AXOLOTL | {"optimizer": "adafactor"}, "adafactor is not one of ours"),
        (AXOLOTL | {"neftune_noise_alpha": 5}, "NEFTune"),
        (AXOLOTL | {"deepspeed": "zero3.json"}, "several GPUs"),
        (AXOLOTL | {"no_such_key": 1}, "no_such_key is not known"),
        (AXOLOTL | {"datasets": [{"path": "a/b", "type": "alpaca"}, {"path": "c/d", "type": "alpaca"}]}, "first of 2 data sets"),
        (AXOLOTL | {"chat_template": "gemma3"}, "compare the rendered text"),
        (LLAMA_FACTORY | {"packing": True}, "each is blind to the others"),
        (LLAMA_FACTORY | {"max_samples": 10}, "max_samples"),
        (TRL | {"use_peft": True}, "PEFT chooses them"),
        (TRL, "TRL learns conversations whole"),
        (OUMI | {"training": {"use_peft": True}, "peft": {"q_lora": True}}, "FP4 there"),
        (TORCHTUNE | {"loss": {"_component_": "torchtune.rlhf.loss.DPOLoss"}}, "10 to 100 times"),
    ],
)  # fmt: skip
def test_where_meaning_may_be_lost_a_warning_says_so(values: dict[str, Any], said: str) -> None:
    assert any(said in each for each in load(values).warnings)


def test_gpus_multiply_the_rows_of_a_step() -> None:
    values = AXOLOTL | {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "deepspeed": "zero3.json"}
    assert fields(values)["training.global_batch"] == 8
    assert fields(values, gpus=8)["training.global_batch"] == 64
    assert not any("several GPUs" in each for each in load(values, gpus=8).warnings)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (AXOLOTL | {"rl": "grpo"}, "GRPO"),
        (AXOLOTL | {"reward_model": True}, "reward model"),
        (AXOLOTL | {"processor_type": "AutoProcessor", "skip_prepare_dataset": True}, "pictures"),
        (AXOLOTL | {"adapter": "ia3"}, "neither LoRA nor QLoRA"),
        (LLAMA_FACTORY | {"stage": "rm"}, "reward model"),
        (LLAMA_FACTORY | {"finetuning_type": "freeze"}, "freeze"),
        (TRL | {"reward_funcs": ["accuracy"]}, "rewards"),
        (TRL | {"simpo_gamma": 1.0}, "SimPO"),
        (OUMI | {"training": {"trainer_type": "TRL_GRPO"}}, "rewards"),
        (TORCHTUNE | {"kd_loss": {"_component_": "torchtune.modules.loss.KD"}}, "distils"),
    ],
)  # fmt: skip
def test_what_our_engine_does_not_train_is_refused_with_the_reason(values: dict[str, Any], said: str) -> None:
    with pytest.raises(TunewrightError, match=said):
        load(values)


def test_numbers_that_yaml_takes_for_text_are_read_and_told() -> None:
    imported = import_recipe("base_model: m/m\nlearning_rate: 2e-4\n")
    assert imported.recipe.training.learning_rate == 2e-4
    assert [each.note for each in imported.mapped if each.key == "learning_rate"] == [
        "text there, as YAML 1.1 has it; read as the number"
    ]


def test_yaml_truth_values_and_repeated_keys() -> None:
    imported = import_recipe("base_model: m/m\nlearning_rate: 1e-4\nsample_packing: on\nsample_packing: off\n")
    assert imported.recipe.data.packing is False
    assert "The key sample_packing stands twice; the last one holds." in imported.warnings
    twice = '{"base_model": "m/m", "learning_rate": 1e-4, "learning_rate": 2e-4}'
    assert import_recipe(twice).recipe.training.learning_rate == 2e-4
    assert "The key learning_rate stands twice; the last one holds." in import_recipe(twice).warnings


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base_model: !!python/object/apply:os.system ['touch /tmp/never']", "asks to build an object"),
        ("base_model: !!python/name:os.system", "asks to build an object"),
        ("base_model: !custom x", "asks to build an object"),
        (BOMB + "base_model: m", "more than 20,000 values"),
        ("a: &a [*a]", "not there"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 40 deep"),
        ("base_model: x\n---\nbase_model: y\n", "several documents"),
        ("- a\n- b\n", "no table"),
        ("", "no table"),
        ("just text", "no table"),
        ("a: [1, 2", "is not YAML in line"),
        ("a: " + "9" * 40, "more than 18 digits"),
        ("a: 2024-99-99", "is not plain YAML"),
        ("a: '" + "x" * 30_000 + "'", "more than 20,000 characters"),
        ("# " + "x" * (1 << 20), "larger than 1 MiB"),
        ("? [a, b]\n: c\n", "unhashable"),
        ('{"a": ' * 3000 + "1" + "}" * 3000, "nested more than"),
        ("a: 1\nb: 2\n", "those of none of"),
        ("\x00: 1", "not allowed"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        import_recipe(text, "evil.yaml")
    assert said in caught.value.message


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "{{ lookup('env', 'HOME') }}", "$HF_MODEL", "{% raw %}"])
@pytest.mark.parametrize("values", [AXOLOTL, LLAMA_FACTORY, TRL, OUMI], ids=["axolotl", "llamafactory", "trl", "oumi"])
def test_placeholders_are_never_filled_in(values: dict[str, Any], value: str) -> None:
    key = next(each for each in ("base_model", "model_name_or_path", "model") if each in values)
    changed = values | {key: {"model_name": value} if key == "model" else value}
    with pytest.raises(TunewrightError, match="never evaluated"):
        load(changed)


def test_a_key_of_the_same_file_is_looked_up_where_the_tool_does() -> None:
    values = TORCHTUNE | {"base": "/models/x", "checkpointer": {"checkpoint_dir": "${base}/y"}}
    assert fields(values)["base.model"] == "/models/x/y"
    endless = TORCHTUNE | {"a": "${b}", "b": "${a}", "checkpointer": {"checkpoint_dir": "${a}"}}
    with pytest.raises(TunewrightError, match="never evaluated"):
        load(endless)


def test_no_escape_of_a_stranger_is_kept() -> None:
    values = AXOLOTL | {
        "base_model": "owner/\x1b[31mred\u202e",
        "datasets": [{"path": "a/\x9b2Jb", "type": "x\x1b]0;y\x07"}],
    }
    imported = import_recipe(json.dumps(values), "\x1b[2Jevil.yaml")
    said = imported.recipe.to_toml() + "".join(imported.warnings)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=8) | st.sampled_from(["1e-4", "auto", "qlora", "dpo", "${x}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("tool", FORMATS)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_is_read_or_refused_and_every_key_accounted_for(tool: str, data: Any) -> None:
    known = sorted(
        {key for example in json.loads((RIVALS / f"{tool}.json").read_text("utf-8")) for key in example["keys"]}
    )
    changes = data.draw(st.dictionaries(st.sampled_from(known) | st.text(max_size=5), plain, max_size=4))
    text = json.dumps(SMALLEST[tool] | changes)
    try:
        imported = import_recipe(text, "x.json", tool)
    except TunewrightError:
        return
    said = [each.key for each in (*imported.mapped, *imported.dropped)]
    assert sorted(said) == sorted(leaves(read_values(text, "x.json")[0]))
    json.dumps(imported.to_json(), allow_nan=False)


RECIPES = {name: parse_recipe(text, name) for name, text in catalogue.built_in().items()}


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("name", RECIPES)
def test_a_round_trip_keeps_the_hash_or_says_what_is_lost(name: str, target: str) -> None:
    recipe = RECIPES[name]
    try:
        exported = export_recipe(recipe, target)
    except TunewrightError as error:
        assert error.title == "Meaning would be lost"
        return
    back = import_recipe(exported.text, f"{recipe.training.objective}.yaml").recipe
    assert (back.hash() == recipe.hash()) == (not exported.lost)
    assert all(any(each.field in warning for warning in exported.warnings) for each in exported.lost)


def changed(values: dict[str, Any], **changes: Any) -> Recipe:
    tables = json.loads(json.dumps(values))
    for key, value in changes.items():
        section, _, field = key.partition("__")
        tables[section][field] = value
    return validate_recipe(tables, "the test's recipe")


CARRIED: dict[str, Any] = {
    "base": {"model": "owner/model"},
    "data": {
        "source": "owner/data", "format": "messages", "loss_on": "assistant", "max_length": 1000,
        "validation": {"kind": "none", "value": 0.0}, "packing": False, "overlong": "cut",
    },
    "method": {"kind": "qlora", "rank": 8, "alpha": 32, "dropout": 0.05, "double_quantisation": False},
    "training": {
        "learning_rate": 2e-4, "schedule": "linear", "warmup": {"kind": "steps", "value": 20}, "epochs": 2,
        "global_batch": 24, "optimizer": "adamw_8bit", "weight_decay": 0.01, "max_grad_norm": 0.3, "seed": 7,
        "floor": None, "beta2": 0.95,
    },
}  # fmt: skip


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": {"kind": "full"}},
        {"training__schedule": "cosine", "training__floor": 0.1},
        {"training__warmup": {"kind": "ratio", "value": 0.0}},
        {"training__steps": 100, "training__epochs": None},
        {"data__packing": True, "data__overlong": "cut"},
        {"training__objective": "dpo", "method__dropout": 0.0, "data__format": "preference", "training__beta2": None},
    ],
)
def test_what_every_format_can_carry_survives(target: str, changes: dict[str, Any]) -> None:
    recipe = changed(CARRIED | {k: v for k, v in changes.items() if "__" not in k}, **{k: v for k, v in changes.items() if "__" in k})  # fmt: skip
    if target == "llamafactory" and recipe.data.packing:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"overlong": "drop"})})
    exported = export_recipe(recipe, target)
    assert exported.lost == ()
    assert import_recipe(exported.text, f"{recipe.training.objective}.yaml").recipe.hash() == recipe.hash()


@pytest.mark.parametrize(
    ("target", "changes", "said"),
    [
        ("oumi", {"method__rslora": True}, "rank-stabilised"),
        ("oumi", {"method__dora": True}, "DoRA"),
        ("trl", {"method__lora_plus_ratio": 16.0}, "second rate"),
        ("oumi", {"method__lora_plus_ratio": 16.0}, "second rate"),
        ("llamafactory", {"training__objective": "dpo", "method__dropout": 0.0, "training__preference": {"beta": 5.0, "loss": "sigmoid_norm"}}, "the loss"),
        ("llamafactory", {"training__objective": "dpo", "method__dropout": 0.0, "training__preference": {"loss": "apo_zero"}}, "the loss"),
        ("trl", {"training__objective": "orpo", "method__dropout": 0.0, "data__format": "preference"}, "no ORPO"),
        ("oumi", {"training__objective": "orpo", "method__dropout": 0.0, "data__format": "preference"}, "the objective"),
        ("trl", {"training__objective": "cpt", "data__format": "text", "data__loss_on": "all"}, "the objective"),
        ("python-trl", {"method__lora_plus_ratio": 16.0}, "second rate"),
    ],
)  # fmt: skip
def test_an_export_that_would_be_another_run_is_refused(target: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TunewrightError, match=said):
        export_recipe(changed(CARRIED, **changes), target)


def test_a_loss_that_is_agreed_to_is_told() -> None:
    recipe = changed(CARRIED, method__dora=True)
    exported = export_recipe(recipe, "oumi", allow_loss=True)
    assert [each.field for each in exported.lost] == ["method.dora"]
    assert exported.warnings == ("method.dora = true is not carried; it is false there.",)


@pytest.mark.parametrize("target", ["python-trl", "python-unsloth"])
@pytest.mark.parametrize("name", RECIPES)
def test_scripts_compile_and_hold_no_key_of_ours(name: str, target: str) -> None:
    exported = export_recipe(RECIPES[name], target, allow_loss=True)
    compile(exported.text, f"{name}.py", "exec")
    assert "tunewright." not in exported.text.replace("tunewright/", "")
    assert RECIPES[name].hash() in exported.text


def test_a_name_of_a_stranger_is_text_in_a_script() -> None:
    evil = '"""; import os; os.system("touch /tmp/never"); """\nx = 1'
    recipe = changed(CARRIED | {"base": {"model": evil}, "card": {"title": evil}})
    text = export_recipe(recipe, "python-trl").text
    names: dict[str, Any] = {}
    start, end = text.index("MODEL ="), text.index("def load(")
    exec(compile(text[start:end], "facts", "exec"), names)
    assert names["MODEL"] == recipe.base.model
    assert all(line.startswith(("#", "import", "from", "\n")) or not line for line in text[:start].splitlines())
