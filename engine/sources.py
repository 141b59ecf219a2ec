"""Where models and data sets are found: built in, on this disk, or in the Hub's local cache."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from .. import starter
from ..foundation.errors import TunewrightError, explain_os_error
from ..foundation.text import one_line
from .hub.cache import HubName, Kind, Repository, parse_hub_name
from .hub.data_files import CARD, choose_data, files_of_data_set, without_other_splits

BUILT_IN_MODELS = {"tunewright/starter": starter.MODEL}
BUILT_IN_DATA = {
    "tunewright/starter-orders": starter.TRAINING_DATA,
    "tunewright/starter-held-out": starter.HELD_OUT_DATA,
    "tunewright/starter-preferences": starter.PREFERENCES,
    "tunewright/starter-held-out-preferences": starter.HELD_OUT_PREFERENCES,
}


def find_model(name: str, revision: str | None = None) -> Path:
    """Return the folder of the model `name`: built in, local, or in the Hub's cache (nothing is downloaded).

    In the cache the weights may be still to come, since planning needs the configuration and the tokenizer alone;
    `find_weights` asks for them. Raises TunewrightError when there is no such model, or no config.json.
    """
    if name in BUILT_IN_MODELS:
        return BUILT_IN_MODELS[name]
    folder, local = Path(name).expanduser(), True
    if not _exists(folder):
        cached = cached_snapshot("model", name, revision)
        if cached is None:
            shown = one_line(name, 200)
            raise TunewrightError(
                "Model not found",
                f"{shown} is neither a folder here nor in the Hub's cache on this machine.",
                f"Fetch it first: `{fetch_command('model', name, revision)}`, or give the path of its folder."
                if parse_hub_name(name)
                else "Give the path of its folder, or its name on the Hub, such as owner/name.",
            )
        folder, local = cached, False
    if not folder.is_dir():
        raise TunewrightError("Not a model folder", f"{folder} is a file.", "Give the folder that holds config.json.")
    if not (folder / "config.json").exists():
        raise TunewrightError(
            "Not a model folder", f"{folder} has no config.json.", "Give the folder that holds the model's files."
        )
    if local:
        _require_weights(folder, "Download the model whole")
    return folder


def find_weights(name: str, revision: str | None = None) -> Path:
    """Return the folder of the model `name` as `find_model` does, and only with all of its weights."""
    folder = find_model(name, revision)
    _require_weights(folder, f"Fetch it whole: `{fetch_command('model', name, revision)}`")
    return folder


def _require_weights(folder: Path, remedy: str) -> None:
    remedy = f"{remedy}; weights in pickle files (.bin, .pt) are not loaded because they can run code."
    if not any(folder.glob("*.safetensors")):
        message = f"{folder} has a config.json but no .safetensors file."
        raise TunewrightError("Model without weights", message, remedy)
    missing = missing_weights(folder)
    if missing:
        some = ", ".join(one_line(each, 80) for each in missing[:3])
        message = f"{folder} lacks {len(missing)} of the files that its index names: {some}."
        raise TunewrightError("Weights not whole", message, remedy)


def missing_weights(folder: Path) -> list[str]:
    """Return the files of weights that the index of the model in `folder` names and that are not there."""
    if (folder / "model.safetensors").exists():
        return []
    try:
        index: Any = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        named = sorted({str(each) for each in index["weight_map"].values()})
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ["model.safetensors.index.json (damaged)"]
    return [each for each in named if not (folder / each).is_file()]


def fetch_command(kind: Kind, name: str, revision: str | None = None, split: str = "train") -> str:
    """Return the command that fetches a model or a data set from the Hub."""
    words = ["tunewright", "fetch", one_line(name, 200)]
    if kind == "dataset":
        words += ["--dataset"] if split == "train" else ["--dataset", "--split", one_line(split, 100)]
    if revision and f"@{revision}" not in name:
        words += ["--revision", one_line(revision, 100)]
    return " ".join(words)


def find_data(source: str, split: str = "train") -> tuple[Path, ...]:
    """Return the files of the data set `source`, sorted; raises TunewrightError when there are none to read.

    `source` is built in, a file, a folder, a glob, or the name of a data set in the Hub's cache. Of a data set in the
    cache those are taken whose path names the split, all when none does; of a folder those that name another are left
    out when some name this one.
    """
    if source in BUILT_IN_DATA:
        return (BUILT_IN_DATA[source],)
    shown = one_line(source, 300)
    path = Path(os.path.expanduser(source))
    try:
        mode = path.stat().st_mode if source.strip() else 0
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise explain_os_error(error, path, "Reading") from error
    else:
        if stat.S_ISREG(mode):
            return (_readable(path),)
        if stat.S_ISDIR(mode):
            files = without_other_splits(choose_data(_walk(path)), path, split)
            return _required(files, f"{shown} holds no file of a kind that is read.")
        if mode:
            raise TunewrightError(
                "Not a file",
                f"{shown} is a pipe or a device, which cannot be read twice.",
                "Write the rows into a file first.",
            )
    if any(each in source for each in "*?["):
        found = _match(path, shown)
        return _required(choose_data(found) or found, f"No file matches {shown}.")
    named = parse_hub_name(source)
    snapshot = cached_snapshot("dataset", source) if named else None
    if named and snapshot is not None:
        return _find_in_snapshot(named, snapshot, split)
    remedy = f"Fetch it first: `{fetch_command('dataset', source, None, split)}`, or check the path."
    raise TunewrightError(
        "Data not found",
        f"{shown} is neither here nor a data set in the Hub's cache on this machine.",
        remedy if named else "Check the path.",
    )


def _find_in_snapshot(named: HubName, snapshot: Path, split: str) -> tuple[Path, ...]:
    """Return the files of a data set in the cache for a split; raises TunewrightError when not all of them are here."""
    listing = Repository(named.repository, "dataset").listing(snapshot.name)
    paths = (
        [each.path for each in listing] if listing else [str(each.relative_to(snapshot)) for each in _walk(snapshot)]
    )
    card = snapshot / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    chosen = files_of_data_set(paths, text, named.configuration, split, named.repository)
    wanted = [*chosen, CARD] if listing and CARD in paths else chosen
    missing = [each for each in wanted if not (snapshot / each).is_file()]
    if missing:
        raise TunewrightError(
            "Data not whole",
            f"{len(missing)} of the {len(wanted)} files of {named} are not in the Hub's cache on this machine.",
            f"Fetch them: `{fetch_command('dataset', str(named), None, split)}`.",
        )
    files = [snapshot / each for each in chosen]
    return _required(files, f"{named} in the Hub's cache holds no file of a kind that is read.")


def _walk(folder: Path) -> list[Path]:
    """Return the regular files below `folder`, sorted, without hidden ones; links to folders are followed once."""
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        facts = os.stat(parent)
        if (facts.st_dev, facts.st_ino) in seen:
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.is_file()]
    return sorted(files)


def _match(pattern: Path, shown: str) -> list[Path]:
    """Return the regular files that a glob matches, sorted; `**` does not follow links, which may go in circles."""
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if any(each in part for each in "*?["))
    base = Path(*parts[:fixed])
    try:
        found = sorted(set(base.glob(str(Path(*parts[fixed:])))))
    except (ValueError, OSError) as error:
        raise TunewrightError(
            "Not a pattern", f"{shown}: {one_line(str(error), 200)}.", "Check the pattern."
        ) from error
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _required(files: list[Path], problem: str) -> tuple[Path, ...]:
    if not files:
        raise TunewrightError(
            "Data not found", problem, "Read are JSONL, JSON, CSV, TSV, Parquet, Arrow and text, also compressed."
        )
    return tuple(_readable(path) for path in files)


def _readable(path: Path) -> Path:
    if not os.access(path, os.R_OK):
        raise explain_os_error(PermissionError(errno.EACCES, "Permission denied"), path, "Reading")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long or with a byte that no file has
        return False


def cached_snapshot(kind: Kind, name: str, revision: str | None = None) -> Path | None:
    """Return the folder in the Hub's cache that shows what is here of a model or data set, None when nothing is."""
    named = parse_hub_name(name)
    if named is None:
        return None
    repository = Repository(named.repository, kind)
    commit = repository.commit_of(named.revision or revision)
    return repository.snapshot(commit) if commit and repository.snapshot(commit).is_dir() else None
