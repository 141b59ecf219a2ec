"""Paging: the last rung of the memory ladder goes on with the moments that torch's AdamW had gathered."""

from __future__ import annotations

from typing import Any

import pytest


def trained(change_after: int | None, steps: int = 6) -> Any:
    """Return a layer's weights after `steps`, the optimizer changed to the paged one `change_after` so many of them."""
    torch = pytest.importorskip("torch")
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from tunewright.engine.training.paging import PagedTraining

    torch.manual_seed(0)
    layer, rows = torch.nn.Linear(32, 32), torch.randn(8, 32)
    groups = [{"params": [layer.weight], "weight_decay": 0.1}, {"params": [layer.bias], "weight_decay": 0.0}]
    settings: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8}

    def falling(step: int) -> float:
        return 1 / (1 + step)

    class Trainer:
        def create_optimizer(self) -> Any:
            return bitsandbytes.optim.PagedAdamW32bit([dict(group) for group in groups], **settings)

    class Resumed(PagedTraining, Trainer):
        pass

    optimizer: Any = torch.optim.AdamW([dict(group) for group in groups], **settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, falling)
    for step in range(steps):
        if step == change_after:
            saved, behind = optimizer.state_dict(), schedule.state_dict()
            optimizer = Resumed().create_optimizer()
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, falling)
            optimizer.load_state_dict(saved)
            schedule.load_state_dict(behind)
            assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
            assert [group["initial_lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]
        optimizer.zero_grad()
        layer(rows).square().mean().backward()
        optimizer.step()
        schedule.step()
    return layer.weight.detach().clone()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_a_paged_optimizer_goes_on_where_torchs_own_was() -> None:
    torch = pytest.importorskip("torch")
    assert torch.allclose(trained(change_after=3), trained(change_after=None), atol=1e-6)


@pytest.mark.slow
def test_its_own_states_are_taken_as_they_are() -> None:
    pytest.importorskip("torch")
    from tunewright.engine.training.paging import translated

    saved: dict[str, Any] = {"state": {0: {"step": 3, "state1": 1, "state2": 2}}, "param_groups": []}
    assert translated(saved, {}) is saved
