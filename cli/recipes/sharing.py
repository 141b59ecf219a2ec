"""`tunewright recipes publish` and `pull`: recipes to and from the Hub, a folder or a git repository."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import TYPE_CHECKING, Any

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...recipes.registry import Registry, open_registry
from ..parser import add_json, print_json
from ..table import paragraph, render_table

if TYPE_CHECKING:
    from ...recipes.sharing import Arrival, Shipment

PLACES = "owner/name on the Hub, ./FOLDER, or git+https://HOST/TEAM.git#NAME"


def configure_publish(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `publish`."""
    parser.add_argument("recipe", metavar="NAME", help="the recipe")
    parser.add_argument("place", metavar="PLACE", help=PLACES)
    parser.add_argument("--dry-run", action="store_true", help="show every byte that would be sent, and send nothing")
    parser.add_argument("--yes", action="store_true", help="send without asking")
    parser.add_argument("--private", action="store_true", help="make a new repository on the Hub private")
    parser.add_argument("--no-evidence", action="store_true", help="leave out what runs here have measured")
    parser.add_argument("--message", metavar="TEXT", default="", help="the commit's message")
    parser.epilog = (
        "One commit, on top of the one that was looked at; four files and no other. What looks like a secret is not sent. "
        "HF_TOKEN or `hf auth login` names the account. An adapter's repository keeps its README and gets the tags."
    )
    add_json(parser)


