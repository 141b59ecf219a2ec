"""Fused adapters: PEFT's LoRA with few passes over memory, for layers whose projections share an input.

A projection with an adapter is y = x·Wᵀ + (x·sAᵀ)·Bᵀ. PEFT computes each term by itself, writes it down and reads it
again to add; with seven projections a layer that takes as long as a fifth of all matrix products. Here the projections
that read the same x (query, key and value; gate and up) are one product with one weight, whose last columns hold B:

    forward   t = x·sAᵀ            y = [x t]·[W B]ᵀ          (or y = x·Wᵀ, to which t·Bᵀ is added in place)
    backward  [dx dt] = dy·[W B]   dx += dt·sA               dA = s·dtᵀ·x    dB = dyᵀ·t

W stays in the model's memory: the projections' own weights become views of it. 4-bit weights are expanded into one
buffer that all layers share. A and B stay 32-bit parameters of PEFT, and are copied in before each forward pass. What
PEFT computes is computed here in the same types, and compared in the tests.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections that read the same input, in the order in which transformers' layers call them."""
COPIED_INPUT = 2
"""Copying the input beside t pays where the output is at least so many times as wide."""
ADAPTER = "default"


@dataclass(slots=True, eq=False)
class Group:
    """Projections of one layer that read the same input, and the memory that they are computed from."""

    layers: tuple[Any, ...]
    """PEFT's LoRA layers."""
    number: Tensor
    """The group's place in `_groups`, on the host: a tensor, so that one compiled layer serves all."""
    down: Tensor
    """sA of all layers, (ranks, inputs)."""
    whole: Tensor | None
    """[W B], (outputs, inputs + ranks); None for 4-bit weights."""
    up: Tensor
    """B of all layers, each in its own rows and columns, (outputs, ranks); a view of `whole` where there is one."""
    scales: Tensor
    """s of each rank, (ranks, 1)."""
    waiting: tuple[Tensor, ...] = ()
    """The outputs, computed with the first, that the others will ask for."""

    def parts(self) -> Iterator[tuple[Callable[[], Tensor], Tensor, Tensor | None, Tensor | None]]:
        """Yield of each layer how W is had, (outputs, inputs), B among the columns of all, [W B], and its bias.

        4-bit weights are expanded into a buffer that all groups share, so that only one W is there at a time.
        """
        inputs, row = self.down.shape[1], 0
        for layer in self.layers:
            rows = slice(row, row + layer.out_features)
            row = rows.stop
            if self.whole is None:
                weight = partial(_expand, layer.base_layer.weight, self.down)
                yield weight, self.up[rows], None, layer.base_layer.bias
            else:
                whole = self.whole[rows]
                yield partial(whole.narrow, 1, 0, inputs), self.up[rows], whole, layer.base_layer.bias

    def copy_pairs(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield where each adapter's matrix is copied to, the matrix, and by what it is scaled."""
        row = rank = 0
        for layer in self.layers:
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            yield self.down[rank : rank + a.shape[0]], a, float(layer.scaling[ADAPTER])
            yield self.up[row : row + b.shape[0], rank : rank + a.shape[0]], b, 1.0
            row, rank = row + b.shape[0], rank + a.shape[0]


_groups: list[Group] = []
_expanded: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def fuse_adapters(model: Any) -> int:
    """Have all layers of the PEFT model `model` that allow it computed in groups while it trains; return how many groups.

    Dropout, DoRA, several adapters, and layers that are no linear ones are left to PEFT. Evaluation and generation
    take PEFT's own way.
    """
    groups: list[Group] = []
    for parent in model.modules():
        children = dict(parent.named_children())
        taken: set[str] = set()
        for names in TOGETHER:
            if all(name in children and _is_simple(children[name]) for name in names):
                groups.append(_group([children[name] for name in names]))
                taken.update(names)
        groups += [_group([child]) for name, child in children.items() if name not in taken and _is_simple(child)]
    copies = [pair for group in groups for pair in group.copy_pairs()]

    def copy_in(*_: object) -> None:
        """Copy the adapters, as they are now, to where the groups compute with them."""
        with torch.no_grad():
            for target, source, scale in copies:
                target.copy_(source)
                if scale != 1:
                    target.mul_(scale)

    if groups:
        model.register_forward_pre_hook(copy_in)
    return len(groups)


def _is_simple(layer: Any) -> bool:
    """Tell whether `layer` is a linear one of PEFT's with one plain adapter."""
    import peft.tuners.lora as lora

    kinds = (lora.Linear, getattr(lora, "Linear4bit", lora.Linear))  # the latter is there with bitsandbytes
    return (
        isinstance(layer, kinds)
        and list(layer.lora_A) == [ADAPTER]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        and not layer.fan_in_fan_out
        and not getattr(layer.lora_dropout[ADAPTER], "p", 0)
        and not layer.use_dora[ADAPTER]
        and layer.lora_B[ADAPTER].bias is None
        and (layer.base_layer.weight.dtype in (torch.bfloat16, torch.float16, torch.float32) or _is_4bit(layer))
    )


def _is_4bit(layer: Any) -> bool:
    return hasattr(layer.base_layer.weight, "quant_state")


def _group(layers: Sequence[Any]) -> Group:
    """Return the group of `layers`, whose forward passes are from now on this group's."""
    inputs = layers[0].in_features
    outputs = sum(layer.out_features for layer in layers)
    ranks = sum(layer.r[ADAPTER] for layer in layers)
    four_bit = _is_4bit(layers[0])
    weight = layers[0].base_layer.weight
    dtype = weight.quant_state.dtype if four_bit else weight.dtype
    options = {"dtype": dtype, "device": weight.device}
    whole = None
    if four_bit:
        up = torch.zeros(outputs, ranks, **options)
    else:
        whole = torch.zeros(outputs, inputs + ranks, **options)
        up, row = whole[:, inputs:], 0
        for layer in layers:
            view = whole[row : row + layer.out_features, :inputs]
            layer.base_layer.weight.data = view.copy_(layer.base_layer.weight.data)
            row += layer.out_features
    found = Group(
        layers=tuple(layers),
        number=torch.tensor(len(_groups)),
        down=torch.zeros(ranks, inputs, **options),
        whole=whole,
        up=up,
        scales=torch.cat([torch.full((layer.r[ADAPTER], 1), layer.scaling[ADAPTER], **options) for layer in layers]),
    )
    _groups.append(found)
    for index, layer in enumerate(layers):
        layer.__dict__["fused"], layer.__dict__["place"] = found, index
        layer.__dict__["plain_forward"] = layer.forward
        layer.forward = types.MethodType(_first_forward if index == 0 else _next_forward, layer)
    return found


def _first_forward(self: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """Compute the whole group, and keep what the others of it will ask for."""
    if not self.training or self.disable_adapters or self.merged:
        return self.plain_forward(x, *arguments, **options)
    group: Group = self.fused
    downs = [layer.lora_A[ADAPTER].weight for layer in group.layers]
    ups = [layer.lora_B[ADAPTER].weight for layer in group.layers]
    group.waiting = _PROJECT[len(ups)](x.to(group.down.dtype), group.number, downs, ups)
    return group.waiting[0]


def _next_forward(self: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """Return what was computed with the group's first projection."""
    if not self.training or self.disable_adapters or self.merged:
        return self.plain_forward(x, *arguments, **options)
    return self.fused.waiting[self.place]


def _project(x: Tensor, number: Tensor, downs: list[Tensor], ups: list[Tensor]) -> tuple[Tensor, ...]:
    """Return y of each projection in the group with this number, for x (..., inputs), and t, (rows, ranks), last."""
    group = _groups[int(number)]
    rows = x.reshape(-1, x.shape[-1])
    t = rows @ group.down.t()
    copied = group.whole is not None and group.whole.shape[0] >= COPIED_INPUT * rows.shape[1]
    both = torch.cat([rows, t], dim=1) if copied else rows
    outputs: list[Tensor] = []
    for weight, up, whole, bias in group.parts():
        if whole is not None and copied:
            y = both @ whole.t()
        else:
            y = rows @ weight().t()
            y.addmm_(t, up.t())
        outputs.append((y if bias is None else y.add_(bias)).view(*x.shape[:-1], y.shape[-1]))
    return *outputs, t


def _shapes(x: Tensor, number: Tensor, downs: list[Tensor], ups: list[Tensor]) -> tuple[Tensor, ...]:
    ranks, rows = sum(down.shape[0] for down in downs), x.numel() // x.shape[-1]
    return *(x.new_empty(*x.shape[:-1], up.shape[0]) for up in ups), x.new_empty(rows, ranks)


def _project_backward(gradients: list[Tensor], x: Tensor, t: Tensor, number: Tensor) -> tuple[Tensor, ...]:
    """Return dx, dA of all layers, (ranks, inputs), and then each layer's part of dB, (outputs, ranks)."""
    group = _groups[int(number)]
    inputs, ranks = x.shape[-1], t.shape[1]
    rows = x.reshape(-1, inputs)
    both = rows.new_empty(len(rows), inputs + ranks)
    dx, dt = both[:, :inputs], both[:, inputs:]
    by_up: list[Tensor] = []
    for index, (dy, (weight, up, whole, _)) in enumerate(zip(gradients, group.parts(), strict=True)):
        dy = dy.reshape(-1, dy.shape[-1])
        for target, factor in [(both, whole)] if whole is not None else [(dx, weight()), (dt, up)]:
            if index == 0:
                torch.mm(dy, factor, out=target)
            else:
                target.addmm_(dy, factor)
        by_up.append(dy.t() @ t)
    dx.addmm_(dt, group.down)
    return dx.view(x.shape), (dt * group.scales.t()).t() @ rows, *by_up


def _backward_shapes(gradients: list[Tensor], x: Tensor, t: Tensor, number: Tensor) -> tuple[Tensor, ...]:
    inputs, ranks = x.shape[-1], t.shape[1]
    dx = x.new_empty(*x.shape[:-1], inputs + ranks)[..., :inputs]
    return dx, x.new_empty(ranks, inputs), *(x.new_empty(dy.shape[-1], ranks) for dy in gradients)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, number, downs, ups = inputs
    ctx.save_for_backward(x, output[-1], number)
    ctx.ranks, ctx.kinds = [down.shape[0] for down in downs], (downs[0].dtype, ups[0].dtype)


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    x, t, number = ctx.saved_tensors
    dx, da, *db = _PROJECT_BACKWARD[len(ctx.ranks)](list(gradients[:-1]), x, t, number)
    begins = [sum(ctx.ranks[:index]) for index in range(len(ctx.ranks))]
    blocks = [
        part[:, begin : begin + rank].to(ctx.kinds[1]) for part, begin, rank in zip(db, begins, ctx.ranks, strict=True)
    ]
    return dx, None, list(da.to(ctx.kinds[0]).split(ctx.ranks)), blocks


def _register(projections: int) -> tuple[Any, Any]:
    """Return the operations for groups of so many projections, known to the compiler as they are, unopened.

    There is one for each number because a list of outputs would have its gradients filled with zeros first.
    """

    def results(number: int) -> str:
        return f"({', '.join(['Tensor'] * number)})"

    forward = torch.library.custom_op(
        f"tunewright::project_{projections}",
        _project,
        mutates_args=(),
        schema=f"(Tensor x, Tensor number, Tensor[] downs, Tensor[] ups) -> {results(projections + 1)}",
    )
    backward = torch.library.custom_op(
        f"tunewright::project_{projections}_backward",
        _project_backward,
        mutates_args=(),
        schema=f"(Tensor[] gradients, Tensor x, Tensor t, Tensor number) -> {results(projections + 2)}",
    )
    forward.register_fake(_shapes)
    backward.register_fake(_backward_shapes)
    forward.register_autograd(_differentiate, setup_context=_remember)
    return forward, backward


_OPERATIONS = {size: _register(size) for size in sorted({1, *map(len, TOGETHER)})}
_PROJECT = {size: forward for size, (forward, _) in _OPERATIONS.items()}
_PROJECT_BACKWARD = {size: backward for size, (_, backward) in _OPERATIONS.items()}


def _expand(weight: Any, like: Tensor) -> Tensor:
    """Return a 4-bit weight in 16 bits, in a buffer that is written anew for every product."""
    from bitsandbytes.functional import dequantize_4bit

    shape, key = weight.quant_state.shape, (like.device, like.dtype)
    buffer = _expanded.get(key)
    if buffer is None or buffer.numel() < shape.numel():
        buffer = _expanded[key] = torch.empty(shape.numel(), dtype=like.dtype, device=like.device)
    return dequantize_4bit(weight.data, weight.quant_state, out=buffer[: shape.numel()].view(shape))
