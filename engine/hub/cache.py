"""The Hub's cache on this disk: where the files of a repository lie, which of them are there, and which there should be.

The layout is huggingface-hub's own (blobs, snapshots, refs, trees), so that whatever either fetched is there for both.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...foundation.errors import nearest
from ...foundation.files import write_atomically

Kind = Literal["model", "dataset"]

_NAME = r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}"
_REVISION = r"(?!.*\.\.)[A-Za-z0-9_][\w./-]{0,99}"
_HUB_NAME = re.compile(rf"({_NAME})(?:@({_REVISION}))?(?::([^\s/:@][^\n/:]{{0,199}}))?", re.ASCII)
_REVISION_NAME = re.compile(_REVISION, re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
LISTING_VERSION = 1


@dataclass(frozen=True, slots=True)
class HubName:
    """What `owner/name@revision:configuration` names; the last two may be left out."""

    repository: str
    revision: str | None = None
    configuration: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repository}{revision}{f':{self.configuration}' if self.configuration else ''}"


def parse_hub_name(text: str) -> HubName | None:
    """Return what `text` names on the Hub, None when it cannot be the name of anything there."""
    match = _HUB_NAME.fullmatch(text)
    return HubName(match[1], match[2], match[3]) if match else None


def is_revision(text: str) -> bool:
    """Tell whether `text` can be a branch, a tag or a commit."""
    return _REVISION_NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at one commit, as the Hub lists it."""

    path: str
    size_bytes: int
    blob: str
    """The name of its content in the cache: the SHA-256 of a large file, Git's SHA-1 of a small one."""
    git_blob: str = ""
    xet: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether the path stays inside the repository and the content's name is one; what a server lists is not trusted."""
        parts = self.path.split("/")
        inside = all(part and part not in (".", "..") for part in parts)
        plain = self.path.isprintable() and "\\" not in self.path and len(self.path) < 1000
        return inside and plain and self.size_bytes >= 0 and _BLOB.fullmatch(self.blob) is not None


@dataclass(frozen=True, slots=True)
class Repository:
    """A model or a data set in the cache, whether anything of it is there or not."""

    name: str
    kind: Kind

    @property
    def folder(self) -> Path:
        return cache_folder() / f"{self.kind}s--{self.name.replace('/', '--')}"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    def lock_file(self, file: HubFile) -> Path:
        """The lock under which huggingface-hub, too, fetches this content."""
        return cache_folder() / ".locks" / self.folder.name / f"{file.blob}.lock"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def commit_of(self, revision: str | None) -> str | None:
        """Return the commit that a branch, a tag or a commit leads to here, None when that is not known."""
        if revision is not None and not is_revision(revision):
            return None
        with contextlib.suppress(OSError, ValueError):
            commit = (self.folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
            return commit if COMMIT.fullmatch(commit) else None
        if revision is not None:
            return revision if COMMIT.fullmatch(revision) else None
        # Something was fetched by its commit alone: no reference leads to it.
        with contextlib.suppress(OSError):
            commits = [each for each in (self.folder / "snapshots").iterdir() if COMMIT.fullmatch(each.name)]
            return max(commits, key=lambda each: each.stat().st_mtime_ns).name if commits else None
        return None

    def listing(self, commit: str) -> tuple[HubFile, ...] | None:
        """Return the files that the commit has on the Hub, None when nobody has kept their list."""
        try:
            values: Any = json.loads((self.folder / "trees" / f"{commit}.json").read_text(encoding="utf-8"))
            if values["format_version"] != LISTING_VERSION:
                return None
            files = tuple(
                HubFile(path, each["size"], each.get("lfs_sha256") or each["blob_id"], each["blob_id"], each.get("xet_hash"))
                for path, each in values["files"].items()
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return tuple(each for each in files if each.is_sound)

    def keep_listing(self, commit: str, files: tuple[HubFile, ...]) -> None:
        """Keep the list of the commit's files, in huggingface-hub's form, so that later nobody has to ask."""
        place = self.folder / "trees" / f"{commit}.json"
        if place.exists():
            return
        values = {
            each.path: {"size": each.size_bytes, "blob_id": each.git_blob}
            | ({"lfs_sha256": each.blob, "lfs_size": each.size_bytes} if each.blob != each.git_blob else {})
            | ({"xet_hash": each.xet} if each.xet else {})
            for each in files
        }
        write_atomically(place, json.dumps({"format_version": LISTING_VERSION, "files": values}, indent=1))

    def is_here(self, file: HubFile) -> bool:
        """Tell whether the whole content of `file` is in the cache."""
        try:
            return (self.blobs / file.blob).stat().st_size == file.size_bytes
        except OSError:
            return False

    def put_into_snapshot(self, commit: str, file: HubFile) -> None:
        """Let the snapshot of `commit` show `file`, whose content is here."""
        pointer = self.snapshot(commit) / file.path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        blob = self.blobs / file.blob
        if pointer.exists():
            return
        pointer.unlink(missing_ok=True)  # a link to what is gone
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:
            return  # another process was quicker
        except OSError:  # a file system without links
            shutil.copyfile(blob, pointer)

    def refer(self, revision: str, commit: str) -> None:
        """Keep that a branch or tag leads to `commit`."""
        if revision != commit:
            write_atomically(self.folder / "refs" / revision, commit)


def cache_folder() -> Path:
    """Return the folder of the cache: HF_HUB_CACHE, or `hub` in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_names(kind: Kind) -> list[str]:
    """Return the names of the models or data sets of which anything is in the cache."""
    try:
        folders = [each.name for each in cache_folder().iterdir()]
    except OSError:
        return []
    return sorted(name.partition("--")[2].replace("--", "/") for name in folders if name.startswith(f"{kind}s--"))


def nearest_cached(name: str, kind: Kind) -> str | None:
    """Return the name in the cache most like `name`."""
    return nearest(name, cached_names(kind))