def configure_pull(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pull`."""
    parser.add_argument("place", metavar="PLACE", nargs="?", help=f"{PLACES}, or a recipe that was pulled before")
    parser.add_argument("--search", metavar="TEXT", help="list recipes on the Hub that hold TEXT ('' for the newest)")
    parser.add_argument("--commit", metavar="C", help="this commit instead of the newest")
    parser.add_argument("--dry-run", action="store_true", help="show what is there, and keep nothing")
    parser.add_argument("--accept", action="store_true", help="take it for one's own to run, without reading it first")
    parser.epilog = (
        "What is pulled is kept at its commit under its owner's name. Nothing of it is run, nothing here overwritten."
    )
    add_json(parser)


def run_publish(arguments: argparse.Namespace) -> int:
    """Show what would be sent, ask, send it, and return the exit status."""
    from ...recipes.sharing import parse_remote, prepare, send

    remote = parse_remote(arguments.place)
    with open_registry() as registry:
        entry = registry.get(arguments.recipe)
        if not remote.address.startswith("hub:") and not _names_a_recipe(arguments.place, entry.name):
            remote = parse_remote(_inside(arguments.place, entry.name.rpartition("/")[2]))
        shipment = prepare(registry, entry, remote, not arguments.no_evidence)
        if arguments.dry_run:
            _show_shipment(shipment, arguments.json)
            return 0
        if not arguments.yes and not shipment.leaks and not shipment.unchanged:
            _require_consent(shipment, arguments.json, arguments.private)
        commit = send(registry, entry, shipment, arguments.message, arguments.private)
    if arguments.json:
        print_json({"published": entry.name, **_values(shipment), "commit": commit})
    elif shipment.unchanged:
        print(f"{one_line(entry.name, 100)} is there already, byte for byte.")
    else:
        print(f"{one_line(entry.name, 100)} is at {shipment.remote.address.partition(':')[2]}, commit {commit[:12]}.")
    return 0


def _names_a_recipe(place: str, name: str) -> bool:
    """Tell whether a folder, or a folder in a repository, is named as one recipe's own."""
    from pathlib import Path

    if "#" in place:
        return True
    path = Path(place).expanduser()
    return path.name == name.rpartition("/")[2] or (path / "recipe.toml").exists()


def _inside(place: str, name: str) -> str:
    """Return the place of one recipe in a folder or repository of several."""
    git = place.startswith(("git+", "ssh://", "git@")) or place.rstrip("/").endswith(".git")
    return f"{place}#{name}" if git else f"{place.rstrip('/')}/{name}"


def _require_consent(shipment: Shipment, as_json: bool, private: bool) -> None:
    """Show what would be sent and ask; raises TunewrightError where nobody can answer, or who does declines."""
    if as_json or not sys.stdin.isatty():
        raise TunewrightError(
            "Not agreed to", "Publishing shows what is sent and asks.", "Look with --dry-run, then add --yes."
        )
    _show_shipment(shipment, False)
    seen = "for its owners alone" if private else "where everybody who can read that place sees it"
    try:
        answer = input(f"\nPublish this {seen}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise TunewrightError("Not published", "Nothing was sent.", "The same command asks again.")


def _values(shipment: Shipment) -> dict[str, Any]:
    return {
        "place": shipment.remote.address,
        "parent": shipment.parent,
        "files": {name: len(content) for name, content in shipment.files.items()},
        "unchanged": shipment.unchanged,
        "warnings": list(shipment.warnings),
    }


def _show_shipment(shipment: Shipment, as_json: bool) -> None:
    leaks = [{"file": each.file, "line": each.line, "kind": each.kind} for each in shipment.leaks]
    if as_json:
        contents = {name: content.decode("utf-8", "replace") for name, content in shipment.files.items()}
        print_json({**_values(shipment), "contents": contents, "secrets": leaks})
        return
    for name, content in shipment.files.items():
        print(f"──── {name}, {len(content):,} bytes\n{clean(content.decode('utf-8', 'replace')).rstrip()}\n")
    rows = [(name, f"{len(content):,}") for name, content in shipment.files.items()]
    print(render_table(("FILE", "BYTES"), rows, right=(1,)))
    on = f"on top of commit {shipment.parent[:12]}" if shipment.parent else "which is new"
    print(paragraph(f"To {shipment.remote.address.partition(':')[2]}, {on}."))
    for each in shipment.warnings:
        print(paragraph(f"Note: {each}"))
    for each in leaks:
        print(
            paragraph(f"Not sent: {each['file']}, line {each['line']}, looks like it holds a secret ({each['kind']}).")
        )
    if shipment.unchanged:
        print("The very same is there already.")


def run_pull(arguments: argparse.Namespace) -> int:
    """Pull a recipe, or list those on the Hub, and return the exit status."""
    if (arguments.place is None) == (arguments.search is None):
        raise TunewrightError("What to pull?", "Give a place, or --search TEXT, and not both.", f"A place is {PLACES}.")
    if arguments.search is not None:
        return _search(arguments.search, arguments.json)
    from ...recipes.sharing import fetch, keep

    with open_registry() as registry:
        arrival = fetch(registry, _remote(registry, arguments.place), arguments.commit)
        before = _text_before(registry, arrival)
        if arguments.dry_run:
            _report(arrival, None, arguments.json, before)
            return 0
        entry = keep(registry, arrival, arguments.accept)
        _report(arrival, (entry.name, entry.accepted), arguments.json, before)
    return 0


def _remote(registry: Registry, place: str) -> Any:
    """Return the place that is meant: that of a recipe which came from one, or the one that is named."""
    from ...recipes.sharing import parse_address, parse_remote

    try:
        known = registry.place_of(registry.get(place))
    except TunewrightError:
        known = None
    return parse_address(known.place) if known is not None else parse_remote(place)


def _text_before(registry: Registry, arrival: Arrival) -> str | None:
    try:
        return registry.get(f"{arrival.namespace}/{arrival.slug}").toml
    except TunewrightError:
        return None


def _report(arrival: Arrival, kept: tuple[str, bool] | None, as_json: bool, before: str | None) -> None:
    parcel = arrival.parcel
    name = f"{arrival.namespace}/{arrival.slug}"
    if as_json:
        print_json(
            {
                "name": kept[0] if kept else name,
                "kept": kept is not None,
                "accepted": kept[1] if kept else False,
                "hash": parcel.recipe.hash(),
                "parents": parcel.parents,
                "place": arrival.remote.address,
                "commit": arrival.snapshot.commit,
                "moved_to": arrival.snapshot.moved_to,
                "claims": len(parcel.evidence),
                "warnings": arrival.warnings,
                "changed": before is not None and before != parcel.toml,
                "toml": parcel.toml,
            }
        )
        return
    print(f"{name} from {arrival.remote.address.partition(':')[2]}, commit {arrival.snapshot.commit[:12]}")
    if before is not None and before != parcel.toml:
        print("\nWhat is new in it:\n")
        lines = difflib.unified_diff(before.splitlines(), parcel.toml.splitlines(), "before", "now", lineterm="", n=1)
        print("\n".join(clean(line) for line in lines))
    elif kept is None:
        print(f"\n{clean(parcel.toml).rstrip()}\n")
    for each in arrival.warnings:
        print(paragraph(f"Note: {each}"))
    if parcel.evidence:
        print(paragraph(f"Its maker claims {len(parcel.evidence)} results; they stand with it as claims."))
    if kept and not kept[1]:
        print(
            paragraph(f"It is a stranger's: `tunewright recipes show {name}`, then `tunewright recipes accept {name}`.")
        )


def _search(text: str, as_json: bool) -> int:
    from ...recipes.hub import search

    found = search(text)
    if as_json:
        print_json(
            {"found": [{"name": e.name, "commit": e.commit, "tags": e.tags, "changed": e.changed} for e in found]}
        )
    elif found:
        rows = [(each.name, each.changed, " ".join(each.tags)[:60]) for each in found]
        print(render_table(("REPOSITORY", "CHANGED", "TAGS"), rows))
        print("`tunewright recipes pull REPOSITORY --dry-run` shows what is in one.")
    else:
        print("The Hub has no such recipe.")
    return 0
