"""Fetching models and data sets from the Hub: first what it would take, then the files themselves."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from ...foundation.errors import TunewrightError
from ...foundation.hub import endpoint, host
from ...foundation.text import one_line
from .cache import COMMIT, HubFile, HubName, Kind, Repository, cache_folder, is_revision, parse_hub_name
from .data_files import CARD, DATA, LARGEST_CARD_BYTES, files_of_data_set
from .errors import explain, require_space
from .needs import ADAPTER_FILES
from .transfer import Transfer, address_of, part_of, request_headers, silence_seconds, try_often

TELL_SECONDS = 0.1
RATE_SECONDS = 5.0
"""The rate is that of the last so many seconds."""
END_SECONDS = 1.0
"""So long a transfer that was stopped is waited for; its threads end by themselves."""
MARGIN_BYTES = 64 * 2**20
"""Space that has to be left."""
LISTED_FILES = 100_000
"""Repositories with more files are refused."""

_MODEL_FILES = re.compile(
    r"[^/]+\.(?:json|jinja|txt|tiktoken|model)|additional_chat_templates/[^/]+\.jinja"
    r"|(?:README|LICEN[CS]E|NOTICE|USE_POLICY)[^/]*",
    re.IGNORECASE,
)
_SHARDS = re.compile(r"(?:model|adapter_model)-\d+-of-\d+\.safetensors")
_PICKLES = re.compile(r".*\.(?:bin|pt|pth|ckpt|pkl|pickle)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What fetching a model or a data set takes."""

    name: HubName
    kind: Kind
    revision: str
    """The branch, tag or commit that was asked for."""
    commit: str
    files: tuple[HubFile, ...]
    """The files that are used, whether they are here or not."""
    here_bytes: int
    """What of them is on this disk already, parts included."""
    free_bytes: int
    """The free space on the disk of the cache."""
    host: str
    split: str = "train"
    listing: tuple[HubFile, ...] = field(default=(), repr=False)
    """All files of the commit."""

    @property
    def repository(self) -> Repository:
        return Repository(self.name.repository, self.kind)

    @property
    def total_bytes(self) -> int:
        return sum({each.blob: each.size_bytes for each in self.files}.values())

    @property
    def missing_bytes(self) -> int:
        return self.total_bytes - self.here_bytes

    @property
    def missing_files(self) -> int:
        return sum(not self.repository.is_here(each) for each in self.files)

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter and no model; nothing can be planned by a part of it."""
        paths = {each.path for each in self.files}
        return ADAPTER_FILES[0] in paths and "config.json" not in paths

    @property
    def is_whole(self) -> bool:
        """Whether the folder that is read shows every file; their contents can be here before it does."""
        snapshot = self.repository.snapshot(self.commit)
        return all((snapshot / each.path).exists() for each in self.files)

    @property
    def description(self) -> FetchPlan:
        """The plan of only what planning a run needs: everything but the weights."""
        files = tuple(each for each in self.files if not each.path.endswith(".safetensors"))
        return replace(self, files=files).anew

    @property
    def anew(self) -> FetchPlan:
        """The plan with what is here by now."""
        return replace(self, here_bytes=_here_bytes(self.repository, self.files), free_bytes=_free_bytes())


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a transfer is."""

    done_bytes: int
    total_bytes: int
    done_files: int
    files: int
    bytes_per_second: float
    seconds_left: float | None
    """None while nothing arrives."""
    note: str = ""
    """What is being waited for, in words."""


