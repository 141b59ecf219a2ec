"""Objectives: TRL's trainers over our rows, beside what TRL makes of the same rows itself; each learns, and resumes exactly."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tunewright import starter
from tunewright.engine.data.preparing import Prepared, prepare
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Plan
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import Eval, EventLog, Step, read_events
from tunewright.engine.sources import find_model
from tunewright.engine.training.objectives import kto, preference
from tunewright.engine.training.telemetry import Telemetry
from tunewright.engine.training.trainer import build_trainer, load
from tunewright.recipes.model import Recipe, validate_recipe

pytestmark = pytest.mark.timeout(300)

STEPS = 6
LORA = {"kind": "lora", "rank": 8, "alpha": 16.0}
PAIRS: list[Path] = []
"""The file of the pairs that the tests train on."""


@pytest.fixture(scope="module", autouse=True)
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = starter.PREFERENCES.read_text(encoding="utf-8").splitlines(keepends=True)[:46]
    place = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    place.write_text("".join(lines), encoding="utf-8")
    PAIRS[:] = [place]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    torch.set_num_threads(1)


def recipe(objective: str, method: dict[str, Any] = LORA, **training: Any) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": "tunewright/starter"},
            "data": {"source": str(PAIRS[0]), "max_length": 256, "validation": {"kind": "rows", "value": 6.0}},
            "method": method,
            "training": {"learning_rate": 3e-3, "steps": STEPS, "global_batch": 4, "objective": objective}
            | {"warmup": {"kind": "steps", "value": 0.0}}
            | training,
        },
        "test",
    )


def plan_of(wanted: Recipe, micro_batch: int = 4) -> Plan:
    plan = plan_recipe(wanted, inspect_machine(Path("/tmp")))
    return dataclasses.replace(
        plan,
        micro_batch=micro_batch,
        accumulation=wanted.training.global_batch // micro_batch,
        evaluate_every_steps=STEPS // 2,
        checkpoint_every_steps=STEPS // 2,
        sample_every_steps=10 * STEPS,
        threads=1,
    )


class Built:
    """A trainer as a run builds it, with what the run tells."""

    def __init__(self, wanted: Recipe, plan: Plan, place: Path) -> None:
        self.run = RunDirectory(place)
        self.run.checkpoints.mkdir(parents=True)
        self.log = EventLog(self.run.events_file)
        self.prepared: Prepared = prepare(wanted)
        self.model, self.tokenizer = load(wanted, plan, find_model(wanted.base.model))
        telemetry = Telemetry(self.run, self.log, plan, (), lambda prompts: [])
        self.trainer = build_trainer(self.run, wanted, plan, self.model, self.tokenizer, self.prepared, telemetry)

    @property
    def steps(self) -> list[Step]:
        return [event for event in read_events(self.run.events_file)[0] if isinstance(event, Step)]

    @property
    def evals(self) -> list[Eval]:
        return [event for event in read_events(self.run.events_file)[0] if isinstance(event, Eval)]

    def batch(self, rows: int) -> dict[str, Any]:
        """Return the first rows as the trainer's collator makes them a batch."""
        data = self.trainer.train_dataset
        return self.trainer.data_collator([data[index] for index in range(rows)])


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Built]:
    def made(wanted: Recipe, micro_batch: int = 4, name: str = "run") -> Built:
        return Built(wanted, plan_of(wanted, micro_batch), tmp_path / name)

    return made


