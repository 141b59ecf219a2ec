"""Counting a model that no formula holds for: a child process builds transformers' own class, without any weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from . import configuration
from .anatomy import Anatomy, Experts, Projection
from .configuration import Configuration, read_configuration

COUNTING_SECONDS = 180
"""The longest that the child may take; most of it is importing torch and transformers, about ten seconds."""
BOUNDS = {
    "hidden_size": configuration.LARGEST_HIDDEN,
    "num_hidden_layers": configuration.LARGEST_LAYERS,
    "vocab_size": configuration.LARGEST_VOCABULARY,
    "intermediate_size": configuration.LARGEST_FFN,
    "num_attention_heads": configuration.LARGEST_HEADS,
    "num_key_value_heads": configuration.LARGEST_HEADS,
    "head_dim": configuration.LARGEST_HEAD_DIM,
    "max_position_embeddings": configuration.LARGEST_CONTEXT,
}
"""Keys of the config that are sizes in every architecture, and the most that they may be."""


def count_on_meta(path: Path) -> Anatomy:
    """Return the anatomy of the model whose config.json is at `path`, counted from transformers' own class.

    The class is built on torch's meta device, in a child process, and code from the model's folder is never run.
    Raises TunewrightError for a model of another kind, an architecture that transformers does not have, and when
    the child fails or takes longer than `COUNTING_SECONDS`.
    """
    return count_configuration(read_configuration(path))


def count_configuration(config: Configuration) -> Anatomy:
    """Return the same of a config that has been read."""
    config.refuse_other_kinds()
    for key, most in BOUNDS.items():
        if config.values.get(key) is not None:
            config.size(key, most)
    answer = _ask_child(config)
    if "refused" in answer:
        raise TunewrightError(
            "Model not supported",
            f"{config.origin}: {one_line(str(answer['refused']), 400)}; its size would have to be guessed.",
            "Take a text model whose architecture the installed transformers has.",
        )
    return _anatomy(config, answer)


def _ask_child(config: Configuration) -> dict[str, Any]:
    """Return the last line that the child prints, a JSON object."""
    command = [sys.executable, "-m", "tunewright.engine.training.counting"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    try:
        child = subprocess.run(
            command,
            input=json.dumps(dict(config.values)),
            capture_output=True,
            text=True,
            timeout=COUNTING_SECONDS,
            check=True,
            env=environment,
        )
        return cast("dict[str, Any]", json.loads(child.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired as error:
        raise TunewrightError(
            "Counting took too long",
            f"{config.origin}: building the model without weights was not done after {COUNTING_SECONDS} seconds.",
            "Check the sizes in config.json, or try again when the machine is less busy.",
        ) from error
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or str(error)
        last = said.strip().splitlines()[-1] if isinstance(said, str) and said.strip() else "it printed nothing"
        raise TunewrightError(
            "Counting the model failed",
            f"{' '.join(command[1:])}: {one_line(last, 300)}.",
            "`tunewright doctor` shows what is missing.",
        ) from error


def _anatomy(config: Configuration, answer: dict[str, Any]) -> Anatomy:
    """Return the child's answer as an anatomy; its fields have the same names."""
    experts = answer.pop("experts")
    projections = tuple(Projection(**each) for each in answer.pop("projections"))
    total = answer.pop("total")
    known = {each.name for each in fields(Anatomy)}
    assert set(answer) <= known, "the child names the fields of an anatomy"
    anatomy = Anatomy(
        **answer,
        family=config.family,
        checkpoint_bytes=config.checkpoint_bytes(),
        projections=projections,
        experts=Experts(**experts) if experts else None,
        dequantised_from=config.quantisation(),
        counted_on_meta=True,
    )
    assert anatomy.total_parameters == total, "the kinds add up to what the model has"
    return anatomy
