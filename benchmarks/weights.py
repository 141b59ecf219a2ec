"""Random weights of a true shape on disk, in bf16 or 4 bits, written without ever making the model."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from shapes import SHAPES

PLACE = Path(os.environ.get("MEASURE_PLACE", "/dev/shm/tunewright"))
"""Where models, locks and the trainer's output go; in memory, so that loading is not what is measured."""
STARTER = Path(__file__).resolve().parent.parent / "starter" / "model"
ELEMENT_BYTES = {"BF16": 2, "U8": 1, "F32": 4}
NOISE = 2**24
"""Random numbers that are made; larger tensors repeat them."""
BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale in NF4, and scales that share one when quantised doubly."""
NESTED_SCALE, NESTED_OFFSET = 0.01, 0.02
QUANTISATION = {
    "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a safetensors file, with content that is repeated until it is full."""

    name: str
    kind: str
    shape: tuple[int, ...]
    content: bytes

    @property
    def size(self) -> int:
        return int(numpy.prod(self.shape, dtype=numpy.int64)) * ELEMENT_BYTES[self.kind]


def make_model(name: str, layers: int | None = None) -> Path:
    """Return a folder with random bf16 weights of the shape `name`, made once and shared; `layers` makes it shallower."""
    config = SHAPES[name] | ({"num_hidden_layers": layers} if layers else {})
    folder = PLACE / "models" / (name if layers is None else f"{name}-{layers}")
    with _first_to(folder) as missing:
        if missing:
            normal = _normal_bf16(numpy.random.default_rng(0))
            tensors = [Tensor(key, "BF16", shape, normal) for key, shape in _parameters(config)]
            _write_model(folder, config, tensors)
    return folder


def make_quantised_model(name: str) -> Path:
    """Return a folder with random NF4 weights, doubly quantised, of the shape `name`, as bitsandbytes stores them."""
    folder = PLACE / "models" / f"{name}-nf4"
    with _first_to(folder) as missing:
        if missing:
            generator = numpy.random.default_rng(0)
            noise = generator.integers(0, 256, 2**26, dtype=numpy.uint8).tobytes()
            normal = _normal_bf16(generator)
            tensors: list[Tensor] = []
            for key, shape in _parameters(SHAPES[name]):
                quantised = key.endswith("proj.weight")
                tensors += _quantised(key, shape, noise) if quantised else [Tensor(key, "BF16", shape, normal)]
            _write_model(folder, SHAPES[name] | {"quantization_config": QUANTISATION}, tensors)
    return folder


@contextmanager
def _first_to(folder: Path) -> Generator[bool]:
    """Hold the lock of `folder`, telling whether its model is still to be made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not (folder / "model.safetensors").exists()


def _parameters(config: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of the tensors that the checkpoint of this shape holds."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    tied = bool(config.get("tie_word_embeddings"))
    return [
        (key, tuple(value.shape)) for key, value in model.state_dict().items() if not (tied and key == "lm_head.weight")
    ]


def _normal_bf16(generator: numpy.random.Generator) -> bytes:
    normal = generator.standard_normal(NOISE, dtype=numpy.float32) * 0.02
    return (normal.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes()


def _quantised(key: str, shape: tuple[int, ...], noise: bytes) -> list[Tensor]:
    """Return what bitsandbytes stores for a weight: 4-bit numbers, their scales, and how to read both."""
    import bitsandbytes.functional as functional

    levels = functional.get_4bit_type("nf4", device="cpu").numpy().astype(numpy.float32).tobytes()
    nested = functional.create_dynamic_map().numpy().astype(numpy.float32).tobytes()
    state = json.dumps({
        "quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(shape),
        "nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": NESTED_OFFSET,
    }).encode()  # fmt: skip
    count = shape[0] * shape[1]
    blocks = -(-count // BLOCK)
    scales = -(-blocks // NESTED_BLOCK)
    return [
        Tensor(key, "U8", (count // 2, 1), noise),
        Tensor(f"{key}.absmax", "U8", (blocks,), noise),
        Tensor(f"{key}.nested_absmax", "F32", (scales,), numpy.full(scales, NESTED_SCALE, numpy.float32).tobytes()),
        Tensor(f"{key}.nested_quant_map", "F32", (256,), nested),
        Tensor(f"{key}.quant_map", "F32", (16,), levels),
        Tensor(f"{key}.quant_state.bitsandbytes__nf4", "U8", (len(state),), state),
    ]


def _write_model(folder: Path, config: dict[str, Any], tensors: Sequence[Tensor]) -> None:
    """Write config, the starter's tokenizer and weights; the weights last, by whose file the folder is known as made."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for each in tensors:
        header[each.name] = {
            "dtype": each.kind,
            "shape": list(each.shape),
            "data_offsets": [offset, offset + each.size],
        }
        offset += each.size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with (folder / "writing").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for each in tensors:
            left = each.size
            while left:
                left -= file.write(memoryview(each.content)[:left])
    for file in STARTER.glob("*token*"):
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "writing").rename(folder / "model.safetensors")
