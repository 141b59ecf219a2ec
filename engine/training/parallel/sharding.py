"""FSDP2: a model whose weights are split among the ranks, read from its files part by part.

No rank ever holds the whole model, neither on its card nor in its memory: the model is made without weights, and one
layer after the other is read and split. 4-bit weights are quantised matrix by matrix, each by one rank, and then split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.quantizers import AutoHfQuantizer

from ....foundation.errors import TunewrightError
from .. import parallel

INDEX = "model.safetensors.index.json"
STORAGE = torch.bfloat16
"""What 4-bit numbers are packed into: FSDP splits floating-point numbers alone."""


@dataclass(slots=True)
class Files:
    """The tensors of a checkpoint's safetensors files, each read when it is asked for."""

    folder: Path
    where: dict[str, Path]
    _open: dict[Path, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Files:
        """Return the tensors in `folder`; raises TunewrightError where there are no such files."""
        if (folder / INDEX).exists():
            names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            return cls(folder, {name: folder / file for name, file in names.items()})
        found: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        if not found:
            raise TunewrightError(
                "No safetensors", f"{folder} has no weights in safetensors files.", "Convert them, or take one GPU."
            )
        return cls(folder, found)

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor, on the host."""
        return self._file(name).get_tensor(name)

    def rows(self, name: str, start: int, end: int) -> torch.Tensor:
        """Return rows of a tensor, on the host; nothing else of it is read."""
        return self._file(name).get_slice(name)[start:end]

    def _file(self, name: str) -> Any:
        path = self.where[name]
        if path not in self._open:
            self._open[path] = safe_open(path, framework="pt").__enter__()
        return self._open[path]


def load_sharded(folder: Path, dtype: Any, attention: str, device: Any, quantisation: Any) -> Any:
    """Return the model in `folder` with its weights split among the ranks, frozen if it is quantised.

    `dtype` is torch's, `quantisation` a BitsAndBytesConfig or None.
    Raises TunewrightError where the files do not name the weights as the model does, so that they cannot be read in
    parts.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    files = Files.of(folder)
    require_names(model, files)
    mesh = init_device_mesh(device.type, (parallel.ranks(),))
    for name, buffer in list(model.named_buffers()):
        holder, _, short = name.rpartition(".")
        module = model.get_submodule(holder)
        read = files.read(name) if name in files.where and short not in module._non_persistent_buffers_set else buffer
        module._buffers[short] = read.to(device, buffer.dtype)
    if quantisation is not None:
        quantise(model, files, device, quantisation)
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32 if quantisation is None else None)
    for prefix, layer in layers_of(model):
        if quantisation is None:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
            read_parts(layer, prefix, files, device, mesh)
        else:
            read_whole(layer, prefix, files, device, torch.float32)
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    # What is outside the layers stays together, for losses reach into the output layer without calling it.
    read_whole(model, "", files, device, torch.float32 if quantisation is not None else None)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    if quantisation is not None:
        restore_marks(model, quantisation)
        model.requires_grad_(False)
    model.config.use_cache = False
    if device.type == "cuda":
        model.hf_device_map = {"": device.index}  # it is in its place: split weights are not to be moved as a whole
    return model


