"""A recipe on its way: the few files that it consists of elsewhere, written by us or by strangers, and what they have to be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .. import __version__
from ..foundation.credentials import find_credentials
from ..foundation.errors import TunewrightError
from ..foundation.text import clean, one_line
from .model import LARGEST_RECIPE_BYTES, Line, Recipe, parse_recipe
from .records import Entry, Evidence

RECIPE, EVIDENCE, MANIFEST, CARD = "recipe.toml", "evidence.json", "tunewright.json", "README.md"
ALLOWED = (RECIPE, EVIDENCE, MANIFEST, CARD)
"""The files that are sent and read; whatever else lies beside them is neither."""
FORMAT = 1
LARGEST_BYTES = {RECIPE: LARGEST_RECIPE_BYTES, EVIDENCE: 1024 * 1024, MANIFEST: 64 * 1024, CARD: 1024 * 1024}
MOST_EVIDENCE = 500
TAG = "tunewright-recipe"
"""What repositories with a recipe are found by."""
CARD_MARK = "<!-- written by tunewright from recipe.toml -->"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the files of a recipe say, checked."""

    name: str | None
    """What its maker calls it; None without a manifest."""
    toml: str
    recipe: Recipe
    parents: tuple[str, ...]
    """The hashes of the recipes that it was made from."""
    evidence: tuple[Evidence, ...]
    """Its maker's word on what became of it."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Something in a file that looks like a secret."""

    file: str
    line: int
    kind: str


