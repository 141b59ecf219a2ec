"""Before take-off: what would fail, or train something else than the recipe says, found from files alone.

Planning asks for it, and so does the trainer before it loads anything. Some of it is refused where it is read: unknown
architectures and quantised checkpoints in `configuration`, unknown projections in `anatomy`, a missing tokenizer or chat
template in `data.rendering`, missing files in `sources`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text
from ..foundation.text import one_line
from ..recipes.model import LoraMethod, Recipe
from .adapters import find_adapter, read_adapter, require_fit
from .anatomy import Anatomy, read_anatomy
from .configuration import read_configuration
from .setting import Tuning
from .sources import find_model, find_weights, missing_weights
from .weights import StoredTensor, read_weights

LARGEST_TOKENIZER_BYTES = 256 * 2**20
LARGEST_SETTINGS_BYTES = 16 * 2**20
SHOWN_TOKENS = 5
EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "transformer.wte.weight")
"""What the matrix of the words is called in a checkpoint."""


def require_ready(recipe: Recipe) -> Path:
    """Return the folder of the recipe's model with all that training needs; raises TunewrightError where something is wrong."""
    folder = find_weights(recipe.base.model, recipe.base.revision)
    check(recipe, folder)
    return folder


def check(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """Return what should be known before the model in `folder` is trained; weights may still be to come.

    Raises TunewrightError for what would fail once they are loaded, or would train something else than the recipe says.
    """
    anatomy = read_anatomy(folder)
    if isinstance(recipe.method, LoraMethod):
        Tuning.of(recipe.method).trainable_parameters(anatomy)  # unknown targets and modules to save are refused
    if any(folder.glob("*.safetensors")) and not missing_weights(folder):
        _require_rows(folder, anatomy, read_weights(folder))
    _require_vocabulary(folder, anatomy)
    notes = list(_token_notes(folder))
    if recipe.base.adapter is not None:
        notes += require_fit(recipe, anatomy, read_adapter(find_adapter(recipe.base.adapter)))
    return tuple(notes)


def require_lengths(recipe: Recipe, longest: int) -> None:
    """Raise TunewrightError when rows of `longest` tokens reach beyond the positions that the model knows.

    A pair's length is that of both answers, of which the longer one has half at least.
    """
    if recipe.training.objective in ("dpo", "orpo"):
        longest = -(-longest // 2)
    folder = find_model(recipe.base.model, recipe.base.revision)
    context = context_of(folder, read_anatomy(folder))
    if longest > context:
        raise TunewrightError(
            "Rows beyond the model's context",
            f"Rows of up to {longest:,} tokens are trained on, and the model's positions end at {context:,}.",
            f"Set data.max_length = {context}; what is longer is cut, or left out with data.overlong = "
            '"drop". A model whose context was extended says so in its config.json (rope_parameters).',
        )


def context_of(folder: Path, anatomy: Anatomy) -> int:
    """Return the longest sequence that the model in `folder` knows, positions counted that are stretched by a factor."""
    values = read_configuration(folder).values
    for key in ("rope_parameters", "rope_scaling"):
        scaling = values.get(key)
        factor = cast("dict[str, Any]", scaling).get("factor") if isinstance(scaling, dict) else None
        if isinstance(factor, int | float) and not isinstance(factor, bool) and 1 <= factor <= 1024:
            return int(anatomy.context * factor)
    return anatomy.context


def _require_rows(folder: Path, anatomy: Anatomy, tensors: dict[str, StoredTensor]) -> None:
    """Raise for weights whose words are not those of config.json."""
    for name in EMBEDDINGS:
        shape = tensors[name].shape if name in tensors else None
        if shape is not None and shape != (anatomy.vocabulary, anatomy.hidden):
            raise TunewrightError(
                "Weights and config.json differ",
                f"{folder}: {name} is {' × '.join(f'{each:,}' for each in shape)}, and config.json says "
                f"{anatomy.vocabulary:,} × {anatomy.hidden:,} (vocab_size, hidden_size).",
                "Download the model again; after words were added to it, save it with save_pretrained.",
            )


def _require_vocabulary(folder: Path, anatomy: Anatomy) -> None:
    """Raise for a tokenizer with tokens that the embedding has no row for."""
    beyond = sorted((number, token) for token, number in _tokens(folder) if number >= anatomy.vocabulary)
    if not beyond:
        return
    shown = ", ".join(one_line(token, 40) for _, token in beyond[:SHOWN_TOKENS])
    more = f" and {len(beyond) - SHOWN_TOKENS:,} more" if len(beyond) > SHOWN_TOKENS else ""
    raise TunewrightError(
        "Tokenizer and model do not match",
        f"{folder}: the tokenizer has {len(beyond):,} tokens for which the model's embedding, of "
        f"{anatomy.vocabulary:,} rows, has none: {shown}{more}.",
        "Take the tokenizer that belongs to the model. For words of your own, add rows first: "
        "model.resize_token_embeddings(len(tokenizer)), and save both.",
    )


def _tokens(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the tokens of the tokenizer with their numbers; none where it is missing, which is told where it is used."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    values = _json(file, LARGEST_TOKENIZER_BYTES)
    model = values.get("model")
    vocabulary = cast("dict[str, Any]", model).get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        for token, number in cast("dict[str, Any]", vocabulary).items():
            if isinstance(number, int):
                yield token, number
    elif isinstance(vocabulary, list):
        for number, piece in enumerate(cast("list[Any]", vocabulary)):
            yield str(cast("list[Any]", piece)[0]) if isinstance(piece, list) and piece else str(number), number
    added = values.get("added_tokens")
    for each in cast("list[Any]", added) if isinstance(added, list) else []:
        facts = cast("dict[str, Any]", each) if isinstance(each, dict) else {}
        if isinstance(facts.get("id"), int):
            yield str(facts.get("content")), facts["id"]


def _token_notes(folder: Path) -> Iterator[str]:
    """Yield what should be known of the tokenizer's special tokens."""
    settings = _json(folder / "tokenizer_config.json", LARGEST_SETTINGS_BYTES)
    pad, end = (_content(settings.get(key)) for key in ("pad_token", "eos_token"))
    if pad is not None and pad == end:
        yield (
            f"The tokenizer fills rows with its end token, {one_line(pad, 40)}: filled places are left out by their "
            "place and not by their token, so the end is learned all the same."
        )


def _content(token: object) -> str | None:
    """Return the text of a special token, which stands as it is or with its settings."""
    if isinstance(token, dict):
        token = cast("dict[str, object]", token).get("content")
    return token if isinstance(token, str) else None


def _json(file: Path, limit_bytes: int) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no file; raises TunewrightError for a damaged one."""
    if not file.is_file():
        return {}
    try:
        values = cast("object", json.loads(read_text(file, limit_bytes=limit_bytes)))
    except (ValueError, RecursionError) as error:
        raise TunewrightError("Model damaged", f"{file} is not JSON.", "Download the model again.") from error
    return cast("dict[str, Any]", values) if isinstance(values, dict) else {}
