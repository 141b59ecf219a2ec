"""The guard: trainings that go wrong are stopped or told before their weights are saved, with a reason and a remedy."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tunewright.engine.data.preparing import Rows
from tunewright.engine.runs import outcome
from tunewright.engine.runs.checkpoint import newest_good, saved_checkpoints
from tunewright.engine.runs.events import EventLog, Notice, read_events
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Guard as Settings
from tunewright.starter import MODEL

pytestmark = pytest.mark.slow

DIVERGING = ["training.learning_rate=1", "training.warmup.value=0", "method.rank=1", "method.alpha=4096"]


def changed_model(folder: Path, name: str, value: float) -> Path:
    """Return a copy of the starter model, one of whose tensors holds `value` everywhere."""
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    tensors[name].fill_(value)
    save_file(tensors, file, {"format": "pt"})
    return folder


def test_a_training_that_diverges_stops_before_its_weights_are_saved(trainings: Any) -> None:
    every = {"checkpoint_every_steps": 1, "evaluate_every_steps": 100}
    ended = trainings.train(trainings.new("lora", DIVERGING, **every))
    assert ended.outcome == outcome.REFUSED
    notice = ended.history.notices[-1]
    assert (notice.level, notice.title) == ("error", "Not a number")
    step = ended.history.step
    assert f"At step {step} of 12" in notice.message
    assert "the training rows" in notice.message
    assert "training.learning_rate = 0.2" in notice.remedy
    checkpoint, faults = newest_good(ended.run.checkpoints)
    assert checkpoint is not None and not faults
    assert checkpoint.step == step - 1, "the last one before it"
    assert not [*ended.run.exports.iterdir()]


def test_weights_that_are_not_numbers_are_found_at_the_first_step(trainings: Any, tmp_path: Path) -> None:
    model = changed_model(tmp_path / "model", "model.layers.0.mlp.down_proj.weight", float("nan"))
    ended = trainings.train(trainings.new("lora", [f'base.model="{model}"']))
    assert ended.outcome == outcome.REFUSED
    (notice,) = ended.history.notices
    assert "At step 1 of 12 the loss is NaN or infinite" in notice.message
    assert "the model's files first" in notice.remedy
    assert saved_checkpoints(ended.run.checkpoints) == []


def test_an_adapter_without_a_gradient_is_found(trainings: Any, tmp_path: Path) -> None:
    """Behind a norm of zero nothing reaches the adapters; the loss looks like any other."""
    model = changed_model(tmp_path / "model", "model.norm.weight", 0.0)
    ended = trainings.train(trainings.new("lora", [f'base.model="{model}"']))
    assert ended.outcome == outcome.REFUSED
    (notice,) = ended.history.notices
    assert notice.title == "Nothing is learned"
    assert "every trained weight is bit for bit what it was" in notice.message
    assert "the gradient was 0 in all of them" in notice.message
    assert "method.targets" in notice.remedy


class Guarded:
    """A guard over a layer of four weights, told the steps that a test makes up."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        torch = pytest.importorskip("torch")
        from tunewright.engine.training.guard import Guard

        self.layer = torch.nn.Linear(2, 2, bias=False)
        self.file = folder / "events.jsonl"
        training = SimpleNamespace(guard=Settings(**settings), learning_rate=0.01, objective="sft")
        plan = SimpleNamespace(precision="fp16")
        recipe: Any = SimpleNamespace(training=training)
        empty = Rows(*(np.zeros(0, np.int32) for _ in range(4)))  # pyright: ignore[reportArgumentType]
        self.guard = Guard(EventLog(self.file), recipe, plan, empty)  # pyright: ignore[reportArgumentType]
        self.state = SimpleNamespace(global_step=0, max_steps=100, log_history=[])
        self.guard.on_train_begin(None, self.state, None, model=self.layer)

    def step(self, loss: float = 1.0, norm: float = 1.0, skipped: bool = False, moves: bool = True) -> None:
        torch = pytest.importorskip("torch")
        self.state.global_step += 1
        if moves:
            with torch.no_grad():
                self.layer.weight += 0.01
        optimizer = SimpleNamespace(step_was_skipped=skipped)
        control = SimpleNamespace(should_save=True, should_evaluate=False)
        logs = {"loss": loss, "grad_norm": norm, "learning_rate": 0.01}
        self.guard.on_log(None, self.state, control, logs, model=self.layer, optimizer=optimizer)

    @property
    def told(self) -> list[str]:
        return [event.title for event in read_events(self.file)[0] if isinstance(event, Notice)]


