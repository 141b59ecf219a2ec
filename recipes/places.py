"""Places that recipes are shared at without the Hub: a plain folder, or a git repository."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..foundation.errors import TunewrightError, explain_os_error
from ..foundation.files import write_atomically
from ..foundation.text import one_line
from .parcel import ALLOWED, LARGEST_BYTES, RECIPE

GIT_SECONDS = 120.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FOLDER = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w./-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a recipe at one commit of its place."""

    commit: str
    """What the place is pinned by; of a folder the hash of the files."""
    files: Mapping[str, bytes]
    moved_to: str | None = None
    """What the place calls itself now, when it was asked by an earlier name."""


class Gone(TunewrightError):
    """Nothing is there, or no longer."""


class Remote(Protocol):
    """A place that can be read and written."""

    @property
    def address(self) -> str:
        """The place as the registry remembers it."""
        ...

    @property
    def owner(self) -> str:
        """Whose it is: the namespace of what is pulled from it."""
        ...

    @property
    def name(self) -> str:
        """What a recipe there is called when it does not say so itself."""
        ...

    def read(self, commit: str | None = None) -> Snapshot:
        """Return the files at `commit`, or the newest ones; raises Gone when nothing is there."""
        ...

    def write(self, files: Mapping[str, bytes], parent: str | None, message: str, private: bool) -> str:
        """Put `files` there on top of the commit `parent` (None where there is none yet) and return the new commit."""
        ...


def changed_meanwhile(where: str) -> TunewrightError:
    """Return the error for a place that is not as it was when it was looked at."""
    return TunewrightError(
        "Changed meanwhile",
        f"{one_line(where, 200)} was changed by somebody else since it was looked at; nothing was written.",
        "Look at what is there now (`tunewright recipes pull`), then publish again.",
    )


@dataclass(frozen=True, slots=True)
class FolderRemote:
    """A folder with one recipe in it, on a disk that a team shares."""

    path: Path

    @property
    def address(self) -> str:
        return f"folder:{self.path}"

    @property
    def owner(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, commit: str | None = None) -> Snapshot:
        if not self.path.is_dir():
            raise Gone("Nothing there", f"{self.path} is no folder.", "Check the path for a typing error.")
        files: dict[str, bytes] = {}
        for name in ALLOWED:
            content = _read_plain(self.path / name, LARGEST_BYTES[name])
            if content is not None:
                files[name] = content
        if RECIPE not in files:
            inside = sorted(each.parent.name for each in self.path.glob(f"*/{RECIPE}"))
            hint = (
                f"It has recipes in {', '.join(one_line(each, 60) for each in inside[:8])}: name one of them."
                if inside
                else ""
            )
            raise Gone("No recipe there", f"{self.path} has no {RECIPE}.", hint or "Check the path.")
        now = _content_hash(files)
        if commit is not None and commit != now:
            raise TunewrightError(
                "Not that version", f"{self.path} is at {now}; a folder keeps no earlier ones.", "Leave the commit out."
            )
        return Snapshot(now, files)

    def write(self, files: Mapping[str, bytes], parent: str | None, message: str, private: bool) -> str:
        if self.path.is_symlink():
            raise TunewrightError("A link, not a folder", f"{self.path} is a symbolic link.", "Name the folder itself.")
        try:
            present = self.read().commit if (self.path / RECIPE).exists() else None
        except TunewrightError as error:
            raise changed_meanwhile(str(self.path)) from error
        if present != parent:
            raise changed_meanwhile(str(self.path))
        for name, content in files.items():
            write_atomically(self.path / name, content)
        return _content_hash(files)


