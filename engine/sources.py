"""Where models and data sets are found: built in, on this disk, or in the Hub's local cache."""

from __future__ import annotations

import re
from pathlib import Path

from .. import starter
from ..foundation.errors import TunewrightError
from ..foundation.text import one_line

BUILT_IN_MODELS = {"tunewright/starter": starter.MODEL}
BUILT_IN_DATA = {
    "tunewright/starter-orders": starter.TRAINING_DATA,
    "tunewright/starter-held-out": starter.HELD_OUT_DATA,
}


def find_model(name: str, revision: str | None = None) -> Path:
    """Return the folder of the model `name`: built in, local, or in the Hub's cache (nothing is downloaded).

    Raises TunewrightError when there is none, or when the folder has no config.json or no safetensors weights.
    """
    if name in BUILT_IN_MODELS:
        return BUILT_IN_MODELS[name]
    folder = Path(name).expanduser()
    if not folder.exists():
        cached = _cached_snapshot(name, revision)
        if cached is None:
            raise TunewrightError(
                "Model not found",
                f"{one_line(name, 200)} is neither a folder here nor in the Hub's cache on this machine.",
                f"Fetch it first: `hf download {one_line(name, 200)}`, or give the path of its folder.",
            )
        folder = cached
    if not folder.is_dir():
        raise TunewrightError("Not a model folder", f"{folder} is a file.", "Give the folder that holds config.json.")
    if not (folder / "config.json").exists():
        raise TunewrightError(
            "Not a model folder", f"{folder} has no config.json.", "Give the folder that holds the model's files."
        )
    if not any(folder.glob("*.safetensors")):
        raise TunewrightError(
            "Model without weights",
            f"{folder} has a config.json but no .safetensors file.",
            "Download the model whole; weights in pickle files (.bin, .pt) are not loaded because they can run code.",
        )
    return folder


def find_data(source: str) -> Path:
    """Return the file of the data set `source`: built in or local; raises TunewrightError when there is none."""
    if source in BUILT_IN_DATA:
        return BUILT_IN_DATA[source]
    path = Path(source).expanduser()
    if not path.exists():
        raise TunewrightError("Data not found", f"{one_line(source, 300)} does not exist.", "Check the path.")
    if path.is_dir():
        raise TunewrightError("A folder, not a file", f"{path} is a folder.", "Give the path of a JSONL file in it.")
    return path


def _cached_snapshot(name: str, revision: str | None) -> Path | None:
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", name, re.ASCII):
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision or ""
    snapshot = repository / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None
