"""Which files of a folder, or of a data set on the Hub, hold the rows of one split of one configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Any, TypeVar, cast

from ...foundation.errors import TunewrightError, nearest
from ...foundation.text import one_line

CARD = "README.md"
"""The file whose head names a data set's configurations."""
LARGEST_CARD_BYTES = 16 * 2**20
LARGEST_BLOCK_CHARACTERS = 2**20
MOST_GLOBS, MOST_STARS, LONGEST_PATTERN = 1000, 8, 500
SHOWN_NAMES = 12

DATA = re.compile(
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
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_GROWING = re.compile(r"<<|!!|!<")
_GLOB = re.compile(r"[*?\[]")
_CONFIGS = re.compile(r"^configs:[ \t]*\r?\n(?:(?:[ \t-].*|#.*|[ \t]*)(?:\r?\n|\Z))+", re.MULTILINE)

Each = TypeVar("Each", bound=PurePath)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration of a data set, as its card names it."""

    name: str
    default: bool
    folder: str
    """The folder that its patterns start from; empty for the data set's own."""
    patterns: dict[str, tuple[str, ...]]
    """The patterns of its files, by split; empty where the files' names tell the splits."""


def choose_data(files: Sequence[Each]) -> list[Each]:
    """Return those that hold data: by their endings, or else those without one."""
    others = [path for path in files if not _SIDECAR.fullmatch(path.name)]
    data = [path for path in others if DATA.search(path.name)]
    return data or [path for path in others if not path.suffix]


def without_other_splits(files: list[Each], folder: PurePath, split: str) -> list[Each]:
    """Return the files without those that name another split, when some name this one."""
    named = set(_naming(files, folder, split))
    if not named:
        return files
    others = {path for other in (*_SPLIT_NAMES, split) for path in _naming(files, folder, other)} - named
    return [path for path in files if path not in others]


def of_split(files: list[Each], folder: PurePath, split: str) -> list[Each]:
    """Return the files whose path names the split, all when none does."""
    return _naming(files, folder, split) or files


def _naming(files: Sequence[Each], folder: PurePath, split: str) -> list[Each]:
    """Return the files whose path below `folder` names the split: as a whole word, or else as part of one."""
    words = _SPLIT_NAMES.get(split.lower(), (split.lower(),))
    exact: list[Each] = []
    loose: list[Each] = []
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


def files_of_data_set(
    paths: Sequence[str], card: str, configuration: str | None, split: str, shown: str
) -> tuple[str, ...]:
    """Return which of a data set's `paths` are read for a split; raises TunewrightError when that is not clear.

    `card` is the text of its README.md. Where it names configurations, the asked one is taken, or the default one.
    """
    configurations = read_configurations(card, shown)
    files = [PurePosixPath(path) for path in paths if not any(part.startswith(".") for part in path.split("/"))]
    if not configurations:
        if configuration is not None:
            files = [path for path in files if configuration in path.parts[:-1]]
            if not files:
                message = f"{shown} names no configurations, and has no folder {one_line(configuration, 60)!r}."
                raise TunewrightError("Configuration not found", message, "Leave the configuration away.")
        return _posix(of_split(choose_data(files), PurePosixPath(), split))
    chosen = _choose(configurations, configuration, shown)
    base = f"{chosen.folder}/" if chosen.folder else ""
    if not chosen.patterns:
        inside = [path for path in choose_data(files) if path.as_posix().startswith(base)]
        return _posix(of_split(inside, PurePosixPath(), split))
    name = split if split in chosen.patterns else next((each for each in chosen.patterns if _same(each, split)), None)
    if name is None:
        raise TunewrightError(
            "Split not found",
            f"{shown} has no split {one_line(split, 60)!r} in its configuration {one_line(chosen.name, 60)!r}; "
            f"it has {_names(chosen.patterns)}.",
            "Name one of them in data.split.",
        )
    wanted = [f"{base}{pattern.strip().removeprefix('./').lstrip('/')}" for pattern in chosen.patterns[name]]
    exact = {pattern for pattern in wanted if not _GLOB.search(pattern)}
    globs = [_compile(pattern, shown) for pattern in wanted if pattern not in exact]
    if len(globs) > MOST_GLOBS:
        raise _not_understood(shown)
    matched = [path for path in files if str(path) in exact or any(pattern.fullmatch(str(path)) for pattern in globs)]
    return _posix([path for path in matched if DATA.search(path.name)] or matched)


def _posix(files: Sequence[PurePath]) -> tuple[str, ...]:
    return tuple(sorted(path.as_posix() for path in files))


def _same(name: str, split: str) -> bool:
    """Tell whether two names mean the same split, such as val and validation."""
    return any(name.lower() in words and split.lower() in words for words in _SPLIT_NAMES.values())


def _choose(configurations: Sequence[Configuration], name: str | None, shown: str) -> Configuration:
    """Return the configuration called `name`, or the default one; raises TunewrightError."""
    names = [each.name for each in configurations]
    if name is not None:
        found = next((each for each in configurations if each.name == name), None)
        if found is None:
            close = nearest(name, names)
            hint = f"Did you mean {shown}:{one_line(close, 60)}?" if close else f"It has {_names(names)}."
            message = f"{shown} has no configuration {one_line(name, 60)!r}."
            raise TunewrightError("Configuration not found", message, hint)
        return found
    if len(configurations) == 1:
        return configurations[0]
    default = next((each for each in configurations if each.default), None) or next(
        (each for each in configurations if each.name == "default"), None
    )
    if default is None:
        raise TunewrightError(
            "Several configurations",
            f"{shown} holds {len(configurations)} data sets in one: {_names(names)}.",
            f"Name one behind a colon, such as {shown}:{one_line(names[0], 60)}.",
        )
    return default


def _names(names: Iterator[str] | Sequence[str] | dict[str, Any]) -> str:
    listed = [one_line(each, 60) for each in names]
    more = f" and {len(listed) - SHOWN_NAMES} more" if len(listed) > SHOWN_NAMES else ""
    return ", ".join(listed[:SHOWN_NAMES]) + more


def read_configurations(card: str, shown: str) -> tuple[Configuration, ...]:
    """Return the configurations that the head of a data set's card names; raises TunewrightError for a block that is none.

    Only the block `configs:` is parsed: heads of several megabytes that describe every column are not rare. Merged
    mappings and tags are refused, since a few lines of them can grow without end.
    """
    head = _FRONT_MATTER.match(card.removeprefix("\ufeff"))
    block = _CONFIGS.search(head[1]) if head else None
    if block is None:
        return ()
    if len(block[0]) > LARGEST_BLOCK_CHARACTERS or _GROWING.search(block[0]):
        raise _not_understood(shown)
    import yaml

    try:
        parsed: Any = yaml.load(
            block[0], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )  # safe: plain values only
        listed = parsed["configs"]
    except (yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError):
        raise _not_understood(shown) from None
    if not isinstance(listed, list):
        raise _not_understood(shown)
    return tuple(_configurations(cast("list[object]", listed)))


def _not_understood(shown: str) -> TunewrightError:
    return TunewrightError(
        "Card not understood",
        f"The head of {shown}'s {CARD} names configurations in a form that is not read.",
        "Fetch its files by `hf download`, and give the folder of those that are to be trained on.",
    )


def _configurations(entries: list[object]) -> Iterator[Configuration]:
    for entry in entries:
        if isinstance(entry, dict):
            values = cast("dict[str, Any]", entry)
            folder = str(values.get("data_dir") or "").strip("/").removeprefix("./")
            name = str(values.get("config_name") or "default")
            patterns = _patterns(values.get("data_files"))
            yield Configuration(name, values.get("default") is True, folder, patterns)


def _patterns(data_files: object) -> dict[str, tuple[str, ...]]:
    """Return the patterns of `data_files` by split: a pattern, a list of them, or a list of splits with theirs."""
    found: dict[str, tuple[str, ...]] = {}
    if isinstance(data_files, dict):
        mapping = cast("dict[object, object]", data_files)
        data_files = [{"split": split, "path": path} for split, path in mapping.items()]
    for each in cast("list[object]", data_files) if isinstance(data_files, list) else [data_files]:
        split, path = "train", each
        if isinstance(each, dict):
            values = cast("dict[str, object]", each)
            split, path = str(values.get("split", "train")), values.get("path")
        texts = cast("list[object]", path) if isinstance(path, list) else [path]
        found[split] = found.get(split, ()) + tuple(text for text in texts if isinstance(text, str))
    return {split: patterns for split, patterns in found.items() if patterns}


def _compile(text: str, shown: str) -> re.Pattern[str]:
    """Return a pattern of a card as an expression: `*` and `?` stay within a folder, `**` does not.

    Raises TunewrightError for one with more stars than any honest one has, which takes long to compare.
    """
    if text.count("*") > MOST_STARS or len(text) > LONGEST_PATTERN:
        raise _not_understood(shown)
    parts: list[str] = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", text, re.DOTALL):
        match token:
            case "**/":
                parts.append("(?:[^/]+/)*")
            case "**":
                parts.append(".*")
            case "*":
                parts.append("[^/]*")
            case "?":
                parts.append("[^/]")
            case _ if len(token) > 2:
                negated = token[1] == "!"
                inside = re.sub(r"([\\\[\]^&~|])", r"\\\1", token[1 + negated : -1])
                parts.append(f"[{'^' if negated else ''}{inside}]")
            case _:
                parts.append(re.escape(token))
    try:
        return re.compile("".join(parts))
    except re.error:
        return re.compile(re.escape(text))