def plan_fetch(
    name: str,
    kind: Kind = "model",
    revision: str | None = None,
    split: str = "train",
    cancelled: Callable[[], bool] = lambda: False,
) -> FetchPlan:
    """Ask the Hub what fetching `name` takes; raises TunewrightError with the reason when it cannot be had.

    Of a data set the card is fetched at once, since it says which files belong to which configuration.
    """
    named = parse_hub_name(name)
    if named is None:
        raise TunewrightError(
            "Not a name on the Hub",
            f"{one_line(name, 200)!r} is neither owner/name nor owner/name@revision"
            + (" nor owner/name:configuration." if kind == "dataset" else "."),
            "Names on the Hub have an owner, such as HuggingFaceTB/SmolLM2-135M.",
        )
    asked = named.revision or revision
    if asked is not None and not is_revision(asked):
        raise TunewrightError(
            "Not a revision", f"{one_line(asked, 100)!r} is no branch, tag or commit.", "Such as main."
        )
    named = replace(named, revision=asked)
    _be_quiet()
    try:
        commit, gated = _resolve(named, kind, cancelled)
        repository = Repository(named.repository, kind)
        listing = repository.listing(commit) or tuple(_list(named, kind, commit, cancelled))
        if kind == "model":
            files = choose_model_files(listing, named)
        else:
            files = _choose_data_files(listing, named, repository, commit, split)
        if gated:
            _try_access(repository, commit, files)
    except TunewrightError:
        raise
    except Exception as error:  # what is no failure of the Hub or the line is raised again
        raise explain(error, named, kind) from error
    return FetchPlan(
        named, kind, asked or "main", commit, files, _here_bytes(repository, files), _free_bytes(), host(), split, listing
    )  # fmt: skip


def plan_from_cache(name: str, revision: str | None = None) -> FetchPlan | None:
    """Return what fetching the rest of a model takes, without asking the Hub; None where its list is not kept here."""
    named = parse_hub_name(name)
    if named is None:
        return None
    named = replace(named, revision=named.revision or revision)
    repository = Repository(named.repository, "model")
    commit = repository.commit_of(named.revision)
    listing = repository.listing(commit) if commit else None
    if commit is None or listing is None:
        return None
    files = choose_model_files(listing, named)
    here = _here_bytes(repository, files)
    return FetchPlan(
        named, "model", named.revision or "main", commit, files, here, _free_bytes(), host(), listing=listing
    )


def choose_model_files(listing: tuple[HubFile, ...], name: HubName) -> tuple[HubFile, ...]:
    """Return the files of a model that are used, in the order of their paths; raises TunewrightError without safetensors.

    Never taken are pickle files and programs, which can run code, and the same weights again in other forms.
    """
    weights = [each for each in listing if each.path.endswith(".safetensors") and "/" not in each.path]
    paths = {each.path for each in weights}
    if "model.safetensors" in paths:
        taken = {"model.safetensors"}
    elif shards := {path for path in paths if _SHARDS.fullmatch(path)}:
        taken = shards
    elif ADAPTER_FILES[1] in paths:
        taken = {ADAPTER_FILES[1]}
    else:
        taken = {path for path in paths if not path.startswith("consolidated")}
    if not taken:
        pickles = any(_PICKLES.fullmatch(each.path) for each in listing)
        raise TunewrightError(
            "Model without safetensors",
            f"{name.repository} has no weights as safetensors"
            + (", only as pickle files, which are never fetched because they can run code." if pickles else "."),
            "Look for the same model as safetensors; some have them on a branch of their own, such as "
            "--revision refs/pr/1. GGUF and other compressed forms cannot be trained on.",
        )
    described = (each for each in listing if _MODEL_FILES.fullmatch(each.path) and not _PICKLES.fullmatch(each.path))
    return tuple(sorted((*described, *(each for each in weights if each.path in taken)), key=lambda each: each.path))


