"""Publishing and pulling: what goes out is shown first and scanned, what comes in is checked and stays a stranger's."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from .finding import BUILT_IN, LOCAL
from .hub import HubRemote, parse_hub
from .parcel import CARD, RECIPE, Leak, Parcel, leaks, merged_card, pack, places_named, slug_of, unpack
from .places import FolderRemote, GitRemote, Gone, Remote, Snapshot
from .records import Entry, Place
from .registry import Registry

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
"""Variables whose values must not stand in anything that is published."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What would be published, byte by byte, and what speaks against it."""

    remote: Remote
    files: Mapping[str, bytes]
    parent: str | None
    """The commit that it goes on top of; None where there is nothing yet."""
    leaks: tuple[Leak, ...]
    warnings: tuple[str, ...]
    unchanged: bool
    """Whether the very same is there already."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What was pulled, before anything of it is kept."""

    remote: Remote
    snapshot: Snapshot
    parcel: Parcel
    namespace: str
    slug: str
    warnings: tuple[str, ...]


def parse_remote(text: str) -> Remote:
    """Return the place that `text` names: on the Hub, a folder, or a git repository; raises TunewrightError."""
    text = text.strip()
    address, _, folder = text.partition("#")
    if text.startswith("git+"):
        return GitRemote(address.removeprefix("git+"), folder.strip("/"))
    if text.startswith(("ssh://", "git@")) or address.rstrip("/").endswith(".git"):
        return GitRemote(address, folder.strip("/"))
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return FolderRemote(Path(text).expanduser().absolute())
    if (hub := parse_hub(text)) is not None:
        return hub
    raise TunewrightError(
        "Place not understood",
        f"{one_line(text, 120)!r} is no place for recipes.",
        "Give owner/name on the Hub, a folder as ./FOLDER or /FOLDER, or a repository as git+https://HOST/TEAM.git#NAME.",
    )


def parse_address(place: str) -> Remote:
    """Return the place that the registry remembers as `place`."""
    kind, _, rest = place.partition(":")
    if kind == "hub":
        return HubRemote(rest)
    if kind == "git":
        url, _, folder = rest.partition("#")
        return GitRemote(url, folder)
    return FolderRemote(Path(rest))


def prepare(registry: Registry, entry: Entry, remote: Remote, with_evidence: bool = True) -> Shipment:
    """Return what publishing `entry` at `remote` would send; nothing is written yet. Raises TunewrightError."""
    parents = tuple(parent for parent, _ in registry.parents(entry.hash))
    evidence = tuple(registry.evidence(entry.hash)) if with_evidence else ()
    files = pack(entry, parents, evidence)
    before, parent, readme = _what_is_there(remote)
    if readme:
        files[CARD] = merged_card(readme, files[CARD].decode(), entry.recipe).encode()
    _require_same_recipe(registry, entry, remote, before)
    warnings = [
        f"{one_line(each, 120)} is a place on this machine: nobody else can run the recipe with it."
        for each in places_named(entry.recipe)
    ]
    if not entry.recipe.card.licence:
        warnings.append("The card names no licence: others do not know what they may do with it (card.licence).")
    if entry.origin == "hub":
        warnings.append("It was pulled from somebody else; its card and licence are theirs.")
    unchanged = before is not None and all(before.files.get(name) == content for name, content in files.items())
    return Shipment(remote, files, parent, leaks(files, _own_secrets()), tuple(warnings), unchanged)


def _what_is_there(remote: Remote) -> tuple[Snapshot | None, str | None, str]:
    """Return the recipe that a place has already, the commit to go on top of, and the README there."""
    if isinstance(remote, HubRemote):
        head = remote.head()
        if head is None:
            return None, None, ""
        commit, readme = head
        try:
            return remote.read(commit), commit, readme
        except Gone:  # a repository without a recipe, such as an adapter's
            return None, commit, readme
    try:
        there = remote.read()
    except Gone:
        return None, None, ""
    return there, there.commit, there.files.get(CARD, b"").decode("utf-8", "replace")


def _require_same_recipe(registry: Registry, entry: Entry, remote: Remote, before: Snapshot | None) -> None:
    """Raise TunewrightError where another recipe is there, or one that was changed there since we last saw it."""
    if before is None:
        return
    known = registry.place_of(entry)
    there = unpack(before.files, remote.address)
    own = {edition.hash for edition in registry.history(entry.name)}
    if known is not None and known.place == remote.address and (known.hash == there.recipe.hash()):
        return
    if there.recipe.hash() in own or there.toml == entry.toml:
        return
    raise TunewrightError(
        "Another recipe is there",
        f"{remote.address.partition(':')[2]} has a recipe that {one_line(entry.name, 80)} never was; it is not overwritten.",
        f"Choose another place, or pull what is there and go on from it: `tunewright recipes pull {one_line(remote.address.partition(':')[2], 120)}`.",
    )


