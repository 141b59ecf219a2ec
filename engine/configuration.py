"""A model's config.json as values that are checked one by one, and the kinds of model that are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text
from ..foundation.text import one_line
from .architectures import FAMILIES, Switch

LARGEST_CONFIG_BYTES = 4 * 2**20
LARGEST_HIDDEN = 2**17
LARGEST_LAYERS = 2048
LARGEST_VOCABULARY = 2**24
LARGEST_FFN = 2**20
LARGEST_HEADS = 4096
LARGEST_HEAD_DIM = 2**14
LARGEST_CONTEXT = 2**31
LARGEST_EXPERTS = 2**16
DEQUANTISED_METHODS = {"gpt_oss": "mxfp4"}
"""Families to the quantisation that transformers turns into 16 bits while loading
(transformers 5.17, quantizers/quantizer_mxfp4.py)."""

_CHECKPOINT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size", "moe_num_experts")
_NESTED_KEYS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
_SEEING_KEYS = ("vision_config", "audio_config", "image_token_id", "image_token_index", "vision_tower")
_METHOD_NAMES = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "fp8": "FP8",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "mxfp4": "MXFP4",
}

_WHY_NOT_TRAINED = {
    "gptq": "adapters beside them need a further library, know no DoRA, and cannot be merged",
    "awq": "adapters beside them need a further library, know no DoRA, and cannot be merged",
    "fp8": "transformers has no backward pass for them",
    "fbgemm_fp8": "transformers has no backward pass for them",
    "compressed-tensors": "PEFT has no layers of its own for them",
    "bitsandbytes": "what was rounded away is lost, and merged adapters would be rounded once more",
    "mxfp4": "only gpt-oss's are made into 16-bit weights while loading",
    "quanto": "PEFT has no layers of its own for them",
}
"""Source: transformers 5.17, quantizers/*.py, `is_trainable`; peft 0.21, tuners/lora/{gptq,awq,bnb}.py."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The values of one config.json; every method raises TunewrightError for a value that it cannot be."""

    values: Mapping[str, Any]
    origin: str
    """What errors call the file."""

    @property
    def family(self) -> str:
        """The architecture's name, `model_type`; empty when there is none."""
        name = self.values.get("model_type")
        return one_line(name, 60) if isinstance(name, str) else ""

    def absurd(self, what: str) -> TunewrightError:
        """Return the error that says `what` is wrong with the file."""
        return TunewrightError(
            "config.json does not describe a model", f"{self.origin}: {what}.", "Download the model's files again."
        )

    def unsupported(self, because: str) -> TunewrightError:
        """Return the error that refuses a model whose size would have to be guessed."""
        return TunewrightError(
            "Model not supported",
            f"{self.origin}: {because}; its size would have to be guessed.",
            f"Supported are text models of the families {', '.join(FAMILIES)}.",
        )

    def size(self, key: str, most: int, default: int | None = None, least: int = 1) -> int:
        """Return the whole number at `key`, from `least` to `most`; `default` when the key is not there."""
        value = self.values.get(key)
        if value is None and (default is None or key not in self.values):
            if default is None:
                raise self.absurd(f"{key} is missing")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.absurd(f"{key} is {_shown(value)}, not a whole number from {least} to {most:,}")
        return value

    def size_or_null(self, key: str, most: int, default: int, null: int | None) -> int:
        """Return the same; where the key holds null, `null`, unless that is None."""
        if key in self.values and self.values[key] is None and null is not None:
            return null
        return self.size(key, most, default)

    def switch(self, switch: Switch) -> bool:
        """Return the yes or no that `switch` means here."""
        if isinstance(switch, bool):
            return switch
        key, default = switch
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.absurd(f"{key} is {_shown(value)}, neither true nor false")
        return value

    def has(self, key: str, default: float | None) -> bool:
        """Return whether the number at `key` is there, `default` standing for an absent key."""
        value = self.values.get(key, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise self.absurd(f"{key} is {_shown(value)}, not a positive number")
        return value is not None

    def word(self, key: str, default: str) -> str:
        """Return the name at `key`, cleaned for a terminal."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not one_line(value):
            raise self.absurd(f"{key} is {_shown(value)}, not a name")
        return one_line(value, 40)

    def items(self, key: str) -> list[object] | None:
        """Return the list at `key`, or None when there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            raise self.absurd(f"{key} is {_shown(value)}, not a list")
        return cast("list[object] | None", value)

    def layer_types(self, layers: int) -> list[object] | None:
        """Return the kind of attention of every layer, where the config lists them."""
        types = self.items("layer_types")
        if types is not None and len(types) != layers:
            raise self.absurd(f"layer_types names {len(types):,} layers, num_hidden_layers {layers:,}")
        return types

    def checkpoint_bytes(self) -> int:
        """Return the bytes of a stored parameter; a config that does not say comes from the days of float32."""
        name = self.values.get("dtype") or self.values.get("torch_dtype")
        if name is None:
            return 2 if self.quantisation() else 4
        stored = _CHECKPOINT_BYTES.get(str(name).removeprefix("torch.")) if isinstance(name, str) else None
        if stored is None:
            raise self.absurd(f"dtype {_shown(name)} is none of {', '.join(_CHECKPOINT_BYTES)}")
        return stored

    def quantisation(self) -> str | None:
        """Return the method that the stored weights were quantised with, or None."""
        for key in ("quantization_config", "compression_config"):
            described = self.values.get(key)
            if described is None:
                continue
            values = cast("dict[str, Any]", described) if isinstance(described, dict) else {}
            method = values.get("quant_method")
            if isinstance(method, str) and one_line(method):
                return one_line(method, 40)
            if values.get("load_in_4bit") or values.get("load_in_8bit"):
                return "bitsandbytes"
            return "compressed-tensors" if key == "compression_config" else "an unnamed method"
        return None

    def refuse_other_kinds(self) -> None:
        """Raise for a model that does not only read and write text, and for one whose weights are quantised."""
        self._refuse_quantised()
        nested = next((key for key in _NESTED_KEYS if isinstance(self.values.get(key), dict)), None)
        if nested:
            raise self.unsupported(f"it is a multimodal model, whose text part is in `{nested}`")
        found = next((key for key in _SEEING_KEYS if self.values.get(key) is not None), None)
        if found:
            raise self.unsupported(f"it is a model of images or sound (`{found}`)")
        if self.values.get("is_encoder_decoder"):
            raise self.unsupported("it is an encoder-decoder")
        architectures = self.values.get("architectures")
        listed = cast("list[object]", architectures) if isinstance(architectures, list) else []
        names = [one_line(name, 80) for name in listed if isinstance(name, str)]
        if names and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
            raise self.unsupported(f"it is no language model that writes text ({', '.join(names)})")
        if not self.family:
            raise self.unsupported("it names no architecture (`model_type`)")

    def refuse_unknown_family(self) -> None:
        """Raise for an architecture that no formula holds for."""
        family = self.family
        mixed = next((key for key in _EXPERT_KEYS if self.values.get(key)), None)
        if family not in FAMILIES and self.values.get("auto_map"):
            raise TunewrightError(
                "Model needs its own code",
                f"{self.origin}: its architecture is {family}, which comes as code in the model's folder (`auto_map`); "
                "such code could do anything on this machine, and is never run.",
                f"Take a model of a family that transformers has itself: {', '.join(FAMILIES)}.",
            )
        if family not in FAMILIES:
            raise self.unsupported(
                f"its architecture is {family}" + (f", a mixture of experts (`{mixed}`)" if mixed else "")
            )
        if mixed and FAMILIES[family].mixture is None:
            raise self.unsupported(f"it is a mixture of experts (`{mixed}`), which a {family} model is not")

    def _refuse_quantised(self) -> None:
        method = self.quantisation()
        if method is None or DEQUANTISED_METHODS.get(self.family) == method:
            return
        name = _METHOD_NAMES.get(method, method)
        because = _WHY_NOT_TRAINED.get(method, "how adapters would be trained beside them is not known here")
        raise TunewrightError(
            "Quantised checkpoint",
            f"{self.origin} describes weights that are already quantised with {name}; they cannot be trained or merged "
            f"exactly: {because}.",
            'Take the model\'s 16-bit weights; QLoRA (method.kind = "qlora") quantises them while loading.',
        )


def read_configuration(path: Path) -> Configuration:
    """Return the config.json at `path`, or in the folder `path`.

    Raises TunewrightError when it cannot be read or is no JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    text = read_text(file, limit_bytes=LARGEST_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TunewrightError(
            "config.json is not JSON", f"{file}: {one_line(str(error), 200)}.", "Download the model's files again."
        ) from error
    if not isinstance(config, dict):
        raise TunewrightError(
            "config.json is not a model's", f"{file} holds no JSON object.", "Give the config.json of a model."
        )
    return Configuration(cast("dict[str, Any]", config), str(file))


def _shown(value: object) -> str:
    """Return `value` as an error shows it: a container by its kind, for it may be deep and long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**40:  # Python refuses to write very large ones
        return "a number of more than 40 digits"
    return "null" if value is None else one_line(repr(value), 60)
