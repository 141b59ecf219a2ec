"""Training of split weights (FSDP2): what transformers' trainer does differently when no rank has the whole model.

Frozen weights are split and adapters are whole on every rank, so that adapters, their optimizer and their checkpoints
are those of one GPU; their gradients are averaged once a step. Weights that are trained themselves are split with
their gradients and states: the optimizer gets each rank's own parts as plain tensors, which every optimizer takes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ...plan import Plan
from .. import parallel

BUCKET_ELEMENTS = 2**25
"""Gradients that are averaged at once."""
WEIGHTS_FILE, PARTS_FILE = "weights-rank-{}.safetensors", "optimizer-rank-{}.pt"
"""What each rank writes into a checkpoint of weights that are trained in parts."""
OPTIMIZER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"
"""As transformers calls them."""


def share_out(trainer: Any, plan: Plan) -> None:
    """Have `trainer` train together with those of the other ranks, as the plan says."""
    if parallel.is_alone():
        return
    if plan.parallelism == "fsdp2":
        trainer.__class__ = type("Split", (SplitTraining, type(trainer)), {})
        # Autocast as for one GPU, and no copy of the weights on every rank (DDP), for the model is split already.
        alone = functools.partial(trainer.accelerator.prepare_model, device_placement=False, evaluation_mode=True)
        trainer.accelerator.prepare_model = lambda model, **ignored: alone(model)
    else:
        trainer.__class__ = type("Shared", (SharedTraining, type(trainer)), {})
        trainer.args.ddp_find_unused_parameters = False
        trainer.args.ddp_broadcast_buffers = False


class SharedTraining:
    """What stands before TRL's trainer among the bases of one that shares a training with other ranks."""

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Evaluate, each rank taking the mean over its own batches, which are then weighed by what is in them."""
        mine: Any = self
        trainer: Any = super()
        averages, mine.args.average_tokens_across_devices = mine.args.average_tokens_across_devices, False
        try:
            return trainer.evaluate(*arguments, **options)
        finally:
            mine.args.average_tokens_across_devices = averages

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Read the states by way of the host: transformers reads them onto a device that torch may not know."""
        if checkpoint is None:
            return
        mine: Any = self
        folder = Path(checkpoint)
        own = PARTS_FILE.format(parallel.rank()) if is_trained_in_parts(mine.model) else OPTIMIZER_FILE
        mine.optimizer.load_state_dict(torch.load(folder / own, map_location="cpu", weights_only=True))
        mine.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_FILE, weights_only=True))