def _read_plain(path: Path, most_bytes: int) -> bytes | None:
    """Return the content of a plain file, None where there is none; links, pipes and large files are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise _not_plain(path, "a symbolic link") from error
        raise explain_os_error(error, path, "Reading") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _not_plain(path, "no plain file")
        if facts.st_size > most_bytes:
            raise _not_plain(path, f"larger than {most_bytes // 1024} KiB")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    finally:
        os.close(descriptor)


def _not_plain(path: Path, what: str) -> TunewrightError:
    return TunewrightError("Recipe refused", f"{one_line(str(path), 300)} is {what}.", "Nothing was kept.")


def _content_hash(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class GitRemote:
    """A folder in a git repository, read from its objects: nothing is checked out, no hook and no filter runs."""

    url: str
    folder: str = ""

    @property
    def address(self) -> str:
        return f"git:{self.url}{f'#{self.folder}' if self.folder else ''}"

    @property
    def owner(self) -> str:
        return re.split(r"[/:]", self.url.rstrip("/"))[-1].removesuffix(".git") or "git"

    @property
    def name(self) -> str:
        return self.folder.rpartition("/")[2] or self.owner

    def read(self, commit: str | None = None) -> Snapshot:
        with tempfile.TemporaryDirectory(prefix="tunewright-git-") as place:
            git = self._clone(Path(place), commit)
            head = git.say(
                "rev-parse", "--verify", "--quiet", "HEAD" if commit is None else f"{commit}^{{commit}}", may_fail=True
            )
            if not _COMMIT.fullmatch(head):
                raise Gone("Nothing there", f"{self._shown} has no commit.", "Publish a recipe to it first.")
            return Snapshot(head, self._files(git, head))

    def write(self, files: Mapping[str, bytes], parent: str | None, message: str, private: bool) -> str:
        with tempfile.TemporaryDirectory(prefix="tunewright-git-") as place:
            git = self._clone(Path(place), None)
            head = git.say("rev-parse", "--verify", "--quiet", "HEAD", may_fail=True)
            present = self._files(git, head, required=False) if head else {}
            # Others may have written elsewhere in the repository; this recipe has to be as it was.
            if bool(present) != (parent is not None) or (
                parent not in (None, head) and self._at(git, parent) != present
            ):
                raise changed_meanwhile(self._shown)
            index = {"GIT_INDEX_FILE": str(Path(place) / "index")}
            if head:
                git.say("read-tree", head, more=index)
            for name, content in files.items():
                blob = git.say("hash-object", "-w", "--stdin", content=content)
                path = f"{self.folder}/{name}" if self.folder else name
                git.say("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", more=index)
            tree = git.say("write-tree", more=index)
            if head and tree == git.say("rev-parse", f"{head}^{{tree}}"):
                return head
            made = git.say("commit-tree", tree, *(["-p", head] if head else []), "-m", message)
            branch = git.say("symbolic-ref", "--short", "HEAD")
            try:
                git.say("push", "--quiet", "origin", f"{made}:refs/heads/{branch}")
            except TunewrightError as error:
                if "rejected" in error.message or "fetch first" in error.message:
                    raise changed_meanwhile(self._shown) from error
                raise
            return made

    def _at(self, git: _Git, commit: str | None) -> dict[str, bytes]:
        """Return the recipe's files at an earlier commit; none where the repository no longer has it."""
        if commit is None:
            return {}
        git.say("fetch", "--quiet", "--depth=1", "origin", commit, may_fail=True)
        return self._files(git, commit, required=False)

    @property
    def _shown(self) -> str:
        return one_line(re.sub(r"(?<=://)[^/@\s]+@", "", self.address.removeprefix("git:")), 200)

    def _clone(self, place: Path, commit: str | None) -> _Git:
        if self.url.startswith("-") or not self.url or any(ord(each) < 33 for each in self.url):
            raise TunewrightError(
                "Not a git address", f"{self._shown} is none.", "Such as git+https://host/team/recipes.git."
            )
        if self.folder and not _FOLDER.fullmatch(self.folder):
            raise TunewrightError(
                "Not a folder's name", f"{one_line(self.folder, 100)!r} is none.", "Such as #team/name."
            )
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise TunewrightError("Not a commit", f"{one_line(commit, 80)!r} is none.", "Give all of its 40 digits.")
        git = _Git(place / "repository", self._shown)
        local = Path(self.url).expanduser()
        url = local.absolute().as_uri() if local.is_dir() else self.url
        git.say(
            "clone",
            "--bare",
            "--quiet",
            "--no-tags",
            "--template=",
            "--depth=1",
            "--",
            url,
            str(git.place),
            inside=False,
        )
        if commit is not None:
            git.say("fetch", "--quiet", "--depth=1", "origin", commit)
        return git

    def _files(self, git: _Git, commit: str, required: bool = True) -> dict[str, bytes]:
        """Return the files of the recipe at `commit` from git's objects; links and submodules are refused."""
        files: dict[str, bytes] = {}
        where = f"{self.folder}/" if self.folder else ""
        listed = git.say("ls-tree", "-z", "-l", commit, "--", *(f"{where}{name}" for name in ALLOWED), may_fail=True)
        for line in filter(None, listed.split("\0")):
            facts, _, path = line.partition("\t")
            mode, _, blob, size = facts.split()
            name = path.removeprefix(where)
            if mode not in ("100644", "100755"):
                raise _not_plain(Path(path), "a link, or no plain file")
            if not size.isdigit() or int(size) > LARGEST_BYTES[name]:
                raise _not_plain(Path(path), f"larger than {LARGEST_BYTES[name] // 1024} KiB")
            files[name] = git.bytes_of("cat-file", "blob", blob)
        if required and RECIPE not in files:
            listed = git.say("ls-tree", "-r", "-z", "--name-only", commit)
            inside = [each.removesuffix(f"/{RECIPE}") for each in listed.split("\0") if each.endswith(f"/{RECIPE}")]
            names = ", ".join(one_line(each, 60) for each in inside[:8])
            hint = f"It has recipes in {names}: add #NAME." if inside else "Check the address."
            raise Gone("No recipe there", f"{self._shown} has no {RECIPE}.", hint)
        return files


