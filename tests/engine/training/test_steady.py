"""A step without waiting: the optimizer's arithmetic and the model's mode are what they would be with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tunewright.engine.training.acceleration import attention
from tunewright.engine.training.optimizer import SteadyTraining
from tunewright.engine.training.trainer import keep_mode


class Making:
    """A trainer as far as its optimizer is concerned."""

    def __init__(self, kind: type[Any], model: torch.nn.Module) -> None:
        self.kind, self.model = kind, model

    def create_optimizer(self) -> Any:
        return self.kind(self.model.parameters(), lr=1e-2, weight_decay=0.1)


class Steadily(SteadyTraining, Making):
    pass


def trained(trainer: type[Making], kind: type[Any], steps: int) -> tuple[Any, list[torch.Tensor]]:
    """Return an optimizer after so many steps, and the weights."""
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 8))
    optimizer = trainer(kind, model).create_optimizer()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 64)).square().mean().backward()
        optimizer.step()
    return optimizer, [each.detach().clone() for each in model.parameters()]


def of_bitsandbytes(name: str) -> type[Any]:
    return getattr(pytest.importorskip("bitsandbytes").optim, name)


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit"])
def test_an_optimizer_that_does_not_wait_takes_the_same_steps(name: str) -> None:
    ours, weights = trained(Steadily, of_bitsandbytes(name), 6)
    _, theirs = trained(Making, of_bitsandbytes(name), 6)
    assert type(ours).__name__ == name
    assert type(ours) is not of_bitsandbytes(name)
    assert all(map(torch.equal, weights, theirs))


def test_it_goes_on_from_the_states_of_one_that_waited() -> None:
    kind = of_bitsandbytes("AdamW8bit")
    waited, _ = trained(Making, kind, 3)
    ours, _ = trained(Steadily, kind, 0)
    ours.load_state_dict(waited.state_dict())
    assert [values["step"] for values in ours.state.values()] == [3] * 4


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
def test_pages_are_waited_for(name: str) -> None:
    optimizer, _ = trained(Steadily, of_bitsandbytes(name), 0)
    assert type(optimizer) is of_bitsandbytes(name)


def test_torchs_own_optimizers_are_left_alone() -> None:
    optimizer, _ = trained(Steadily, torch.optim.AdamW, 1)
    assert type(optimizer) is torch.optim.AdamW


class Counting(torch.nn.Linear):
    turned = 0

    def train(self, mode: bool = True) -> Counting:
        self.turned += 1
        return super().train(mode)


def test_a_model_is_turned_when_its_mode_is_another() -> None:
    model = torch.nn.Sequential(Counting(2, 2), Counting(2, 2))
    model[0].eval()  # as a base model is that adapters were put into
    keep_mode(model)
    assert all(each.training for each in model.modules())
    inner: Any = model[0]
    before = inner.turned
    assert model.train() is model
    assert torch.nn.Sequential(model).train()[0] is model
    assert inner.turned == before
    model.eval()
    assert not any(each.training for each in model.modules())
    model.train()
    assert all(each.training for each in model.modules())
    assert inner.turned == before + 2


@pytest.mark.parametrize(("asked", "warned"), [(False, False), (True, True), (True, False)])
def test_what_was_asked_of_torch_is_asked_again(asked: bool, warned: bool) -> None:
    torch.use_deterministic_algorithms(asked, warn_only=warned)
    try:
        with pytest.raises(RuntimeError), attention._in_one_order():
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            raise RuntimeError
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warned
    finally:
        torch.use_deterministic_algorithms(False)
