"""The optimizer: Hugging Face's own by the recipe's name, with the learning rates that the method asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from ...recipes.model import LoraMethod, Recipe, Training
from ..schedule import rate_parts


def ratio_of(recipe: Recipe) -> float:
    """Return by how much faster the adapters' B matrices learn; 1 where nothing is to be done."""
    return recipe.method.lora_plus_ratio if isinstance(recipe.method, LoraMethod) else 1.0


def set_rates(trainer: Any, recipe: Recipe) -> Any:
    """Return `trainer`, which from now on makes its optimizer with the recipe's ratio of learning rates (LoRA+).

    With a ratio of 1 nothing is changed.
    """
    ratio = ratio_of(recipe)
    if ratio != 1:
        trainer.__class__ = type("Rated", (RatedTraining, type(trainer)), {"ratio": ratio})
    return trainer


def set_schedule(trainer: Any, recipe: Recipe) -> Any:
    """Return `trainer`, which from now on follows the schedules of the recipe's extensions; without any, its own."""
    if recipe.training.extensions:
        trainer.__class__ = type("Extended", (ExtendedTraining, type(trainer)), {"training": recipe.training})
        trainer.add_callback(RateTaken())
    return trainer


class ExtendedTraining:
    """What stands before TRL's trainer among the bases of one whose steps have several schedules, one after the other."""

    training: Training

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        mine: Any = self
        if mine.lr_scheduler is None:
            part = rate_parts(self.training, num_training_steps)
            mine.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or mine.optimizer, lambda taken: part(taken)
            )
            mine._created_lr_scheduler = True
        return mine.lr_scheduler


class RateTaken(TrainerCallback):
    """Takes the learning rate from the schedule when training begins: a checkpoint holds that of the schedule before."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        rates = [
            base * part(lr_scheduler.last_epoch)
            for base, part in zip(lr_scheduler.base_lrs, lr_scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        lr_scheduler._last_lr = rates


class SteadyTraining:
    """What stands before TRL's trainer among the bases: its optimizer does not wait for the device between parameters."""

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        trainer: Any = super()
        optimizer = trainer.create_optimizer(*arguments, **options)
        if getattr(optimizer, "is_paged", True) is False and not isinstance(optimizer, Steady):
            kind = type(optimizer)
            optimizer.__class__ = type(kind.__name__, (Steady, kind), {})
        return optimizer


class Steady:
    """bitsandbytes' optimizer, whose own `step` waits for the GPU after each of hundreds of small updates.

    Only pages need that. Without it the updates are queued while the GPU is still at the gradients. The arithmetic and
    its order stay the same. Source: bitsandbytes 0.50.2, optim/optimizer.py, `Optimizer8bit.step`.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, and return the loss of `closure` where there is one."""
        mine: Any = self
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not mine.initialized:
            mine.check_overrides()
            mine.to_gpu()
            mine.initialized = True
        for place, group in enumerate(mine.param_groups):
            for index, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if not mine.state[parameter]:
                    mine.init_state(group, parameter, place, index)
                mine.update_step(group, parameter, place, index)
        return loss


class RatedTraining:
    """What stands before TRL's trainer among the bases of one whose adapters' matrices learn at two rates.

    The optimizer is the one that it would have made, bitsandbytes' placements among them, with B's matrices in groups
    of their own; schedule and checkpoints know groups.
    """

    ratio = 1.0

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        mine: Any = self
        trainer: Any = super()
        is_new = mine.optimizer is None
        optimizer = trainer.create_optimizer(*arguments, **options)
        if is_new:
            quicken(optimizer, mine.model, self.ratio)
        return optimizer


def quicken(optimizer: Any, model: Any, ratio: float) -> None:
    """Let the B matrices of `model`'s adapters learn `ratio` times as fast, by arXiv 2402.12354.

    All else keeps the recipe's rate: the A matrices, DoRA's magnitudes and the modules that are trained whole.
    """
    fast = {id(parameter) for name, parameter in model.named_parameters() if is_b(name)}
    for group in list(optimizer.param_groups):
        chosen = [each for each in group["params"] if id(each) in fast]
        if chosen:
            group["params"] = [each for each in group["params"] if id(each) not in fast]
            settings = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group(settings | {"params": chosen, "lr": group["lr"] * ratio})


def is_b(name: str) -> bool:
    """Tell whether the parameter called `name` is the second matrix of an adapter, which begins at zero."""
    return ".lora_B." in name or ".lora_embedding_B." in name