@dataclass(frozen=True, slots=True)
class _Git:
    """The git program over one bare repository of ours."""

    place: Path
    shown: str

    def say(
        self,
        *arguments: str,
        content: bytes | None = None,
        more: Mapping[str, str] | None = None,
        may_fail: bool = False,
        inside: bool = True,
    ) -> str:
        """Return what git prints; raises TunewrightError in its words when it fails."""
        return self.bytes_of(*arguments, content=content, more=more, may_fail=may_fail, inside=inside).decode(
            "utf-8", "replace"
        ).strip("\n")  # fmt: skip

    def bytes_of(
        self,
        *arguments: str,
        content: bytes | None = None,
        more: Mapping[str, str] | None = None,
        may_fail: bool = False,
        inside: bool = True,
    ) -> bytes:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT},
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "https:ssh:file",
            "GIT_NO_LAZY_FETCH": "1",
            "LC_ALL": "C",
            **(more or {}),
        }
        settings = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "init.templateDir="]
        where = ["--git-dir", str(self.place)] if inside else []
        try:
            done = subprocess.run(
                ["git", *settings, *where, *arguments],
                input=content or b"",
                capture_output=True,
                timeout=GIT_SECONDS,
                env=environment,
                check=False,
            )
        except FileNotFoundError as error:
            raise TunewrightError(
                "No git", "The git program is not installed.", "Install it, or use a folder."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise TunewrightError(
                "Git does not answer",
                f"{self.shown} was silent for {GIT_SECONDS:.0f} s.",
                "Check the address and the network.",
            ) from error
        if done.returncode and not may_fail:
            said = one_line(re.sub(r"(?<=://)[^/@\s]+@", "", done.stderr.decode("utf-8", "replace")), 300)
            kind = (
                Gone
                if "not found" in said or "does not appear to be" in said or "does not exist" in said
                else TunewrightError
            )
            raise kind("Git refused", f"{self.shown}: {said}", "Check the address, and that you may use it.")
        return b"" if done.returncode else done.stdout


_KEPT = {"GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME",
         "GIT_COMMITTER_EMAIL", "GIT_CONFIG_GLOBAL"}  # fmt: skip
