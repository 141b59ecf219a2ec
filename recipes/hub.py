"""Recipes on the Hugging Face Hub, through huggingface-hub: one commit on top of a known one, and files of known names.

The token is the library's own: it is read by the library, and neither kept nor shown here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..foundation.errors import TunewrightError
from ..foundation.hub import endpoint, explain_line, host, without_secrets
from ..foundation.text import one_line
from .parcel import ALLOWED, LARGEST_BYTES, RECIPE, TAG
from .places import Gone, Snapshot, changed_meanwhile

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w./-]{0,99}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
SEARCHED = 20


@dataclass(frozen=True, slots=True)
class Listed:
    """A repository that says it has a recipe."""

    name: str
    commit: str | None
    tags: tuple[str, ...]
    changed: str


@dataclass(frozen=True, slots=True)
class HubRemote:
    """A model repository on the Hub that carries a recipe: of its own, or beside an adapter."""

    repository: str
    revision: str | None = None

    @property
    def address(self) -> str:
        return f"hub:{self.repository}"

    @property
    def owner(self) -> str:
        return self.repository.partition("/")[0]

    @property
    def name(self) -> str:
        return self.repository.partition("/")[2]

    def read(self, commit: str | None = None) -> Snapshot:
        try:
            info = _api().model_info(self.repository, revision=commit or self.revision)
            found = str(info.sha or "")
            if not _COMMIT.fullmatch(found):
                raise TunewrightError(
                    "The Hub refused", f"{host()} names no commit of {self.repository}.", "Try again later."
                )
            there = {each.rfilename for each in info.siblings or ()}
            files = {name: self._content(name, found) for name in ALLOWED if name in there}
        except Exception as error:
            raise self.explained(error) from error
        if RECIPE not in files:
            raise Gone(
                "No recipe there",
                f"{self.repository} on {host()} has no {RECIPE}.",
                "Check the name for a typing error.",
            )
        now = one_line(str(info.id), 200)
        return Snapshot(found, files, now if now != self.repository and _NAME.fullmatch(now) else None)

    def _content(self, name: str, commit: str) -> bytes:
        """Return one file, which is never read further than it may be long, and never touches the cache."""
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # pyright: ignore[reportUnknownVariableType]

        url = hf_hub_url(self.repository, name, revision=commit, endpoint=endpoint())
        content = bytearray()
        client: Any = get_session()
        with client.stream("GET", url, headers=build_hf_headers()) as response:
            hf_raise_for_status(response)
            for piece in response.iter_bytes():
                content += piece
                if len(content) > LARGEST_BYTES[name]:
                    raise TunewrightError(
                        "Recipe refused",
                        f"{self.repository}: {name} is larger than {LARGEST_BYTES[name] // 1024} KiB.",
                        "Nothing was kept.",
                    )
        return bytes(content)

    def head(self) -> tuple[str, str] | None:
        """Return the newest commit and the README of the repository, None where there is no such repository yet."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = _api().model_info(self.repository)
            readme = any(each.rfilename == "README.md" for each in info.siblings or ())
            text = self._content("README.md", str(info.sha)).decode("utf-8", "replace") if readme else ""
            return str(info.sha), text
        except RepositoryNotFoundError:
            return None
        except Exception as error:
            raise self.explained(error) from error

    def write(self, files: Mapping[str, bytes], parent: str | None, message: str, private: bool) -> str:
        from huggingface_hub import CommitOperationAdd

        try:
            api = _api()
            if parent is None:
                api.create_repo(self.repository, repo_type="model", private=private, exist_ok=False)
                parent = str(api.model_info(self.repository).sha)
            made = api.create_commit(
                self.repository,
                [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()],
                commit_message=message,
                repo_type="model",
                parent_commit=parent,
            )
            return str(made.oid)
        except Exception as error:
            raise self.explained(error, writing=True) from error

    def explained(self, error: Exception, writing: bool = False) -> Exception:
        """Return the page for what went wrong; what is not of the Hub or the way to it is returned as it is."""
        from huggingface_hub import errors

        if isinstance(error, TunewrightError):
            return error
        if isinstance(error, errors.OfflineModeIsEnabled):
            return TunewrightError("The Hub is switched off", "HF_HUB_OFFLINE=1 is set.", "Unset it, or use a folder.")
        if isinstance(error, errors.LocalTokenNotFoundError):
            return TunewrightError(
                "Nobody is logged in", "The Hub needs to know who you are.", "`hf auth login` does that."
            )
        if isinstance(error, errors.HfHubHTTPError):
            return self._answered(error, writing)
        if isinstance(error, errors.HFValidationError):
            return TunewrightError("Not a name on the Hub", one_line(str(error), 200), "Such as owner/name.")
        if (told := explain_line(error)) is not None:
            return told
        if isinstance(error, ValueError) and writing:  # what the Hub's check of a README finds
            return TunewrightError("The Hub refused", without_secrets(str(error)), "Nothing was written.")
        if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
            said = f"{type(error).__name__}: {without_secrets(str(error))}"
            return TunewrightError(
                "Answer not understood", f"{host()} answers otherwise than the Hub: {said}.", "Try later."
            )
        return error

    def _answered(self, error: Any, writing: bool) -> TunewrightError:
        from huggingface_hub import errors

        status = error.response.status_code
        said = without_secrets(error.server_message or "")
        if isinstance(error, errors.RevisionNotFoundError):
            return TunewrightError(
                "Revision not found", f"{self.repository} has no such branch or commit.", "Leave it out for the newest."
            )
        if isinstance(error, errors.GatedRepoError):
            return TunewrightError(
                "Gated repository",
                f"{self.repository} is given only to accounts that accepted its terms.",
                f"Accept them at {endpoint()}/{self.repository}.",
            )
        if writing and status in (401, 403):
            return TunewrightError(
                "Not allowed to write there",
                f"{host()} does not let the account in use write to {self.repository}. {said}".strip(),
                "`hf auth login` with a token that may write, or choose another owner.",
            )
        if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
            return Gone(
                "No such recipe on the Hub",
                f"{host()} has no repository {self.repository}, or shows it to its owners only.",
                "Check the name; for a private one `hf auth login`, or set HF_TOKEN.",
            )
        if status in (409, 412):
            return changed_meanwhile(f"{self.repository} on {host()}")
        if status == 429:
            return TunewrightError(
                "Too many requests", f"{host()} asks to slow down. {said}".strip(), "Wait some minutes."
            )
        return TunewrightError(
            "The Hub has a problem" if status >= 500 else "The Hub refused",
            f"{host()} answered with status {status}. {said}".strip(),
            "Try again later. https://status.huggingface.co says how the Hub is.",
        )


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def search(text: str, limit: int = SEARCHED) -> tuple[Listed, ...]:
    """Return repositories on the Hub that say they have a recipe, the newest first; raises TunewrightError."""

    def found() -> Iterator[Listed]:
        for each in _api().list_models(filter=TAG, search=text or None, sort="last_modified", limit=limit):
            if _NAME.fullmatch(each.id):
                tags = tuple(one_line(tag, 60) for tag in each.tags or () if tag != TAG)
                commit = each.sha if each.sha and _COMMIT.fullmatch(each.sha) else None
                yield Listed(each.id, commit, tags, str(each.last_modified or "")[:10])

    try:
        return tuple(found())
    except Exception as error:
        raise HubRemote("a/search").explained(error) from error


def parse_hub(text: str) -> HubRemote | None:
    """Return the repository that `owner/name`, `owner/name@revision` or an address on the Hub names; None for none."""
    revision = None
    if "://" in text:
        parts = urlsplit(text)
        here = urlsplit(endpoint())
        known = {here.netloc, "huggingface.co", "www.huggingface.co", "hf.co"}
        if parts.scheme == "hf":
            words = [parts.netloc, *parts.path.strip("/").split("/")]
        elif parts.scheme in ("https", here.scheme) and parts.netloc in known:
            words = unquote(parts.path).strip("/").split("/")
        else:
            return None
        text = "/".join(words[:2])
        if len(words) > 3 and words[2] in ("tree", "blob", "resolve", "commit"):
            revision = words[3]
    elif "@" in text:
        text, _, revision = text.partition("@")
    if not _NAME.fullmatch(text) or (revision is not None and not _REVISION.fullmatch(revision)):
        return None
    return HubRemote(text, revision)