def test_a_gradient_explodes_when_it_stays_large(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, explosion="stop", explosion_factor=10)
    for norm in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0, 50.0, 50.0, 1.0, 50.0, 50.0):
        guarded.step(norm=norm)  # two large ones in a row are a hard batch
    with pytest.raises(TunewrightError, match="in 3 steps in a row") as raised:
        guarded.step(norm=50.0)
    assert "the median was 1" in raised.value.message


def test_a_warning_is_told_once_until_it_is_over(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, explosion="warn", explosion_factor=10)
    for norm in [1.0] * 8 + [99.0] * 6 + [1.0] + [99.0] * 4:
        guarded.step(norm=norm)
    assert guarded.told == ["The gradient explodes"] * 2


def test_a_warning_is_enough_for_a_loss_that_is_not_a_number_where_the_recipe_says_so(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, not_a_number="warn")
    for _ in range(3):
        guarded.step(loss=float("nan"))
    assert guarded.told == ["Not a number"]


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    guarded = Guarded(tmp_path)
    with torch.no_grad():
        guarded.layer.weight[0, 0] = float("inf")
    with pytest.raises(TunewrightError, match="a weight is NaN or infinite"):
        guarded.step()


def test_a_loss_worse_than_guessing_is_a_divergence(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    guarded.layer.config = SimpleNamespace(vocab_size=1000)
    guarded.guard.on_train_begin(None, guarded.state, None, model=guarded.layer)
    for loss in (7.0, 7.5, 7.5, 7.5, 7.5, 7.0, 7.5, 7.5, 7.5, 7.5):  # ln 1000 = 6.908
        guarded.step(loss=loss)
    assert guarded.told == []
    guarded.step(loss=7.5)
    assert guarded.told == ["The training has diverged"]


def test_a_loss_of_nothing_but_zeros_is_found(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    for _ in range(4):
        guarded.step(loss=0.0)
    with pytest.raises(TunewrightError, match="exactly 0 in 5 steps"):
        guarded.step(loss=0.0)


def test_fp16_may_look_for_its_scale_but_not_for_ever(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    for _ in range(19):
        guarded.step(norm=float("inf"), skipped=True, moves=False)
    guarded.step()
    for _ in range(19):
        guarded.step(norm=float("nan"), skipped=True, moves=False)
    with pytest.raises(TunewrightError, match="20 steps"):
        guarded.step(norm=float("inf"), skipped=True, moves=False)


def test_a_step_without_a_token_to_learn_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, input_ids: Any, labels: Any) -> Any:
            return SimpleNamespace(loss=self.weight.sum())

    guarded = Guarded(tmp_path)
    model = Model().train()
    guarded.guard.on_train_begin(None, guarded.state, None, model=model)
    guarded.layer = model  # pyright: ignore[reportAttributeAccessIssue]
    tokens = torch.tensor([[1, 2, 3]])
    model(input_ids=tokens, labels=tokens)
    guarded.step()
    assert guarded.told == []
    model(input_ids=tokens, labels=torch.full_like(tokens, -100))
    guarded.step()
    assert guarded.told == ["A step without a token to learn"]


def test_a_model_without_a_trainable_weight_is_refused() -> None:
    torch = pytest.importorskip("torch")
    from tunewright.engine.training.guard import require_trainable

    layer = torch.nn.Linear(2, 2)
    require_trainable(layer)
    layer.requires_grad_(False)
    with pytest.raises(TunewrightError, match="Nothing to train"):
        require_trainable(layer)


def test_rows_are_found_in_any_batch_that_holds_them() -> None:
    torch = pytest.importorskip("torch")
    from tunewright.engine.training.guard import Batch, find_rows, rows_in

    tokens = np.array([5, 6, 7, 5, 6, 8, 9, 5], np.int32)
    rows = Rows(tokens, np.ones(8, np.bool_), np.array([3, 5, 7, 8]), np.array([3, 2, 2, 1], np.int32))
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    padded = Batch(torch.tensor([[5, 6, 7], [8, 9, 0]]), mask, None, None)
    side_by_side = Batch(torch.tensor([[5, 6, 5]]), None, torch.tensor([[0, 1, 0]]), None)
    assert find_rows(rows, [*rows_in(padded)]) == [0, 2]
    assert find_rows(rows, [*rows_in(side_by_side)]) == [1, 3]
