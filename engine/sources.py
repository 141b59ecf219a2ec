"""Where models and data sets are found: built in, on this disk, or in the Hub's local cache."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from .. import starter
from ..foundation.errors import TunewrightError, explain_os_error
from ..foundation.text import one_line

BUILT_IN_MODELS = {"tunewright/starter": starter.MODEL}
BUILT_IN_DATA = {
    "tunewright/starter-orders": starter.TRAINING_DATA,
    "tunewright/starter-held-out": starter.HELD_OUT_DATA,
}

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_DATA = re.compile(
    r"\.(?:jsonl|ndjson|json|csv|tsv|tab|parquet|pq|arrow|feather|ipc|txt)(?:\.(?:gz|zst|zstd|bz2|xz))?$", re.IGNORECASE
)
_SIDECAR = re.compile(
    r"(?:readme|licen[cs]e|notice|changelog|citation|requirements|dataset_?infos?|dataset_dict|state|metadata|config|index)"
    r"(?:\..*)?|.*\.(?:md|lock|metadata|tmp|part|incomplete|py|ya?ml|toml)",
    re.IGNORECASE,
)
"""Files beside the data that are none."""
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"[-_.](?:\d+[-_]of[-_]\d+.*|\d+)$")


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
            files = _without_other_splits(_choose_data(_walk(path)), path, split)
            return _required(files, f"{shown} holds no file of a kind that is read.")
        if mode:
            raise TunewrightError(
                "Not a file",
                f"{shown} is a pipe or a device, which cannot be read twice.",
                "Write the rows into a file first.",
            )
    if any(each in source for each in "*?["):
        found = _match(path, shown)
        return _required(_choose_data(found) or found, f"No file matches {shown}.")
    snapshot = _cached_snapshot(source, None, "dataset")
    if snapshot is not None:
        files = _of_split(_choose_data(_walk(snapshot)), snapshot, split)
        return _required(files, f"{shown} in the Hub's cache holds no file of a kind that is read.")
    remedy = "Check the path."
    if _HUB_NAME.fullmatch(source):
        remedy = f"Fetch it first: `hf download {shown} --repo-type dataset`, or check the path."
    raise TunewrightError(
        "Data not found", f"{shown} is neither here nor a data set in the Hub's cache on this machine.", remedy
    )


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


def _choose_data(files: list[Path]) -> list[Path]:
    """Return those that hold data: by their endings, or else those without one."""
    others = [path for path in files if not _SIDECAR.fullmatch(path.name)]
    data = [path for path in others if _DATA.search(path.name)]
    return data or [path for path in others if not path.suffix]


def _without_other_splits(files: list[Path], folder: Path, split: str) -> list[Path]:
    named = set(_naming(files, folder, split))
    if not named:
        return files
    others = {path for other in (*_SPLIT_NAMES, split) for path in _naming(files, folder, other)} - named
    return [path for path in files if path not in others]


def _of_split(files: list[Path], folder: Path, split: str) -> list[Path]:
    return _naming(files, folder, split) or files


def _naming(files: list[Path], folder: Path, split: str) -> list[Path]:
    """Return the files whose path below `folder` names the split: as a whole word, or else as part of one."""
    words = _SPLIT_NAMES.get(split.lower(), (split.lower(),))
    exact: list[Path] = []
    loose: list[Path] = []
    for path in files:
        parts = path.relative_to(folder).as_posix().lower().split("/")
        parts[-1] = _SHARD.sub("", parts[-1].partition(".")[0])
        if any(part in words for part in parts):
            exact.append(path)
        elif any(
            re.search(rf"(?:^|[^a-z0-9]){re.escape(word)}(?:[^a-z0-9]|$)", part) for word in words for part in parts
        ):
            loose.append(path)
    return exact or loose


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


def _cached_snapshot(name: str, revision: str | None, kind: str = "model") -> Path | None:
    if not _HUB_NAME.fullmatch(name):
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision or ""
    snapshot = repository / "snapshots" / commit
    if not commit and kind == "dataset" and snapshot.is_dir():
        # A commit was fetched by its hash: no reference leads to it.
        return max(snapshot.iterdir(), key=lambda each: each.stat().st_mtime_ns, default=None)
    return snapshot if commit and snapshot.is_dir() else None