def _own_secrets() -> tuple[str, ...]:
    """Return what must not stand in any file: the Hub's token in use, and those in the environment."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception:  # noqa: BLE001  # a login that cannot be renewed has no token to hide
        token = None
    return tuple({each for each in (token, *(os.environ.get(name) for name in TOKENS)) if each})


def send(registry: Registry, entry: Entry, shipment: Shipment, message: str = "", private: bool = False) -> str:
    """Publish `shipment` in one commit, remember where, and return the commit; raises TunewrightError for a secret in it."""
    if shipment.leaks:
        first = shipment.leaks[0]
        raise TunewrightError(
            "A secret in the recipe",
            f"{first.file}, line {first.line}, looks like it holds a secret ({first.kind}). Nothing was sent.",
            "Take it out of the recipe, and give it another value where it is used: it may have been seen.",
        )
    commit = shipment.parent or ""
    if not shipment.unchanged:
        said = message or f"Publish the recipe {entry.name.rpartition('/')[2]} ({entry.hash[:12]})"
        commit = shipment.remote.write(shipment.files, shipment.parent, one_line(said, 200), private)
    registry.set_place(entry, Place(place=shipment.remote.address, commit_id=commit, hash=entry.hash))
    return commit


def fetch(registry: Registry, remote: Remote, commit: str | None = None) -> Arrival:
    """Return what is at `remote`, checked and not kept yet; raises TunewrightError.

    When a place that recipes came from is gone, they are marked so, and stay.
    """
    try:
        snapshot = remote.read(commit)
    except Gone:
        for entry in registry.entries_at(remote.address):
            known = registry.place_of(entry)
            if known is not None and known.gone is None and commit is None:
                registry.set_place(entry, replace(known, gone=time.time()))
        raise
    parcel = unpack(snapshot.files, remote.address)
    slug = slug_of(parcel.name or "") if not isinstance(remote, HubRemote) else None
    slug = slug or slug_of(remote.name)
    if slug is None:
        raise TunewrightError(
            "No name", f"Nothing of {one_line(remote.name, 100)!r} can be a recipe's name.", "Rename it there."
        )
    owner = slug_of(remote.owner) or "shared"
    namespace = f"from-{owner}" if owner in (BUILT_IN, LOCAL) else owner
    warnings = [f"It names a place on a disk: {one_line(each, 120)}." for each in places_named(parcel.recipe)]
    if snapshot.moved_to:
        warnings.append(f"The other side calls it {snapshot.moved_to} now; here it keeps its name.")
    return Arrival(remote, snapshot, parcel, namespace, slug, tuple(warnings))


def keep(registry: Registry, arrival: Arrival, accepted: bool = False) -> Entry:
    """Keep what was pulled under its owner's name, as a stranger's unless `accepted`; what is here is not overwritten."""
    parcel, address = arrival.parcel, arrival.remote.address
    name = f"{arrival.namespace}/{arrival.slug}"
    here = _present(registry, name)
    if here is not None:
        known = registry.place_of(here)
        if known is None or known.place != address:
            raise TunewrightError(
                "Name taken",
                f"{name} came from {known.place if known else 'somewhere else'}; it is not overwritten.",
                "Pull that one again, or fork it under a name of your own.",
            )
    unchanged = here is not None and here.toml == parcel.toml
    if here is None or not unchanged:
        here = registry.add(
            parcel.toml,
            arrival.slug,
            namespace=arrival.namespace,
            origin="hub",
            parents=parcel.parents,
            note=f"Pulled from {address} at {arrival.snapshot.commit[:12]}",
            accepted=accepted,
        )
    elif accepted and not here.accepted:
        here = registry.accept(name)
    registry.claim_evidence(here.hash, address, parcel.evidence)
    registry.set_place(
        here,
        Place(place=address, commit_id=arrival.snapshot.commit, hash=here.hash, moved_to=arrival.snapshot.moved_to),
    )
    return here


def _present(registry: Registry, name: str) -> Entry | None:
    try:
        found = registry.get(name)
    except TunewrightError:
        return None
    return found if found.name == name else None


def size_bytes(files: Mapping[str, bytes]) -> int:
    """Return how many bytes all files have."""
    return sum(len(content) for content in files.values())


__all__ = [
    "RECIPE", "Arrival", "Shipment", "fetch", "keep", "parse_address", "parse_remote", "prepare", "send", "size_bytes",
]  # fmt: skip
