"""Weights on disk: what safetensors files hold, from their headers alone, and whether they are whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..foundation.errors import TunewrightError, explain_os_error
from ..foundation.files import read_text
from ..foundation.text import one_line

LARGEST_HEADER_BYTES = 100_000_000
"""safetensors itself reads no longer header."""
LARGEST_INDEX_BYTES = 64 * 2**20
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a header describes it."""

    dtype: str
    """As safetensors names it: `BF16`, `F32`."""
    shape: tuple[int, ...]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors in the safetensors `file` by name; raises TunewrightError when it is cut off or damaged."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(length) if length <= min(size, LARGEST_HEADER_BYTES) else b""
    except OSError as error:
        raise explain_os_error(error, file, "Reading") from error
    try:
        header = cast("object", json.loads(text)) if len(text) == length else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise _damaged(file, f"its header cannot be read ({size:,} bytes)")
    tensors: dict[str, StoredTensor] = {}
    end = 0
    for name, facts in cast("dict[str, Any]", header).items():
        if name == "__metadata__":
            continue
        try:
            tensors[name] = StoredTensor(str(facts["dtype"]), tuple(int(each) for each in facts["shape"]))
            end = max(end, int(facts["data_offsets"][1]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _damaged(file, f"its header does not describe {one_line(name, 80)}") from error
    whole = 8 + length + end
    if size < whole:
        raise _damaged(file, f"it should have {whole:,} bytes and has {size:,}")
    return tensors


def read_weights(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of the model in `folder` by name, over all files that transformers would load.

    That all of them are there is seen to where the model is found. Raises TunewrightError when one is damaged.
    """
    if (folder / SINGLE_FILE).exists():
        return read_header(folder / SINGLE_FILE)
    index = folder / INDEX_FILE
    if not index.exists():
        raise TunewrightError(
            "Model without weights",
            f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}.",
            "Download the model whole; weights in pickle files (.bin, .pt) are not loaded because they can run code.",
        )
    placed = _read_index(index)
    files = sorted(set(placed.values()))
    tensors: dict[str, StoredTensor] = {}
    for name in files:
        tensors |= read_header(folder / name)
    absent = [name for name in placed if name not in tensors]
    if absent:
        raise _damaged(index, f"it names {one_line(absent[0], 80)}, which is in none of its files")
    return tensors


def _read_index(index: Path) -> dict[str, str]:
    """Return the file of every tensor; names that lead out of the folder are refused."""
    try:
        placed = cast("object", json.loads(read_text(index, limit_bytes=LARGEST_INDEX_BYTES))["weight_map"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise _damaged(index, "it is no index of weights") from error
    if not isinstance(placed, dict):
        raise _damaged(index, "it is no index of weights")
    found = cast("dict[str, object]", placed)
    for name in found.values():
        if not isinstance(name, str) or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise _damaged(index, f"it names {one_line(str(name), 80)}, which is no safetensors file beside it")
    return cast("dict[str, str]", found)


def _damaged(file: Path, how: str) -> TunewrightError:
    return TunewrightError("Model damaged", f"{file}: {how}.", "Delete this file and download the model again.")
