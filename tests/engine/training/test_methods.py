"""Methods whole: what is trained is what was counted, adapters go on from adapters, matrices learn at two rates, and
what is merged answers as what was trained."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine import preflight
from tunewright.engine.adapters import find_adapter, read_adapter, require_fit
from tunewright.engine.anatomy import read_anatomy
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Alternative, Plan, Prediction
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import create_run
from tunewright.engine.setting import Tuning
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry
from tunewright.starter import MODEL

pytestmark = pytest.mark.slow

PLAN = Plan("here", "transformers", "cpu", "fp32", 4, 1, "off", "padded", "sdpa", 1, 4, 10, 2, 4, 4, 4, merge=False)
ANATOMY = read_anatomy(MODEL)
KINDS = ("lora", "qlora")
SAVED = (None, '["embed_tokens", "lm_head"]', '["norm", "post_attention_layernorm"]')


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes recipes of the starter model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_HOME", str(tmp_path_factory.mktemp("home")))

        def make(kind: str, *changes: str) -> Recipe:
            with open_registry() as registry:
                return change_recipe(registry.get(f"starter-{kind}").recipe, list(changes))

        yield make


def load(recipe: Recipe, plan: Plan = PLAN) -> Any:
    torch = pytest.importorskip("torch")
    from tunewright.engine.training.transformers import load_model

    torch.manual_seed(3)
    return load_model(recipe, plan, MODEL)


def disturb(model: Any) -> Any:
    """Move everything that is trained, as a training would, so that nothing stands where it began."""
    import torch

    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(3, 99).reshape(3, 32)).logits


# What is trained


@pytest.mark.parametrize(("kind", "dora", "saved"), list(itertools.product(KINDS, ("false", "true"), SAVED)))
def test_what_is_trained_is_what_was_counted(of: Any, kind: str, dora: str, saved: str | None) -> None:
    targets = ("all-linear", ["v_proj", "down_proj"], "attention")[SAVED.index(saved)]
    changes = [f"method.dora={dora}", f"method.rslora={dora}", f"method.targets={json.dumps(targets)}", "method.rank=5"]
    recipe = of(kind, *changes, *([f"method.modules_to_save={saved}"] if saved else []))
    trained = sum(each.numel() for each in load(recipe).parameters() if each.requires_grad)
    assert trained == Tuning.of(recipe.method).trainable_parameters(ANATOMY)


def test_full_tuning_trains_all(of: Any) -> None:
    model = load(of("full"))
    assert sum(each.numel() for each in model.parameters() if each.requires_grad) == ANATOMY.total_parameters


def no_adapter_on_one(model: Any) -> None:
    model.base_model.model.model.layers[1].self_attn.q_proj = model.base_model.model.model.layers[
        1
    ].self_attn.q_proj.base_layer


def other_scaling(model: Any) -> None:
    model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] = 1.0


def other_dropout(model: Any) -> None:
    import torch

    model.base_model.model.model.layers[0].self_attn.q_proj.lora_dropout["default"] = torch.nn.Dropout(0.3)


def nothing_trained(model: Any) -> None:
    model.requires_grad_(False)


def norm_trained(model: Any) -> None:
    model.base_model.model.model.norm.weight.requires_grad_(True)


def rounded(model: Any) -> None:
    model.base_model.model.model.layers[2].mlp.up_proj.base_layer.bfloat16()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_adapter_on_one, "self_attn.q_proj carries an adapter in 3 places, not in 4"),
        (other_scaling, "scaling 1.0, not 2.0"),
        (other_dropout, "dropout 0.3, not 0.0"),
        (nothing_trained, "no parameter is trained"),
        (norm_trained, "262,400 parameters are trained, not 262,144"),
        (rounded, "1 matrices are kept as bfloat16, not float32"),
    ],
)
def test_a_model_that_is_not_what_the_recipe_says_is_refused(
    of: Any, change: Callable[[Any], None], words: str
) -> None:
    from tunewright.engine.training.inspection import require_as_planned

    recipe = of("lora")
    model = load(recipe)
    change(model)
    with pytest.raises(TunewrightError, match="Not what the recipe says") as caught:
        require_as_planned(model, recipe, PLAN, ANATOMY)
    assert words in caught.value.message
    assert "--backend" in caught.value.remedy


def test_4_bit_weights_are_what_the_recipe_says(of: Any) -> None:
    from tunewright.engine.training.inspection import differences

    once = of("qlora", "method.double_quantisation=false")
    found = list(differences(load(once), of("qlora"), PLAN, ANATOMY))
    assert found == ["matrices are quantised to nf4, not to nf4 twice"]
    assert list(differences(load(of("lora")), of("qlora"), PLAN, ANATOMY)) == ["no matrix is kept in 4 bits"]


# Adapters from adapters


@pytest.fixture(scope="module")
def adapter(of: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter with all that it can have, and the logits of the model that it was saved from."""
    model = disturb(load(of("lora", *WHOLE)))
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder, logits(model)