def layers_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the blocks of a transformers model with their names."""
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer):
            yield name, module


def require_names(model: Any, files: Files) -> None:
    """Refuse a checkpoint that does not name the weights as the model does; raises TunewrightError."""
    tied: set[int] = set()
    missing: list[str] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in files.where:
            tied.add(id(parameter))
        else:
            missing.append(name)
    lost = [name for name in missing if id(model.get_parameter(name)) not in tied]
    if lost:
        raise TunewrightError(
            "Weights cannot be read in parts",
            f"The files do not hold {len(lost)} of the model's weights under its own names, {lost[0]} among them, so "
            "they cannot be split among GPUs while they are read.",
            "Train on one GPU, or with a model whose weights fit on each (DDP).",
        )


def read_parts(module: Any, prefix: str, files: Files, device: Any, mesh: DeviceMesh) -> None:
    """Fill the split parameters of `module`, which have no memory yet; each rank reads its own rows."""
    parts: dict[str, Any] = {}
    for name, parameter in module.named_parameters():
        whole = f"{prefix}.{name}"
        rows = -(-parameter.shape[0] // mesh.size())
        start = min(mesh.get_local_rank() * rows, parameter.shape[0])
        end = min(start + rows, parameter.shape[0])
        local = files.rows(whole, start, end).to(device, parameter.dtype)
        parts[name] = DTensor.from_local(
            local, mesh, parameter.placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
        )
    module.load_state_dict(parts, assign=True, strict=False)


def read_whole(module: Any, prefix: str, files: Files, device: Any, cast: Any) -> None:
    """Read what is still without memory in `module` whole, in `cast` instead of its own type where that is given."""
    holders: dict[int, list[tuple[Any, str, str]]] = {}
    for place, inner in module.named_modules():
        for short, parameter in inner._parameters.items():
            if parameter is not None and parameter.is_meta:
                name = ".".join(part for part in (prefix, place, short) if part)
                holders.setdefault(id(parameter), []).append((inner, short, name))
    for shared in holders.values():
        name = next(name for _, _, name in shared if name in files.where)
        empty = shared[0][0]._parameters[shared[0][1]]
        if isinstance(empty, DTensor):
            continue
        filled = nn.Parameter(files.read(name).to(device, cast or empty.dtype), requires_grad=empty.requires_grad)
        for inner, short, _ in shared:
            inner._parameters[short] = filled


def quantise(model: Any, files: Files, device: Any, settings: Any) -> None:
    """Replace the layers' projections by 4-bit ones, whose weights are packed into numbers that can be split.

    The ranks read and quantise as many matrices at a time as there are ranks, one each, and give them to each other.
    """
    from bitsandbytes import functional

    places = [
        (layer, place, linear, f"{prefix}.{place}.weight")
        for prefix, layer in layers_of(model)
        for place, linear in layer.named_modules()
        if type(linear) is nn.Linear
    ]
    for first in range(0, len(places), parallel.ranks()):
        together = places[first : first + parallel.ranks()]
        packed: list[tuple[torch.Tensor, Any]] = []
        for source, (_, _, linear, name) in enumerate(together):
            shape, dtype = linear.weight.shape, linear.weight.dtype
            ours = source == parallel.rank()
            weight = files.read(name).to(device, dtype) if ours else torch.empty(shape, dtype=dtype, device=device)
            made = functional.quantize_4bit(
                weight,
                compress_statistics=settings.bnb_4bit_use_double_quant,
                quant_type=settings.bnb_4bit_quant_type,
                quant_storage=STORAGE,
            )
            packed.append(made)
        for source, ((layer, place, linear, _), (numbers, state)) in enumerate(zip(together, packed, strict=True)):
            for tensor in (numbers, *tensors_of(state)):
                dist.broadcast(tensor, source)
            layer.set_submodule(place, four_bit(linear, numbers, state, settings))
    model.hf_quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    model.is_loaded_in_4bit = True
    model.is_quantized = True
    model.config.quantization_config = settings


def four_bit(linear: nn.Linear, numbers: torch.Tensor, state: Any, settings: Any) -> Any:
    """Return bitsandbytes' projection with packed weights, in the place of `linear`."""
    from bitsandbytes.nn import Linear4bit

    made = Linear4bit(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,  # pyright: ignore[reportUnnecessaryComparison]
        settings.bnb_4bit_compute_dtype,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
        quant_storage=STORAGE,
        device="meta",
    )
    made.bias = linear.bias
    made.weight = nn.Parameter(numbers, requires_grad=False)
    made.quant_state = state
    return made


def tensors_of(state: Any) -> Sequence[torch.Tensor]:
    """Return what of a quantisation's state depends on the weights."""
    nested = (state.offset, state.state2.absmax) if state.nested else ()
    return (state.absmax, *nested)


def restore_marks(model: Any, settings: Any) -> None:
    """Write onto the split 4-bit weights what PEFT asks them for, which the split left behind."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.weight.compress_statistics = settings.bnb_4bit_use_double_quant
            module.weight.quant_type = settings.bnb_4bit_quant_type
            module.support_avx512bf16_for_cpu = False


def whole_state(model: Any) -> Mapping[str, torch.Tensor] | None:
    """Return all weights of a split model on the host of the first rank, None on the others; every rank must call it."""
    gathered: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if parallel.is_first():
            gathered[name] = whole.cpu()
        del whole
    return gathered if parallel.is_first() else None