def move_away(model: Any) -> None:
    """Let the adapters do something, as after some steps."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B.default" in name:
            weight.data = 0.05 * torch.randn(weight.shape, generator=generator)


def pairs_of(prepared: Prepared, rows: int) -> list[dict[str, Any]]:
    """The first pairs that are trained, as the file has them."""
    lines = PAIRS[0].read_text(encoding="utf-8").splitlines()
    left = [index for index in range(len(lines)) if index not in prepared.chosen]
    return [json.loads(lines[index]) for index in left[:rows]]


def metrics_at(trainer: Any) -> dict[str, float]:
    values = trainer._metrics if hasattr(trainer, "_metrics") else trainer._stored_metrics
    return {name: float(np.mean(list(found))) for name, found in values["train"].items()}


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_dpo_loses_what_trl_loses_on_the_same_pairs(build: Callable[..., Built], tmp_path: Path, loss: str) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    ours = build(recipe("dpo", preference={"loss": loss, "beta": 0.3}))
    raw = Dataset.from_list(pairs_of(ours.prepared, 6))
    model, tokenizer = load(recipe("dpo"), plan_of(recipe("dpo")), find_model("tunewright/starter"))
    config = DPOConfig(str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
                       loss_type=[loss], beta=0.3, max_length=256)  # fmt: skip
    theirs = DPOTrainer(model=model, args=config, train_dataset=raw, processing_class=tokenizer)
    losses: list[float] = []
    told: list[dict[str, float]] = []
    batches = (ours.batch(6), theirs.data_collator([theirs.train_dataset[index] for index in range(6)]))
    for trainer, batch in zip((ours.trainer, theirs), batches, strict=True):
        move_away(trainer.model)
        trainer.model.train()
        losses.append(trainer.compute_loss(trainer.model, batch).item())
        told.append(metrics_at(trainer))
    for name in ("input_ids", "attention_mask", "completion_mask"):
        assert torch.equal(batches[0][name], batches[1][name])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(told[0]["rewards/margins"]) > 1e-3  # the model is not the reference any more
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
        assert told[0][name] == pytest.approx(told[1][name], rel=1e-4, abs=1e-5)


def test_orpo_sets_answers_apart_as_trl_does_and_learns_the_better_one_alone(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    ours = build(recipe("orpo"))
    model, tokenizer = load(recipe("orpo"), plan_of(recipe("orpo")), find_model("tunewright/starter"))
    config = ORPOConfig(str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False,
                        report_to="none", max_length=256, remove_unused_columns=False)  # fmt: skip
    raw = Dataset.from_list(pairs_of(ours.prepared, 6))
    theirs = ORPOTrainer(model=model, args=config, train_dataset=raw, processing_class=tokenizer)
    told: list[dict[str, float]] = []
    batch = ours.batch(6)
    for trainer, rows in ((ours.trainer, batch), (theirs, theirs.data_collator(list(theirs.train_dataset)))):
        trainer.model.train()
        trainer.compute_loss(trainer.model, rows)
        told.append(metrics_at(trainer))
    for name in ("rewards/chosen", "rewards/rejected", "log_odds_ratio", "log_odds_chosen"):
        assert told[0][name] == pytest.approx(told[1][name], rel=1e-4, abs=1e-6)
    with torch.no_grad():
        logits = ours.model(batch["chosen_input_ids"], attention_mask=batch["chosen_attention_mask"]).logits
    answer = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["chosen_labels"][:, 1:].flatten())
    assert told[0]["nll_loss"] == pytest.approx(float(answer), rel=1e-5)


def test_kto_asks_every_prompt_with_the_answer_to_another(build: Callable[..., Built]) -> None:
    ours = build(recipe("kto"), micro_batch=1)
    rows, data = ours.prepared.training, ours.trainer.train_dataset
    answers = [answer_of(row.input_ids, row.labels) for row in rows]
    prompts = [row.input_ids[: -len(answer)] for row, answer in zip(rows, answers, strict=True)]
    other = [tuple(answer_of(each["KL_input_ids"], each["KL_labels"])) for each in data]
    assert sorted(other) == sorted(map(tuple, answers))
    assert [each["KL_input_ids"][: len(prompt)] for each, prompt in zip(data, prompts, strict=True)] == prompts
    same = sum(one == tuple(two) for one, two in zip(other, answers, strict=True))
    assert same < len(rows) / 10  # answers that happen to be the same words
    assert [each["label"] for each in data] == ([True, False] * len(rows))[: len(rows)]
    assert ours.trainer.args.per_device_train_batch_size == 1
    assert ours.trainer.args.train_sampling_strategy == "random"


def answer_of(ids: list[int], labels: list[int]) -> list[int]:
    return [token for token, label in zip(ids, labels, strict=True) if label != -100]


def test_kto_weighs_good_and_bad_answers_by_the_recipe(build: Callable[..., Built]) -> None:
    weights = {"beta": 0.2, "desirable_weight": 2.0, "undesirable_weight": 0.5}
    ours = build(recipe("kto", preference=weights))
    move_away(ours.trainer.model)
    ours.trainer.model.train()
    batch = ours.batch(6)
    loss = ours.trainer.compute_loss(ours.trainer.model, batch).item()

    def likelihood(prefix: str, adapted: bool) -> torch.Tensor:
        context = torch.no_grad() if adapted else ours.model.disable_adapter()
        with torch.no_grad(), context:
            logits = ours.model(batch[f"{prefix}input_ids"], attention_mask=batch[f"{prefix}attention_mask"]).logits
        each = torch.log_softmax(logits[:, :-1], -1).gather(-1, batch[f"{prefix}input_ids"][:, 1:, None])[..., 0]
        return (each * batch[f"{prefix}completion_mask"][:, 1:]).sum(-1)

    kl = (likelihood("KL_", True) - likelihood("KL_", False)).mean().clamp(min=0)
    moved = likelihood("", True) - likelihood("", False)
    good = 2.0 * (1 - torch.sigmoid(0.2 * (moved - kl)))
    bad = 0.5 * (1 - torch.sigmoid(0.2 * (kl - moved)))
    assert loss == pytest.approx(float(torch.where(batch["label"], good, bad).mean()), rel=1e-4)


def require_fields(ours: Built, wanted: Recipe, micro_batch: int) -> None:
    """The trainer uses what the recipe and the plan say, field by field."""
    used = ours.trainer.args
    made = {"dpo": preference.dpo_arguments, "orpo": preference.orpo_arguments, "kto": kto.kto_arguments}
    values = made[wanted.training.objective](wanted, plan_of(wanted, micro_batch), Path(used.output_dir))
    assert {"beta", "learning_rate", "seed", "max_grad_norm", "train_sampling_strategy"} <= values.keys()
    for name, value in values.items():
        given = getattr(used, name)
        if name != "report_to":  # kept as a list
            assert getattr(given, "value", given) == value, name


def require_progress(ours: Built, objective: str) -> None:
    """The reward of the better answers rises above that of the worse, and the run's events tell it."""
    first, last = ours.steps[0], ours.steps[-1]
    assert len(ours.steps) == STEPS
    assert [each.step for each in ours.evals] == [STEPS // 2, STEPS]
    early, late = ours.evals
    assert early.loss is not None and late.loss is not None and late.loss < early.loss
    assert all(math.isfinite(value) for step in ours.steps for value in step.metrics.values())
    assert late.metrics["rewards/margins"] > early.metrics["rewards/margins"] > first.metrics["rewards/margins"]
    if objective != "kto":
        assert last.metrics["rewards/margins"] > first.metrics["rewards/margins"]
        assert late.metrics["rewards/accuracies"] > first.metrics["rewards/accuracies"] == 0
    if objective == "dpo":
        assert first.loss == pytest.approx(math.log(2), rel=1e-5)  # the model is its own reference
    assert min(each.tokens for each in ours.steps) > 0
    assert max(each.tokens for each in ours.steps) <= 4 * max(ours.prepared.training.lengths)


@pytest.mark.parametrize("objective", ["orpo", "kto"])
def test_it_learns_and_tells_how(build: Callable[..., Built], objective: str) -> None:
    wanted = recipe(objective, learning_rate=6e-3)
    ours = build(wanted)
    require_fields(ours, wanted, 4)
    ours.trainer.train()
    require_progress(ours, objective)


def test_continued_pretraining_learns_every_token(build: Callable[..., Built]) -> None:
    ours = build(recipe("cpt"))
    ours.trainer.train()
    assert ours.prepared.training.learned.all()
    assert ours.evals[1].loss is not None and ours.evals[0].loss is not None
    assert ours.evals[1].loss < ours.evals[0].loss < ours.steps[0].loss


def test_the_reference_of_an_adapter_that_is_gone_on_from_is_the_model_with_it(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    wanted = recipe("dpo")
    before = build(wanted, name="before")
    move_away(before.model)
    before.model.save_pretrained(tmp_path / "adapter")
    on = wanted.model_copy(update={"base": wanted.base.model_copy(update={"adapter": str(tmp_path / "adapter")})})
    ours = build(on, name="after")
    assert list(ours.model.peft_config) == ["default"]
    ours.trainer.model.train()
    loss = ours.trainer.compute_loss(ours.trainer.model, ours.batch(6)).item()
    assert loss == pytest.approx(math.log(2), rel=1e-4)
    assert {name for name, weight in ours.model.named_parameters() if weight.requires_grad} == {
        name for name, weight in before.model.named_parameters() if weight.requires_grad
    }


@pytest.mark.parametrize("method", [LORA, {"kind": "full"}], ids=["lora", "full"])
def test_dpo_learns_and_a_resumed_run_is_the_same_run(build: Callable[..., Built], method: dict[str, Any]) -> None:
    wanted = recipe("dpo", method, learning_rate=3e-3 if method is LORA else 3e-4)
    whole = build(wanted, micro_batch=2, name="whole")
    require_fields(whole, wanted, 2)
    assert getattr(whole.model, "peft_config", {"default": None}).keys() == {"default"}
    whole.trainer.train()
    require_progress(whole, "dpo")
    rest = build(wanted, micro_batch=2, name="rest")
    (halfway,) = (each for each in whole.run.checkpoints.iterdir() if each.name.endswith(f"{STEPS // 2:06}"))
    rest.trainer.train(resume_from_checkpoint=str(halfway))
    assert [told(each) for each in rest.steps] == [told(each) for each in whole.steps[STEPS // 2 :]]
    assert rest.evals[-1].loss == whole.evals[-1].loss
    weights = zip(whole.model.parameters(), rest.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def told(step: Step) -> tuple[object, ...]:
    return step.step, step.loss, step.grad_norm, step.learning_rate, step.tokens, step.metrics


def test_rows_are_filled_at_their_end_and_nothing_is_learned_there(build: Callable[..., Built]) -> None:
    ours = build(recipe("dpo"))
    batch = ours.batch(3)
    rows = ours.prepared.training
    assert rows.rejected is not None
    for place, row in enumerate([*rows[:3], *rows.rejected[:3]]):
        ids, mask, learned = (batch[name][place] for name in ("input_ids", "attention_mask", "completion_mask"))
        assert ids[: row.length].tolist() == row.input_ids
        assert mask.tolist() == [1] * row.length + [0] * (len(ids) - row.length)
        assert learned[: row.length].tolist() == [int(label != -100) for label in row.labels]
        assert not learned[row.length :].any()
