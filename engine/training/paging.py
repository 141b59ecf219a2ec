"""Paging: an optimizer whose states lie in pages of the host goes on with states that were saved from a GPU."""

from __future__ import annotations

from typing import Any

import torch

SMALLEST_PAGED = 100_000
"""Values of a state that bitsandbytes pages at least; smaller ones stay on the GPU."""


class PagedTraining:
    """What stands before TRL's trainer among the bases: it sees to it that a resume leaves the pages where they are."""

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        trainer: Any = super()
        optimizer = trainer.create_optimizer(*arguments, **options)
        if getattr(optimizer, "is_paged", False) and not isinstance(optimizer, Paged):
            optimizer.__class__ = type("PagedOptimizer", (Paged, type(optimizer)), {})
        return optimizer


class Paged:
    """bitsandbytes' paged optimizer, which would otherwise load all saved states onto the GPU, and only its own."""

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = False) -> None:
        mine: Any = self
        optimizer: Any = super()
        named = translated(state_dict, mine.defaults)
        optimizer.load_state_dict(named, move_to_device=False)
        for parameter, values in mine.state.items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    values[name] = self._placed(value, parameter)

    def _placed(self, value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Return a state in pages where it is large, beside its parameter where not."""
        if parameter.device.type != "cuda" or value.numel() < SMALLEST_PAGED or value.shape != parameter.shape:
            return value.to(parameter.device)
        from bitsandbytes import functional

        mine: Any = self
        pages: Any = functional.get_paged(*value.shape, dtype=value.dtype, device=parameter.device)
        pages.copy_(value)
        mine.page_mng.paged_tensors.append(pages)
        return pages


def translated(state_dict: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the states of torch's AdamW by the names that bitsandbytes gives the same; its own are returned as they are."""
    if not any("exp_avg" in values for values in state_dict["state"].values()):
        return state_dict
    states = {
        index: {
            "step": int(values["step"]),
            "state1": values["exp_avg"].float(),
            "state2": values["exp_avg_sq"].float(),
        }
        for index, values in state_dict["state"].items()
    }
    groups = [
        {**defaults, **{name: value for name, value in group.items() if name in {*defaults, "params", "initial_lr"}}}
        for group in state_dict["param_groups"]
    ]
    return {"state": states, "param_groups": groups}
