"""Every field of a recipe is the one that the trainer uses; and a field that is changed behind its back is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from ...fields import departures, expected, observe

pytestmark = pytest.mark.slow

UNUSUAL = [
    "training.steps=5", "training.learning_rate=0.0007", "training.weight_decay=0.03", "training.max_grad_norm=0.6",
    "training.seed=7", 'training.warmup={"kind": "steps", "value": 2}', "training.schedule=linear",
]  # fmt: skip
ADAPTERS = ["method.rank=4", "method.alpha=12", "method.dropout=0.05", "method.rslora=true", "method.dora=true"]
CASES = {
    "lora": [*UNUSUAL, *ADAPTERS, 'method.targets=["v_proj", "q_proj", "up_proj"]', "method.lora_plus_ratio=8",
             'method.modules_to_save=["lm_head", "norm"]'],
    "qlora": ["training.steps=4", "training.schedule=constant", "training.optimizer=adamw_8bit", "method.lora_plus_ratio=2",
              "method.double_quantisation=false"],
    "full": ["training.steps=3", "training.global_batch=12", "training.warmup.value=0.5", "training.floor=0.25",
             "training.beta2=0.95"],
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CASES))
def trained(request: pytest.FixtureRequest, trainings: Any) -> tuple[Any, dict[str, Any]]:
    """A run, and what its trainer used."""
    run = trainings.new(
        request.param, CASES[request.param], micro_batch=4, accumulation=3 if request.param == "full" else 4
    )
    return run, observe(run)


def test_the_trainer_uses_what_the_recipe_says(trained: tuple[Any, dict[str, Any]]) -> None:
    run, seen = trained
    assert departures(seen, expected(run.recipe(), run.plan())) == []
    eight_bit = run.recipe().training.optimizer == "adamw_8bit"
    assert seen["state_types"] == ["torch.uint8" if eight_bit else "torch.float32"]


def test_what_is_changed_behind_the_recipe_is_noticed(trainings: Any) -> None:
    """As a library might: in the trainer's arguments, in the adapters' layers, in the optimizer."""

    def tamper(trainer: Any) -> None:
        trainer.args.max_grad_norm = 0.3
        trainer.args.weight_decay = 0.5
        trainer.args.lr_scheduler_type = type(trainer.args.lr_scheduler_type)("constant")
        for module in trainer.model.modules():
            if "default" in getattr(module, "lora_dropout", ()):
                module.lora_dropout["default"].p = 0.5

    changes = ["training.steps=2", "training.warmup.value=0", "method.dropout=0.1", "method.lora_plus_ratio=4"]
    run = trainings.new("lora", changes, micro_batch=8, accumulation=2)
    found = departures(observe(run, tamper), expected(run.recipe(), run.plan()))
    names = {each.partition(":")[0] for each in found}
    assert names == {"max_grad_norm", "weight_decay", "lr_scheduler_type", "dropout", "rates", "rates_of_b"}