def _choose_data_files(
    listing: tuple[HubFile, ...], name: HubName, repository: Repository, commit: str, split: str
) -> tuple[HubFile, ...]:
    """Return the card of a data set and its files for a split; the card is fetched for it."""
    card = next((each for each in listing if each.path == CARD and each.size_bytes <= LARGEST_CARD_BYTES), None)
    text = ""
    if card is not None:
        _bring(
            FetchPlan(name, "dataset", "", commit, (card,), 0, _free_bytes(), host()),
            lambda progress: None,
            lambda: False,
        )
        text = (repository.blobs / card.blob).read_text(encoding="utf-8", errors="replace")
    chosen = set(files_of_data_set([each.path for each in listing], text, name.configuration, split, name.repository))
    files = tuple(each for each in listing if each.path in chosen)
    if not files:
        endings = sorted({Path(each.path).suffix for each in listing if Path(each.path).suffix})
        raise TunewrightError(
            "Data set without rows",
            f"{name} has no file of a kind that is read for this split; its files end in {', '.join(endings[:12]) or 'nothing'}.",
            "Read are JSONL, JSON, CSV, TSV, Parquet, Arrow and text. Programs that make the rows are never run.",
        )
    if not all(DATA.search(each.path) for each in files) and any(_PICKLES.fullmatch(each.path) for each in files):
        files = tuple(each for each in files if not _PICKLES.fullmatch(each.path))
    return (*((card,) if card else ()), *files)


