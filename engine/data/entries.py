"""Entries of the cache of rendered rows: which belongs to a recipe, whether it is whole, and which have to go.

An entry is a folder below `home()/cache/rows/`, named by all that its rows depend on. It is written aside and renamed,
with `manifest.json` in it: every file's size and SHA-256. What is not as the manifest says is as good as not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import TypeAdapter

from ...foundation.errors import TunewrightError
from ...foundation.files import write_atomically
from ...foundation.home import home
from ...recipes.model import Recipe
from .reading import Source, open_source

VERSION = 3
"""Counted up whenever the same data is rendered into other tokens than before, or kept in another way."""
LARGEST_BYTES = 20 * 2**30
"""The most that all entries take together; the ones that were not used for longest go first."""
HASHED_AT_ONCE_BYTES = 64 * 2**20
"""Larger data is hashed once, and known again by its files' sizes, times and inodes."""
SETTLED_SECONDS = 2.0
"""Files that changed less long ago might change again without a change of their times."""
STALE_SECONDS = 3600.0
"""What is written aside for longer was left by a process that died."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json", "special_tokens_map.json",
)  # fmt: skip
LIBRARIES = ("tokenizers", "jinja2", "trl")
"""Whose versions may change the tokens: TRL's templates are one of the choices."""
UNRELATED = {"source", "packing"}
"""Fields of the data section that change no row: what a source holds is told by its content."""
MANIFEST = "manifest.json"

Manifest = dict[str, tuple[int, str]]
"""Size and SHA-256 of each file."""


def entry_of(recipe: Recipe, model: Path) -> Path:
    """Return the place of a recipe's rows: its name tells them from any others, by content."""
    sources = [content_of(open_source(recipe.data.source, recipe.data.split))]
    if recipe.data.validation.source is not None:
        sources.append(content_of(open_source(recipe.data.validation.source, recipe.data.split)))
    section = recipe.data.model_dump(mode="json", exclude=UNRELATED)
    section["validation"] = {name: value for name, value in section["validation"].items() if name != "source"}
    meaning = [
        VERSION,
        sources,
        hash_tokenizer(model),
        versions_of(LIBRARIES),
        section,
        recipe.training.objective,
        recipe.training.seed,
    ]
    return home() / "cache" / "rows" / hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:32]


def read_manifest(entry: Path) -> Manifest:
    """Return what an entry holds; raises OSError or ValueError where it cannot be read."""
    return TypeAdapter(Manifest).validate_json((entry / MANIFEST).read_bytes())


def require_whole(entry: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Raise OSError, ValueError or KeyError where one of the files is not as it was written; else it counts as used."""
    wanted = list(names)
    for name in wanted:
        if (entry / name).stat().st_size != manifest[name][0]:
            raise ValueError(f"{name} is cut short")
    with ThreadPoolExecutor(min(4, len(wanted))) as pool:  # hashing leaves the interpreter to others
        for name, digest in zip(wanted, pool.map(_sha256, [entry / name for name in wanted]), strict=True):
            if digest != manifest[name][1]:
                raise ValueError(f"{name} was altered")
    with contextlib.suppress(OSError):  # somebody else's cache may be read
        os.utime(entry / MANIFEST)


@contextlib.contextmanager
def new_entry(entry: Path) -> Generator[Path]:
    """Give a folder to write into, which takes the entry's place at the end; raises OSError where the disk refuses.

    The oldest entries go where all of them take too much.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    _sweep(entry.parent)
    aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=entry.parent))
    try:
        yield aside
        manifest = {file.name: (file.stat().st_size, _sha256(file)) for file in sorted(aside.iterdir())}
        (aside / MANIFEST).write_text(json.dumps(manifest))
        _remove(entry)  # it is not what it should be, or somebody else's of the same rows
        os.rename(aside, entry)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _forget_oldest(entry.parent)


@contextlib.contextmanager
def in_turn(entry: Path) -> Generator[None]:
    """Wait for another process that makes the same rows; where files cannot be locked, nobody waits."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((entry.parent / f".lock-{entry.name}").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def content_of(source: Source) -> str:
    """Return the SHA-256 of the relative names, sizes and whole content of a source's files."""
    if source.total_bytes <= HASHED_AT_ONCE_BYTES:
        return source.fingerprint()
    place = home() / "cache" / "contents" / source.stamp()
    with contextlib.suppress(OSError, ValueError):
        known = place.read_text()
        if len(known) == 64:
            return known
    before = source.stamp()
    digest = hashlib.sha256()
    for name, file in zip(source.names, source.files, strict=True):
        digest.update(f"{file.stat().st_size} {name}\n".encode("utf-8", "surrogateescape"))
        digest.update(bytes.fromhex(_sha256(file)))
    newest = max(file.stat().st_mtime for file in source.files)
    if source.stamp() == before and time.time() - newest > SETTLED_SECONDS:
        with contextlib.suppress(TunewrightError, OSError):
            write_atomically(place, digest.hexdigest())
    return digest.hexdigest()


def hash_tokenizer(model: Path, *more: str) -> list[tuple[str, str]]:
    """Return name and SHA-256 of each of a model's files that rendering reads, and of those called so, as far as they are there."""
    files = [model / name for name in (*TOKENIZER_FILES, *more)]
    files += sorted((model / "additional_chat_templates").glob("*.jinja"))
    return [(str(file.relative_to(model)), _sha256(file)) for file in files if file.is_file()]


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each of `packages` that is installed."""
    found: dict[str, str] = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _forget_oldest(folder: Path) -> None:
    """Remove entries that were not used for longest until the others keep within the limit; the newest stays."""
    entries: list[tuple[float, int, Path]] = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            used = (entry / MANIFEST).stat().st_mtime
            entries.append((used, sum(file.stat().st_size for file in entry.iterdir()), entry))
    entries.sort(reverse=True)
    held = 0
    for place, (_, size, entry) in enumerate(entries):
        held += size
        if place and held > LARGEST_BYTES:
            _remove(entry)


def _remove(entry: Path) -> None:
    """Remove an entry in one step, as far as its readers are concerned: what they have mapped stays theirs."""
    with contextlib.suppress(OSError):
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=entry.parent))
        os.rename(entry, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes left that died while writing or waiting."""
    for left in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
