"""What objectives cost beside their rows: pairs are padded, references are asked, whole logits are held."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tunewright.engine.anatomy import parse_anatomy
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.plan import Backend, Plan
from tunewright.engine.planner import make_plan
from tunewright.engine.work import Work
from tunewright.recipes.model import Recipe, validate_recipe

SMALL = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256,
        "tie_word_embeddings": True, "max_position_embeddings": 8192,
    },
    "small",
)  # fmt: skip
CHANCE = random.Random(5)
LENGTHS = [CHANCE.randint(100, 800) for _ in range(1_000)]
LORA = {"kind": "lora"}
FULL = {"kind": "full"}


def recipe(objective: str, method: dict[str, Any] = LORA, adapter: str | None = None) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": "m"} | ({"adapter": adapter} if adapter else {}),
            "data": {"source": "d"},
            "method": method,
            "training": {"learning_rate": 1e-4, "epochs": 1.0, "global_batch": 16, "objective": objective},
        },
        "test",
    )


def plan(
    objective: str, method: dict[str, Any] = LORA, lengths: list[int] = LENGTHS, backend: Backend = "transformers"
) -> Plan:
    card = GpuDevice(0, "NVIDIA H200", 139.8, 139.8, (9, 0), None, None, None, None)
    box = Machine("Linux", "EPYC", 16, 130.0, 128.0, 500.0, (card,), "580", "No GPU.")
    return make_plan(recipe(objective, method), box, SMALL, lengths, [], [50], None, backend=backend)


def work(objective: str, method: dict[str, Any] = LORA, adapter: str | None = None) -> Work:
    return Work(recipe(objective, method, adapter), SMALL, tuple(LENGTHS), (), 50.0, 50, 0)


@pytest.mark.parametrize(
    ("objective", "fresh", "otherwise"),
    [("sft", (0, 0), (0, 0)), ("dpo", (1, 0), (0, 1)), ("orpo", (0, 0), (0, 0)), ("kto", (3, 0), (1, 2))],
)
def test_a_reference_is_asked_in_every_step_only_where_adapters_can_be_switched_off(
    objective: str, fresh: tuple[int, int], otherwise: tuple[int, int]
) -> None:
    assert work(objective).forward_passes == fresh
    assert work(objective, FULL).forward_passes == otherwise
    assert work(objective, adapter="a").forward_passes == otherwise


@pytest.mark.parametrize("backend", ["transformers", "unsloth"])
@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_answers_that_are_compared_are_padded(objective: str, backend: Backend) -> None:
    assert plan(objective, backend=backend).batching == "padded"


def test_what_a_step_does_beside_learning_takes_its_time() -> None:
    seconds = {each: plan(each).prediction.step_seconds for each in ("orpo", "dpo", "kto")}
    assert seconds["orpo"] < seconds["dpo"] < seconds["kto"]
    ready = {each: plan(each, FULL).prediction.seconds_to_first_step for each in ("orpo", "dpo", "kto")}
    assert ready["orpo"] < ready["dpo"] < ready["kto"]


def test_logits_that_are_held_whole_take_their_memory() -> None:
    twice = [2 * each for each in LENGTHS]
    by_token = {
        each: plan(each, lengths=twice).prediction.memory_terms["loss"] / plan(each, lengths=twice).micro_batch
        for each in ("dpo", "orpo")
    }
    assert by_token["orpo"] > 3 * by_token["dpo"]