def fetch(
    plan: FetchPlan,
    progress: Callable[[FetchProgress], None] = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Bring what `plan` lists into the cache and return the folder that shows it; None when `cancelled`.

    What had arrived before an error, an end of the process or a cancellation is not asked for again. The folder shows
    the files only once all of them are here and have the checksums that the Hub lists. Raises TunewrightError.
    """
    repository = plan.repository
    _be_quiet()
    require_space(plan.missing_bytes + (MARGIN_BYTES if plan.missing_bytes else 0), _free_bytes(), plan.name)
    try:
        if not _bring(plan, progress, cancelled):
            return None
        for each in plan.files:
            repository.put_into_snapshot(plan.commit, each)
        repository.keep_listing(plan.commit, plan.listing)
        repository.refer(plan.revision, plan.commit)
    except OSError as error:
        raise explain(error, plan.name, plan.kind) from error
    return repository.snapshot(plan.commit)


def _bring(plan: FetchPlan, progress: Callable[[FetchProgress], None], cancelled: Callable[[], bool]) -> bool:
    """Bring the contents of the files, and tell whether all of them are here; raises TunewrightError."""
    transfer = Transfer(plan.name, plan.repository, plan.commit, plan.files)
    seen: deque[tuple[float, int]] = deque()
    transfer.start()
    try:
        while True:
            ended = transfer.wait(TELL_SECONDS)
            progress(_progress(plan, transfer, seen))
            if transfer.failure is not None:
                raise transfer.explained() from (
                    transfer.failure if not isinstance(transfer.failure, TunewrightError) else None
                )
            if ended:
                return not cancelled() or transfer.files_done == len(plan.files)
            if cancelled():
                return False
    finally:
        transfer.stop()
        transfer.wait(END_SECONDS)


def _progress(plan: FetchPlan, transfer: Transfer, seen: deque[tuple[float, int]]) -> FetchProgress:
    now, done = time.monotonic(), transfer.arrived_bytes
    seen.append((now, done))
    while now - seen[0][0] > RATE_SECONDS:
        seen.popleft()
    elapsed = now - seen[0][0]
    rate = max(0.0, (done - seen[0][1]) / elapsed) if elapsed > 0 else 0.0
    left = plan.total_bytes - done
    seconds = 0.0 if left == 0 else left / rate if rate > 0 else None
    return FetchProgress(done, plan.total_bytes, transfer.files_done, len(plan.files), rate, seconds, transfer.note)


def _here_bytes(repository: Repository, files: tuple[HubFile, ...]) -> int:
    found: dict[str, int] = {}
    for each in files:
        if repository.is_here(each):
            found[each.blob] = each.size_bytes
        else:
            with contextlib.suppress(OSError):
                found[each.blob] = min(each.size_bytes, part_of(repository, each).stat().st_size)
    return sum(found.values())


def _free_bytes() -> int:
    """Return the free space on the disk that the cache is on, or will be."""
    place = cache_folder().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _resolve(name: HubName, kind: Kind, cancelled: Callable[[], bool]) -> tuple[str, bool]:
    """Return the commit that the name leads to, and whether its files are given only to those who accepted its terms."""
    revision = quote(name.revision or "main", safe="")
    values, _ = _ask(f"{endpoint()}/api/{kind}s/{name.repository}/revision/{revision}", {}, cancelled)
    commit = values.get("sha") if isinstance(values, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise _not_the_hub()
    return commit, bool(cast("dict[str, Any]", values).get("gated"))


def _list(name: HubName, kind: Kind, commit: str, cancelled: Callable[[], bool]) -> Iterator[HubFile]:
    """Yield the files of a commit; those whose names would lead out of the cache are refused."""
    address: str | None = f"{endpoint()}/api/{kind}s/{name.repository}/tree/{commit}"
    parameters = {"recursive": "true", "expand": "false"}
    count = 0
    while address is not None:
        values, address = _ask(address, parameters, cancelled)
        parameters = {}
        for each in cast("list[Any]", values) if isinstance(values, list) else []:
            try:
                if each["type"] == "file":
                    yield _file(each)
                    count += 1
            except (KeyError, TypeError, ValueError, AttributeError):
                raise _not_the_hub() from None
        if count > LISTED_FILES:
            raise TunewrightError(
                "Too many files", f"{name} has more than {LISTED_FILES:,} files.", "Fetch it by `hf download`."
            )


def _file(values: dict[str, Any]) -> HubFile:
    lfs: dict[str, Any] = values.get("lfs") or {}
    git_blob = str(values["oid"])
    blob, size = str(lfs.get("oid") or git_blob), int(lfs.get("size", values["size"]))
    found = HubFile(str(values["path"]), size, blob, git_blob, values.get("xetHash"))
    if not found.is_sound:
        raise TunewrightError(
            "Not a sound list of files",
            f"{host()} lists a file called {one_line(found.path, 100)!r}, which cannot be kept here.",
            "Do not take anything from there.",
        )
    return found


def _ask(address: str, parameters: dict[str, str], cancelled: Callable[[], bool]) -> tuple[Any, str | None]:
    """Return the Hub's answer to a question, and where it goes on."""
    from huggingface_hub import get_session

    headers = request_headers()
    response = try_often(
        lambda: get_session().get(address, params=parameters or None, headers=headers, timeout=silence_seconds()), cancelled
    )  # fmt: skip
    if response is None:
        raise TunewrightError("Cancelled", "The question to the Hub was given up.", "Ask again.")
    try:
        values = response.json()
    except (ValueError, RecursionError):
        raise _not_the_hub() from None
    onward = response.links.get("next", {}).get("url")
    if onward and not onward.startswith(f"{endpoint()}/"):  # a mirror hands the Hub's own addresses on
        parts = urlsplit(onward)
        onward = f"{endpoint()}{parts.path}?{parts.query}"
    return values, onward


def _not_the_hub() -> TunewrightError:
    return TunewrightError(
        "Not the Hub",
        f"What {host()} answered is not what the Hub would; a login page of the network may stand between.",
        "Check HF_ENDPOINT and the network, then try again.",
    )


def _try_access(repository: Repository, commit: str, files: tuple[HubFile, ...]) -> None:
    """Ask for the largest file's head, so that one without access hears of it before anything is fetched."""
    import huggingface_hub

    hub: Any = huggingface_hub
    url = address_of(repository, commit, max(files, key=lambda each: each.size_bytes))
    hub.get_hf_file_metadata(url, timeout=silence_seconds(), headers=request_headers())


def _be_quiet() -> None:
    """Keep huggingface-hub from writing warnings over the screen; what matters of them is told in our words."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # pyright: ignore[reportUnknownMemberType]