class SplitTraining(SharedTraining):
    """The same for one whose weights are split."""

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        trainer: Any = super()
        loss = trainer.training_step(*arguments, **options)
        mine: Any = self
        if mine.accelerator.sync_gradients:
            average_gradients(whole_parameters(mine.model))
        return loss

    def create_optimizer(self, *arguments: Any, **options: Any) -> torch.optim.Optimizer:
        trainer: Any = super()
        optimizer = trainer.create_optimizer(*arguments, **options)
        mine: Any = self
        take_parts(optimizer, mine.model)
        return optimizer

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        trainer: Any = super()
        parts = list(split_parameters(model))
        if not parts:
            return trainer._clip_grad_norm(model)
        mine: Any = self
        return clip(parts, list(whole_parameters(model)), mine.args.max_grad_norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        trainer: Any = super()
        parts = list(split_parameters(model))
        if grad_norm is None and parts:
            grad_norm = clip(parts, list(whole_parameters(model)), float("inf"))
        return trainer._get_grad_norm(model, grad_norm=grad_norm)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        mine: Any = self
        trainer: Any = super()
        put_away(mine.model)
        if not is_trained_in_parts(mine.model):
            trainer.save_model(output_dir, _internal_call=_internal_call)
            return
        folder = Path(output_dir or mine.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(parts_of(mine.model)), folder / WEIGHTS_FILE.format(parallel.rank()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        mine: Any = self
        trainer: Any = super()
        if not is_trained_in_parts(mine.model):
            trainer._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS_FILE.format(parallel.rank()))
        with torch.no_grad():
            for name, part in parts_of(mine.model):
                part.copy_(saved[name])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        mine: Any = self
        trainer: Any = super()
        if not is_trained_in_parts(mine.model):
            trainer._save_optimizer_and_scheduler(output_dir)
            return
        folder = Path(output_dir)
        torch.save(mine.optimizer.state_dict(), folder / PARTS_FILE.format(parallel.rank()))
        if parallel.is_first():
            torch.save(mine.lr_scheduler.state_dict(), folder / SCHEDULER_FILE)


def put_away(model: Any) -> None:
    """Let go of what was gathered of the weights: an evaluation leaves some of it, which the first rank's saving drops."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_trained_in_parts(model: Any) -> bool:
    """Tell whether split weights are trained themselves, and not only adapters beside them."""
    return any(True for _ in split_parameters(model))


def split_parameters(model: Any) -> Iterator[Any]:
    """Yield the trained parameters that are split among the ranks."""
    return (each for each in model.parameters() if each.requires_grad and isinstance(each, DTensor))


def whole_parameters(model: Any) -> Iterator[Any]:
    """Yield the trained parameters that every rank has whole."""
    return (each for each in model.parameters() if each.requires_grad and not isinstance(each, DTensor))


def parts_of(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield this rank's own part of every split parameter, by name."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            yield name, parameter.detach().to_local()


def average_gradients(parameters: Iterable[Any]) -> None:
    """Replace the gradients of `parameters` by their mean over the ranks, many at once."""

    def average(gradients: list[torch.Tensor]) -> None:
        flat = torch.cat([each.reshape(-1) for each in gradients])
        dist.all_reduce(flat)
        flat /= parallel.ranks()
        parts = flat.split([each.numel() for each in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    bucket: list[torch.Tensor] = []
    held = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (held + parameter.numel() > BUCKET_ELEMENTS or bucket[0].dtype != parameter.grad.dtype):
            average(bucket)
            bucket, held = [], 0
        bucket.append(parameter.grad)
        held += parameter.numel()
    if bucket:
        average(bucket)


def clip(split: list[Any], whole: list[Any], limit: float) -> torch.Tensor:
    """Scale all gradients so that their norm is at most `limit`, and return the norm that they had; summed in fp32."""
    parts = [each.grad.to_local() for each in split if each.grad is not None]
    rest = [each.grad for each in whole if each.grad is not None]
    squares = torch.zeros((), dtype=torch.float32, device=parts[0].device)
    for part in parts:
        if part.numel():
            squares += torch.linalg.vector_norm(part, dtype=torch.float32) ** 2
    dist.all_reduce(squares)
    for gradient in rest:
        squares += torch.linalg.vector_norm(gradient, dtype=torch.float32) ** 2
    norm = squares.sqrt()
    if limit != float("inf"):
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ does
        for gradient in (*parts, *rest):
            gradient.mul_(scale.to(gradient.dtype))
    return norm


def take_parts(optimizer: torch.optim.Optimizer, model: Any) -> None:
    """Give the optimizer this rank's own part of every split parameter in its place, as a plain tensor.

    An optimizer that goes through elements, or through blocks of them, takes the same steps so; bitsandbytes' have no
    notion of split tensors at all.
    """
    pairs: list[tuple[nn.Parameter, Any]] = []
    for group in optimizer.param_groups:
        kept: list[Any] = []
        for parameter in group["params"]:
            if not isinstance(parameter, DTensor):
                kept.append(parameter)
                continue
            part = nn.Parameter(parameter.detach().to_local())
            if part.numel():
                pairs.append((part, parameter))
                kept.append(part)
        group["params"] = kept
    if not pairs:
        return

    def lend_gradients(*ignored: Any) -> None:
        for part, whole in pairs:
            part.grad = None if whole.grad is None else whole.grad.to_local()

    def take_gradients_back(*ignored: Any) -> None:
        for part, _ in pairs:
            part.grad = None

    optimizer.register_step_pre_hook(lend_gradients)
    optimizer.register_step_post_hook(take_gradients_back)
    if type(optimizer).__module__.startswith("bitsandbytes"):
        _keep_embeddings_in_32_bits(optimizer, model, pairs)


def _keep_embeddings_in_32_bits(optimizer: Any, model: Any, pairs: list[tuple[nn.Parameter, Any]]) -> None:
    """Do for the parts what transformers does for whole embeddings: their 8-bit states would not hold."""
    from bitsandbytes.optim import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for part, whole in pairs:
        if id(whole) in embeddings:
            manager.override_config(part, "optim_bits", 32)
    manager.register_parameters(optimizer.param_groups)
