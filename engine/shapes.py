"""Published shapes: what the config.json of well-known models says, so that they can be counted without any file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..foundation.errors import TunewrightError, nearest
from ..foundation.text import one_line
from . import sources
from .anatomy import Anatomy, parse_anatomy, read_anatomy

_COLUMNS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size", "tie_word_embeddings", "max_position_embeddings",
)  # fmt: skip
SHAPES: dict[str, tuple[str | int | bool, ...]] = {
    "SmolLM2-135M": ("llama", 576, 30, 9, 3, 64, 1536, 49152, True, 8192),
    "SmolLM2-1.7B": ("llama", 2048, 24, 32, 32, 64, 8192, 49152, True, 8192),
    "Llama-3.2-1B": ("llama", 2048, 16, 32, 8, 64, 8192, 128256, True, 131072),
    "Llama-3.2-3B": ("llama", 3072, 28, 24, 8, 128, 8192, 128256, True, 131072),
    "Llama-3.1-8B": ("llama", 4096, 32, 32, 8, 128, 14336, 128256, False, 131072),
    "Llama-3.1-70B": ("llama", 8192, 80, 64, 8, 128, 28672, 128256, False, 131072),
    "Qwen2.5-0.5B": ("qwen2", 896, 24, 14, 2, 64, 4864, 151936, True, 32768),
    "Qwen2.5-7B": ("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False, 32768),
    "Qwen2.5-72B": ("qwen2", 8192, 80, 64, 8, 128, 29568, 152064, False, 32768),
    "Qwen3-0.6B": ("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True, 40960),
    "Qwen3-1.7B": ("qwen3", 2048, 28, 16, 8, 128, 6144, 151936, True, 40960),
    "Qwen3-4B": ("qwen3", 2560, 36, 32, 8, 128, 9728, 151936, True, 40960),
    "Qwen3-8B": ("qwen3", 4096, 36, 32, 8, 128, 12288, 151936, False, 40960),
    "Qwen3-14B": ("qwen3", 5120, 40, 40, 8, 128, 17408, 151936, False, 40960),
    "Qwen3-32B": ("qwen3", 5120, 64, 64, 8, 128, 25600, 151936, False, 40960),
    "Mistral-7B": ("mistral", 4096, 32, 32, 8, 128, 14336, 32768, False, 32768),
    "Gemma-2-2b": ("gemma2", 2304, 26, 8, 4, 256, 9216, 256000, True, 8192),
    "Gemma-2-9b": ("gemma2", 3584, 42, 16, 8, 256, 14336, 256000, True, 8192),
    "Gemma-2-27b": ("gemma2", 4608, 46, 32, 16, 128, 36864, 256000, True, 8192),
    "Phi-4": ("phi3", 5120, 40, 40, 10, 128, 17920, 100352, False, 16384),
}
"""The columns are those of `_COLUMNS`; the counts are held equal to the published ones in the tests."""
SIZES = {
    "135m": "SmolLM2-135M",
    "0.5b": "Qwen2.5-0.5B",
    "0.6b": "Qwen3-0.6B",
    "1b": "Llama-3.2-1B",
    "1.7b": "Qwen3-1.7B",
    "2b": "Gemma-2-2b",
    "3b": "Llama-3.2-3B",
    "4b": "Qwen3-4B",
    "7b": "Qwen2.5-7B",
    "8b": "Llama-3.1-8B",
    "9b": "Gemma-2-9b",
    "14b": "Qwen3-14B",
    "27b": "Gemma-2-27b",
    "32b": "Qwen3-32B",
    "70b": "Llama-3.1-70B",
    "72b": "Qwen2.5-72B",
}
"""Which model stands for a size alone."""
_TUNED = re.compile(r"-(instruct|it|base|chat|v0\.3|\d{4})(?=-|$)")
"""What the names of a shape's siblings end in: they are tuned otherwise, and shaped alike."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as far as figures are concerned."""

    name: str
    anatomy: Anatomy
    note: str
    """Where the shape comes from and what must be known of it; may be empty."""


def read_model(name: str) -> Model:
    """Return the model that `name` means: a config.json, a folder, a built-in or cached model, or a published shape.

    Of a local model the config.json is enough. Raises TunewrightError when it is none of these.
    """
    if not name.strip():
        raise TunewrightError("No model", "The model's name is empty.", "Give a config.json, a folder or a size: 8b.")
    short = one_line(name, 80)
    try:
        path = Path(name).expanduser()
        if name not in sources.BUILT_IN_MODELS and (path.exists() or name.endswith(".json")):
            return _read(short, path)
        return _read(short, sources.find_model(name))
    except (OSError, RuntimeError) as error:  # a name too long for a file, or the home of nobody
        raise TunewrightError("Model not found", f"{short}: {one_line(str(error), 200)}.", "Check the path.") from error
    except TunewrightError as error:
        shape = find_shape(name)
        if error.title not in {"Model not found", "Model without weights"}:
            raise
        if shape is None:
            raise _unknown(error, name) from error
    return published(shape)


def published(shape: str) -> Model:
    """Return the model whose published shape is called `shape` in SHAPES."""
    config: dict[str, Any] = dict(zip(_COLUMNS, SHAPES[shape], strict=True)) | {"dtype": "bfloat16"}
    anatomy = parse_anatomy(config, shape)
    return Model(shape, anatomy, f"The shape is {shape}'s published one.")


def find_shape(name: str) -> str | None:
    """Return the published shape that `name` means: a size such as 8b, or a name with or without its owner."""
    word = name.strip().casefold().rpartition("/")[2].removeprefix("meta-")
    known = {shape.casefold(): shape for shape in SHAPES}
    return SIZES.get(word) or known.get(_TUNED.sub("", word))


def _read(name: str, path: Path) -> Model:
    """Return the model at `path`; one of a family without formulas is counted in a child process, in some seconds."""
    anatomy = read_anatomy(path, count_unknown=True)
    counted = "No formula holds for its architecture; transformers' own class was counted."
    return Model(name, anatomy, " ".join(filter(None, (counted if anatomy.counted_on_meta else "", anatomy.note))))


def _unknown(error: TunewrightError, name: str) -> TunewrightError:
    """Return `error` with the shapes that could have been meant."""
    near = nearest(name.strip().casefold().rpartition("/")[2], [*SIZES, *(shape.casefold() for shape in SHAPES)])
    said = f"Did you mean {near}?" if near else f"Sizes without any file: {', '.join(SIZES)}."
    return TunewrightError(error.title, error.message, f"{error.remedy} {said}")