class _Stranger(BaseModel):
    """Data that strangers wrote: nothing is taken for something else, unknown keys are passed over."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[float, Field(ge=0, le=1e12)] | None


class _Manifest(_Stranger):
    format: int = Field(ge=1)
    name: Line = Field(max_length=200)
    hash: Hash
    parents: list[Hash] = Field(default_factory=list[str], max_length=64)
    files: dict[Annotated[str, Field(max_length=200)], Hash] = Field(max_length=16)


class _Claim(_Stranger):
    kind: Literal["published", "replicated", "local", "smoke"]
    status: Literal["finished", "stopped", "failed", "out-of-memory"]
    hardware: Line = Field(max_length=200)
    predicted_peak_gib: Amount = None
    measured_peak_gib: Amount = None
    predicted_seconds: Amount = None
    measured_seconds: Amount = None
    metric: Annotated[Line, Field(max_length=100)] | None = None
    value: float | None = Field(default=None, ge=-1e12, le=1e12)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    versions: dict[Annotated[Line, Field(max_length=60)], Annotated[Line, Field(max_length=60)]] = Field(
        default_factory=dict[str, str], max_length=40
    )
    created: float = Field(ge=0, le=1e11)
    steps: int | None = Field(default=None, ge=0, lt=2**63)
    first_loss: float | None = Field(default=None, ge=-1e12, le=1e12)
    last_loss: float | None = Field(default=None, ge=-1e12, le=1e12)
    validation_loss: float | None = Field(default=None, ge=-1e12, le=1e12)
    predicted_tokens_per_second: Amount = None
    measured_tokens_per_second: Amount = None


_CLAIMS: TypeAdapter[list[_Claim]] = TypeAdapter(Annotated[list[_Claim], Field(max_length=MOST_EVIDENCE)])


def pack(entry: Entry, parents: tuple[str, ...], evidence: tuple[Evidence, ...]) -> dict[str, bytes]:
    """Return the files of `entry`, byte by byte as they are sent; runs are not named, nor where they lie."""
    name = entry.name.rpartition("/")[2]
    own = [each for each in evidence if each.claimed_by is None][:MOST_EVIDENCE]
    files = {
        RECIPE: entry.toml.encode(),
        EVIDENCE: _json([_Claim.model_validate(_public(each)).model_dump(exclude_none=True) for each in own]),
        CARD: card_text(name, entry.recipe, own).encode(),
    }
    manifest = {
        "format": FORMAT,
        "name": name,
        "hash": entry.hash,
        "parents": list(parents),
        "files": {file: hashlib.sha256(files[file]).hexdigest() for file in (RECIPE, EVIDENCE)},
        "written_by": f"tunewright {__version__}",
    }
    return files | {MANIFEST: _json(manifest)}


def _public(evidence: Evidence) -> dict[str, Any]:
    values = {name: getattr(evidence, name) for name in _Claim.model_fields}
    return {name: float(value) if _is_float(name) and value is not None else value for name, value in values.items()}


def _is_float(name: str) -> bool:
    return "float" in str(_Claim.model_fields[name].annotation)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def unpack(files: Mapping[str, bytes], origin: str) -> Parcel:
    """Return what the `files` from `origin` say; raises TunewrightError with the reason for whatever is not as it has to be.

    Nothing of a file is run, and no file but those of `ALLOWED` is looked at.
    """
    origin = one_line(origin, 200)
    for name, content in files.items():
        if len(content) > LARGEST_BYTES.get(name, 0):
            raise _refused(origin, f"{one_line(name, 100)} is larger than {LARGEST_BYTES.get(name, 0) // 1024} KiB")
    if RECIPE not in files:
        raise TunewrightError("No recipe there", f"{origin} has no {RECIPE}.", "Check the name for a typing error.")
    toml = _text(files[RECIPE], RECIPE, origin)
    recipe = parse_recipe(toml, f"{origin}: {RECIPE}")
    if recipe != parse_recipe(clean(toml), origin):
        raise _refused(origin, "the recipe means something else once its control characters are taken out")
    name, parents = None, tuple[str, ...]()
    if MANIFEST in files:
        manifest = _validated(TypeAdapter(_Manifest), files[MANIFEST], MANIFEST, origin)
        _hold(manifest, files, recipe, origin)
        name, parents = manifest.name, tuple(dict.fromkeys(manifest.parents))
    claims: list[_Claim] = _validated(_CLAIMS, files[EVIDENCE], EVIDENCE, origin) if EVIDENCE in files else []
    evidence = tuple(Evidence(revision=recipe.hash(), claimed_by=origin, **each.model_dump()) for each in claims)
    return Parcel(name, clean(toml), recipe, parents, evidence)


def _hold(manifest: _Manifest, files: Mapping[str, bytes], recipe: Recipe, origin: str) -> None:
    """Hold the manifest against the files that it tells of; raises TunewrightError where it does not tell the truth."""
    if manifest.format > FORMAT:
        raise TunewrightError(
            "From a newer Tunewright",
            f"{origin} has format {manifest.format}; this version reads up to {FORMAT}.",
            "Update with `pip install --upgrade tunewright`.",
        )
    if unknown := [each for each in manifest.files if each not in ALLOWED]:
        raise _refused(origin, f"its manifest names {one_line(unknown[0], 80)!r}, which no recipe has")
    for file, digest in manifest.files.items():
        if file not in files:
            raise _refused(origin, f"its manifest tells of {file}, which is not there")
        if hashlib.sha256(files[file]).hexdigest() != digest:
            raise _refused(origin, f"{file} is not what its manifest says (its SHA-256 is another)")
    if manifest.hash != recipe.hash():
        raise _refused(origin, "its manifest gives another recipe's hash")


def _refused(origin: str, why: str) -> TunewrightError:
    return TunewrightError(
        "Recipe refused", f"{origin}: {why}.", "Nothing was kept. Ask its maker to publish it again."
    )


def _text(content: bytes, file: str, origin: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(origin, f"{file} is not UTF-8 at byte {error.start}") from error


def _validated(adapter: TypeAdapter[Any], content: bytes, file: str, origin: str) -> Any:
    try:
        return adapter.validate_python(
            json.loads(_text(content, file, origin), object_pairs_hook=_once, parse_constant=_no)
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(one_line(str(part), 40) for part in first["loc"])
        raise _refused(origin, f"{file}: {where} {one_line(first['msg'], 120)}") from error
    except (ValueError, RecursionError) as error:
        raise _refused(origin, f"{file}: {one_line(str(error), 160)}") from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object of `pairs`; raises ValueError where a key comes twice, which readers understand differently."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key comes twice")
    return values


def _no(word: str) -> object:
    raise ValueError(f"{word} is no number")


def leaks(files: Mapping[str, bytes], secrets: tuple[str, ...] = ()) -> tuple[Leak, ...]:
    """Return what looks like a secret in `files`, and where one of `secrets` stands in them."""
    found: list[Leak] = []
    for file, content in files.items():
        text = content.decode("utf-8", "replace")
        for start, _, kind in find_credentials(text):
            found.append(Leak(file, text.count("\n", 0, start) + 1, kind))
        for secret in secrets:
            if len(secret) >= 8 and secret in text:
                found.append(Leak(file, text.count("\n", 0, text.index(secret)) + 1, "a token of this machine"))
    return tuple(dict.fromkeys(found))


def places_named(recipe: Recipe) -> tuple[str, ...]:
    """Return the places on a disk that a recipe names: they mean nothing elsewhere, and at home they may mean too much."""
    named = (
        recipe.base.model,
        recipe.base.adapter,
        recipe.data.source,
        recipe.data.validation.source,
        recipe.evaluation.source,
    )
    return tuple(each for each in named if each and (each.startswith(("/", "~", ".")) or "\\" in each or ".." in each))


def slug_of(name: str) -> str | None:
    """Return `name` as a recipe can be called here, None when nothing is left of it."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", one_line(name, 200).lower()).strip("-._")[:80]
    return slug if _NAME.fullmatch(slug) else None