WHOLE = (
    "method.rank=4", "method.alpha=12", "method.dora=true", "method.rslora=true",
    'method.targets=["q_proj", "up_proj"]', 'method.modules_to_save=["embed_tokens", "norm"]',
)  # fmt: skip


def test_training_goes_on_from_an_adapter(of: Any, adapter: tuple[Path, Any]) -> None:
    import torch

    folder, before = adapter
    recipe = of("lora", *WHOLE, f"base.adapter={json.dumps(str(folder))}", "method.dropout=0.1")
    assert preflight.check(recipe, MODEL) == ()
    assert torch.equal(logits(load(recipe).eval()), before)


def test_an_adapter_that_does_not_fit_is_refused_field_by_field(of: Any, adapter: tuple[Path, Any]) -> None:
    recipe = of("lora", f"base.adapter={json.dumps(str(adapter[0]))}")
    with pytest.raises(TunewrightError, match="Adapter does not fit") as caught:
        plan_recipe(recipe, inspect_machine(Path("/tmp")))
    for line in (
        "method.rank: the adapter has 4, the recipe 16",
        "method.alpha: the adapter has 12, the recipe 32",
        "method.rslora: the adapter has true, the recipe false",
        "method.dora: the adapter has true, the recipe false",
        "method.targets: the adapter has q_proj, up_proj, the recipe down_proj, gate_proj",
        "method.modules_to_save: the adapter has embed_tokens, norm, the recipe none",
    ):
        assert line in caught.value.message
    written = caught.value.remedy.partition("[method]: ")[2].rstrip(".")
    assert 'targets = ["q_proj", "up_proj"]' in written
    # What it says to write is enough.
    fitting = of("lora", *(f"method.{each}" for each in split(written)), f"base.adapter={json.dumps(str(adapter[0]))}")
    assert require_fit(fitting, ANATOMY, read_adapter(adapter[0])) == ()


def split(written: str) -> list[str]:
    """Return the settings in a remedy's words: `rank = 4, targets = ["a", "b"]`."""
    parts = written.replace("], ", "]\n").split(" = ")
    found: list[str] = []
    key = parts[0]
    for part in parts[1:]:
        value, _, key_next = (
            part.rpartition("\n" if "\n" in part else ", ") if part is not parts[-1] else (part, "", "")
        )
        found.append(f"{key}={value}")
        key = key_next
    return found