def card_text(name: str, recipe: Recipe, evidence: list[Evidence]) -> str:
    """Return the README of a recipe: metadata that makes it findable, what it is, how it is used, what is known of it."""
    import yaml

    card = recipe.card
    front: dict[str, Any] = {"library_name": "tunewright", "tags": card_tags(recipe)}
    if card.licence:
        front["license"] = card.licence.lower()
    if _HUB_NAME.fullmatch(recipe.base.model) and not recipe.base.model.startswith("tunewright/"):
        front["base_model"] = recipe.base.model
    source = recipe.data.source.partition("@")[0].partition(":")[0]
    if _HUB_NAME.fullmatch(source) and not source.startswith("tunewright/"):
        front["datasets"] = [source]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=True, allow_unicode=True)}---",
        CARD_MARK,
        f"# {one_line(card.title, 200) or name}",
        clean(card.summary, 4000),
        "\n".join(_facts(recipe)),
        "## Use it\n\n`tunewright recipes pull` with the name of this repository takes it, `tunewright recipes show` reads it.",
        "## What is known of it\n\n" + ("\n".join(_evidence_rows(evidence)) or "Nothing yet: nobody has run it."),
    ]
    if card.sources:
        parts.append("## Sources\n\n" + "\n".join(f"- `{one_line(each, 300)}`" for each in card.sources))
    parts.append(f"Its identity is `{recipe.hash()}`: the SHA-256 of what it means, whatever it is called.")
    return "\n\n".join(filter(None, parts)) + "\n"


def card_tags(recipe: Recipe) -> list[str]:
    """Return the tags that a repository with `recipe` is found by."""
    words = (
        TAG,
        "tunewright",
        recipe.method.kind,
        recipe.training.objective,
        *(one_line(tag, 60) for tag in recipe.card.tags),
    )
    return list(dict.fromkeys(words))


def _facts(recipe: Recipe) -> Iterator[str]:
    training = recipe.training
    yield "| | |"
    yield "|---|---|"
    yield f"| model | `{one_line(recipe.base.model, 200)}` |"
    yield f"| data | `{one_line(recipe.data.source, 200)}` |"
    yield f"| method | {recipe.method.kind}, {training.objective} |"
    amount = f"{training.epochs:g} epochs" if training.epochs else f"{training.steps} steps"
    yield f"| training | {amount}, {training.global_batch} rows a step, learning rate {training.learning_rate:g} |"


def _evidence_rows(evidence: list[Evidence]) -> Iterator[str]:
    if not evidence:
        return
    yield "| Kind | Ended | On | Peak | Time | Measured |"
    yield "|---|---|---|--:|--:|---|"
    for each in evidence[:20]:
        peak = f"{each.measured_peak_gib:.2f} GiB" if each.measured_peak_gib else ""
        time = f"{each.measured_seconds:.0f} s" if each.measured_seconds else ""
        if each.metric and each.value is not None:
            result = f"{one_line(each.metric, 60)} {each.value:.4g}"
        else:
            result = f"loss {each.first_loss:.3g} → {each.last_loss:.3g}" if each.first_loss and each.last_loss else ""
        yield f"| {each.kind} | {each.status} | {one_line(each.hardware, 80)} | {peak} | {time} | {result} |"


def merged_card(existing: str, ours: str, recipe: Recipe) -> str:
    """Return the README of a repository that is to carry a recipe: ours, or the one it has with our tags in its metadata.

    A README that somebody wrote, such as an adapter's, keeps its every word.
    """
    import yaml

    if not existing.strip() or CARD_MARK in existing:
        return ours
    front, body = "", existing
    if found := re.match(r"---\r?\n(.*?\r?\n)?---\r?\n", existing, re.DOTALL):
        front, body = found[1] or "", existing[found.end() :]
    if re.search(r"(^|[\s\[{,:-])[&*]\w", front):  # anchors and aliases can say much in few bytes
        return existing
    try:
        values: Any = yaml.safe_load(front) or {}
        tags: Any = values.get("tags") or list[str]()
        words: list[Any] = cast("list[Any]", tags) if isinstance(tags, list) else [tags]
        values["tags"] = list(dict.fromkeys([*words, *card_tags(recipe)]))
        return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n{body}"
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError):
        return existing