@pytest.mark.parametrize(
    ("changes", "title", "words"),
    [
        ({"rank_pattern": {"q_proj": 8}}, "Adapter cannot be gone on from", "rank_pattern"),
        ({"bias": "all"}, "Adapter cannot be gone on from", "bias = all"),
        ({"init_lora_weights": "pissa"}, "Adapter cannot be gone on from", "changed the base model's weights"),
        ({"peft_type": "LOHA\x1b[2J"}, "Not an adapter of LoRA", "LOHA"),
        ({"lora_alpha": "12"}, "Not an adapter of LoRA", "lora_alpha"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    of: Any, adapter: tuple[Path, Any], tmp_path: Path, changes: dict[str, Any], title: str, words: str
) -> None:
    folder = Path(shutil.copytree(adapter[0], tmp_path / "changed"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(TunewrightError) as caught:
        preflight.check(of("lora", *WHOLE, f"base.adapter={json.dumps(str(folder))}"), MODEL)
    assert caught.value.title == title
    assert words in str(caught.value) and "\x1b" not in str(caught.value)


def test_an_adapter_of_another_model_is_refused(of: Any, adapter: tuple[Path, Any]) -> None:
    fewer = dataclasses.replace(
        ANATOMY, layers=3, projections=tuple(dataclasses.replace(each, count=3) for each in ANATOMY.projections)
    )
    with pytest.raises(TunewrightError, match="Adapter of another model"):
        require_fit(of("lora", *WHOLE), fewer, read_adapter(adapter[0]))


def test_an_adapter_says_what_it_was_trained_on(of: Any, adapter: tuple[Path, Any]) -> None:
    stored = dataclasses.replace(read_adapter(adapter[0]), base="someone/other-model")
    (note,) = require_fit(of("lora", *WHOLE), ANATOMY, stored)
    assert "someone/other-model" in note and "tunewright/starter" in note
    same = dataclasses.replace(stored, base="/cache/models--tunewright--starter/snapshots/abc")
    assert require_fit(of("lora", *WHOLE), ANATOMY, same) == ()


def test_an_adapter_in_the_hubs_cache_is_found(
    of: Any, adapter: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--adapter"
    shutil.copytree(adapter[0], repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert find_adapter("owner/adapter") == find_adapter(f"owner/adapter@{'a' * 40}")
    assert preflight.check(of("lora", *WHOLE, "base.adapter=owner/adapter"), MODEL) == ()


def test_weights_in_pickles_are_not_loaded(adapter: tuple[Path, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter[0], tmp_path / "pickled"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(TunewrightError, match="Adapter without weights"):
        find_adapter(str(folder))
    with pytest.raises(TunewrightError, match="Adapter not found"):
        find_adapter(str(tmp_path / "none"))
    with pytest.raises(TunewrightError, match="Not an adapter"):
        find_adapter(str(MODEL))


# LoRA+


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_b_learns_faster_with_every_optimizer(of: Any, name: str) -> None:
    import bitsandbytes
    import torch
    from tunewright.engine.training.optimizer import quicken

    model = load(of("lora", "method.dora=true", 'method.modules_to_save=["norm"]'))
    made = getattr(torch.optim if name == "AdamW" else bitsandbytes.optim, name)
    trained = {key: each for key, each in model.named_parameters() if each.requires_grad}
    optimizer = made([{"params": list(trained.values()), "weight_decay": 0.1}, {"params": []}], lr=1e-3)
    quicken(optimizer, model, 16.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert {key for key, each in trained.items() if rates[id(each)] == 16e-3} == {
        key for key in trained if "lora_B" in key
    }
    assert {rates[id(each)] for each in trained.values()} == {1e-3, 16e-3}
    assert optimizer.param_groups[0]["lr"] == 1e-3  # it is the one that is told
    before = {key: each.detach().clone() for key, each in trained.items()}
    for each in trained.values():
        each.grad = torch.ones_like(each)
    optimizer.step()
    schedule.step()
    moved = {
        key: float((each.detach() - before[key]).abs().median()) for key, each in trained.items() if "lora_" in key
    }
    fast = {round(moved[key], 4) for key in moved if "lora_B" in key}
    assert fast == {0.016}
    assert [group["lr"] for group in optimizer.param_groups if group["params"]] == [0.5e-3, 8e-3]
    again = made([{"params": list(trained.values()), "weight_decay": 0.1}, {"params": []}], lr=1e-3)
    quicken(again, model, 16.0)
    again.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in again.param_groups] == [group["lr"] for group in optimizer.param_groups]


def test_a_ratio_of_one_changes_nothing(of: Any) -> None:
    from tunewright.engine.training.optimizer import set_rates

    class Trainer:
        pass

    trainer = Trainer()
    assert type(set_rates(trainer, of("lora"))) is Trainer
    assert type(set_rates(trainer, of("full"))) is Trainer
    assert type(set_rates(trainer, of("lora", "method.lora_plus_ratio=2"))) is not Trainer


def test_a_stopped_run_goes_on_with_both_rates(trainings: Any) -> None:
    """With 8-bit states, DoRA and a matrix that is trained whole; from a checkpoint, to the same last digit."""
    changes = ["training.steps=4", "training.optimizer=adamw_8bit", "method.lora_plus_ratio=8", "method.dora=true",
               "method.dropout=0.1", 'method.modules_to_save=["embed_tokens"]']  # fmt: skip
    whole = trainings.train(trainings.new("lora", changes, checkpoint_every_steps=2, evaluate_every_steps=4))
    weights = (whole.run.adapter / "adapter_model.safetensors").read_bytes()
    checkpoint = whole.run.checkpoints / "step-000002"
    again = trainings.train(whole.run, checkpoint=checkpoint)
    assert again.losses[-2:] == whole.losses[-2:]
    assert (again.run.adapter / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_a_stopped_run_goes_on_as_the_same_run(trainings: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to stop while it trains, as its supervisor asks: it saves at that step, and comes to the same last digit."""
    from transformers import Trainer
    from tunewright.engine.runs import outcome

    changes = ["training.steps=4"] + (["method.dropout=0.1"] if method == "qlora" else [])
    whole = trainings.train(trainings.new(method, changes, evaluate_every_steps=2))
    halves = trainings.new(method, changes, evaluate_every_steps=2)
    take, taken = Trainer.training_step, list[int]()

    def asked(self: Any, *arguments: Any, **options: Any) -> Any:
        taken.append(self.state.global_step)
        if taken[-1] == 1 and taken.count(1) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", asked)
        stopped = trainings.train(halves)
    assert stopped.outcome == outcome.STOPPED and [step for step, *_ in stopped.losses] == [1, 2]
    again = trainings.train(halves, checkpoint=halves.checkpoints / "step-000002")
    assert again.losses == whole.losses
    (one,), (other,) = (
        [*run.adapter.glob("*.safetensors"), *run.model.glob("*.safetensors")] for run in (whole.run, again.run)
    )
    assert one.read_bytes() == other.read_bytes()


# Modules that are trained whole in 32 bits, in a model of 16


@pytest.mark.parametrize("saved", ['["embed_tokens", "norm"]', '["lm_head", "input_layernorm", "q_proj"]'])
def test_modules_in_32_bits_stand_among_layers_in_16(of: Any, saved: str) -> None:
    """Trained under autocast, asked without it, and switched off to ask the model as it was."""
    import torch

    recipe = of("lora", f"method.modules_to_save={saved}", "method.dora=true")
    model = load(recipe, dataclasses.replace(PLAN, precision="bf16"))
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert {each.dtype for each in trained.values()} == {torch.float32}
    tokens = torch.arange(3, 99).reshape(3, 32)
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(input_ids=tokens, labels=tokens).loss.backward()
    assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in trained.values())
    assert all(bool(each.grad.any()) for name, each in trained.items() if ".modules_to_save." in name)
    before = logits(model.eval()).float()
    with model.disable_adapter():
        assert float((logits(model).float() - before).abs().mean()) < 0.05  # nothing was trained yet
    written = model.generate(input_ids=tokens[:, :4], max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert written.shape == (3, 7)
    disturb(model)
    with model.disable_adapter():
        assert float((logits(model).float() - before).abs().mean()) < 0.05
    assert float((logits(model).float() - before).abs().mean()) > 0.5


# Merging


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lora", WHOLE),
        ("lora", ('method.modules_to_save=["lm_head"]', "method.rslora=true")),
        ("lora", ('method.modules_to_save=["down_proj", "input_layernorm"]', "method.dora=true")),
        ("qlora", ("method.dora=true", 'method.modules_to_save=["embed_tokens", "norm"]')),
    ],
)
def test_a_merged_model_answers_as_the_tuned_one(of: Any, kind: str, changes: tuple[str, ...]) -> None:
    from tunewright.engine.results.export import merge
    from tunewright.engine.training.transformers import load_base

    recipe = of(kind, *changes)
    run = create_run(recipe, PLAN, "merged")
    model = disturb(load(recipe))
    model.save_pretrained(run.adapter)
    place = merge(run, recipe, PLAN, MODEL)
    full = recipe.model_copy(update={"method": of("full").method})
    difference = (logits(load_base(full, PLAN, place).eval()) - logits(model)).abs().max()
    assert float(difference) < 2e-4
    assert float((logits(model) - logits(load_base(full, PLAN, MODEL).eval())).abs().max()) > 0.5


# Backends


@pytest.mark.skipif(importlib.util.find_spec("unsloth") is not None, reason="Unsloth is installed")
def test_without_unsloth_its_backend_says_so() -> None:
    with pytest.raises(TunewrightError, match="Unsloth does not start") as caught:
        importlib.import_module("tunewright.engine.training.unsloth")
    assert "--backend transformers" in caught.value.remedy


def test_a_refusal_of_unsloth_is_told_with_what_the_other_backend_costs() -> None:
    import torch
    from tunewright.engine.training.refusals import asked

    predicted = Prediction(1, 2, 10.0, {}, 1, 1.0, 1.0, 1.0, 600.0, (1, 2), 1.0)
    others = (
        Alternative("4 × 4 rows, transformers, padded", 14.0, 1500.0, "slower"),
        Alternative("2 × 8 rows, transformers with Liger, padded", 12.0, 1200.0, "slower"),
    )
    plan = dataclasses.replace(PLAN, backend="unsloth", prediction=predicted, alternatives=others)

    def refuse() -> None:
        raise NotImplementedError("Unsloth: own\x1b[2J is not yet implemented!")

    with pytest.raises(TunewrightError, match="Unsloth refuses this model") as caught:
        asked(plan, refuse)
    assert caught.value.message == "NotImplementedError: Unsloth: own is not yet implemented!"
    assert "--backend transformers" in caught.value.remedy
    assert "20 minutes instead of 10 (2.0 times as long), and 12.0 GiB instead of 10.0" in caught.value.remedy

    def run_out() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        asked(plan, run_out)
