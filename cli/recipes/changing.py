"""`tunewright recipes fork`, `edit`, `note`, `alias`, `accept` and `remove`: recipes of one's own."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text, write_atomically
from ...foundation.home import home
from ...foundation.text import one_line
from ...recipes.comparing import differences
from ...recipes.editing import change_text, keep_edition, keep_fork, read_change, require_own
from ...recipes.model import LARGEST_RECIPE_BYTES, parse_recipe
from ...recipes.records import Entry
from ...recipes.registry import open_registry
from ..parser import add_json, print_json

EDITORS = ("nano", "vim", "vi", "emacs")


def configure_fork(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fork`."""
    parser.add_argument("recipe", metavar="NAME", help="the recipe that it is made from: a name, or a part of its hash")
    parser.add_argument("new", metavar="NEW", help="its name: small letters, digits, dots, dashes and underscores")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="changes",
        help="change a value, such as training.epochs=3; may be given several times",
    )  # fmt: skip
    parser.add_argument("--note", metavar="TEXT", default="", help="why it was made, for its history")
    add_json(parser)


def configure_edit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edit`."""
    parser.add_argument("recipe", metavar="NAME", help="a recipe of one's own")
    parser.add_argument("--note", metavar="TEXT", default="", help="why it was changed, for its history")
    parser.epilog = (
        "$VISUAL or $EDITOR is opened. A text that is not valid is kept as a draft, which the next edit opens."
    )
    add_json(parser)


def configure_note(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `note`."""
    parser.add_argument("recipe", metavar="NAME")
    parser.add_argument("text", metavar="TEXT")
    add_json(parser)


def configure_alias(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `alias`."""
    parser.add_argument(
        "alias", metavar="ALIAS", help="the second name, such as best-so-far; it is moved if it is there"
    )
    parser.add_argument("recipe", metavar="NAME", help="the recipe whose present edition it names from now on")
    add_json(parser)


def configure_accept(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `accept`."""
    parser.add_argument("recipe", metavar="OWNER/NAME")
    add_json(parser)


def configure_remove(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `remove`."""
    parser.add_argument("recipe", metavar="NAME", help="a recipe of one's own, or one that was pulled")
    parser.add_argument("--undo", action="store_true", help="put it back into the lists")
    add_json(parser)


def run_fork(arguments: argparse.Namespace) -> int:
    """Make a recipe from another and return the exit status."""
    with open_registry() as registry:
        parent = registry.get(arguments.recipe)
        changes = [read_change(each) for each in arguments.changes]
        text = change_text(parent.toml, changes, arguments.new)
        note = arguments.note or f"Forked from {parent.name}" + (f": {', '.join(map(str, changes))}" if changes else "")
        made = keep_fork(registry, parent, text, arguments.new, note)
    found = differences(parent.recipe, made.recipe)
    if arguments.json:
        print_json(
            {
                "name": made.name,
                "hash": made.hash,
                "parent": {"name": parent.name, "hash": parent.hash},
                "note": note,
                "changed": [each.path for each in found],
            }
        )
        return 0
    print(f"{made.name} is a fork of {one_line(parent.name, 100)}.")
    for each in found:
        print(f"  {each.path}: {each.before} → {each.after}")
    print(f"`tunewright recipes edit {made.name}` changes it, `tunewright train {made.name}` runs it.")
    return 0


def run_edit(arguments: argparse.Namespace) -> int:
    """Open a recipe in the editor, keep what was written, and return the exit status."""
    with open_registry() as registry:
        entry = registry.get(arguments.recipe)
    require_own(entry)
    draft = _draft(entry)
    if not draft.exists():
        write_atomically(draft, entry.toml)
    while True:
        _edit(draft)
        text = read_text(draft, LARGEST_RECIPE_BYTES)
        try:
            parse_recipe(text, entry.name)
            break
        except TunewrightError as error:
            print(f"{error.title}\n  {error.message}", file=sys.stderr)
            if not sys.stdin.isatty() or not _agrees("Edit it again?"):
                raise TunewrightError(
                    "Not kept yet",
                    f"{error.message} What you wrote is in {draft}.",
                    f"`tunewright recipes edit {entry.name}` goes on with it; remove that file to begin anew.",
                ) from error
    with open_registry() as registry:
        changed = text != entry.toml
        made = entry
        if changed:
            made = keep_edition(registry, entry, text, arguments.note)
    draft.unlink(missing_ok=True)
    found = differences(entry.recipe, made.recipe)
    if arguments.json:
        print_json({"name": made.name, "hash": made.hash, "changed": [each.path for each in found], "kept": changed})
    elif not changed:
        print("Nothing was changed.")
    else:
        print(f"{made.name} has a new edition; `tunewright recipes history {made.name}` shows those before.")
        for each in found:
            print(f"  {each.path}: {each.before} → {each.after}")
    return 0


def _draft(entry: Entry) -> Path:
    """Return the file that holds what is being written, a name's own."""
    return home() / "drafts" / f"{entry.name.rpartition('/')[2]}.toml"


def _edit(path: Path) -> None:
    """Open the user's editor on `path` and wait until it is closed; raises TunewrightError where there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or next(filter(shutil.which, EDITORS), "")
    try:
        command = shlex.split(named)
        code = subprocess.run([*command, str(path)], check=False).returncode if command else None
    except (OSError, ValueError) as error:
        raise TunewrightError(
            "No editor", f"{one_line(named, 100)}: {error}.", "Set EDITOR to one, such as nano."
        ) from error
    if code is None:
        raise TunewrightError("No editor", "Neither VISUAL nor EDITOR names one.", "Set EDITOR to one, such as nano.")
    if code:
        raise TunewrightError(
            "The editor failed", f"{one_line(named, 100)} ended with status {code}.", f"What was written is in {path}."
        )


def _agrees(question: str) -> bool:
    try:
        return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def run_note(arguments: argparse.Namespace) -> int:
    """Keep a note and return the exit status."""
    with open_registry() as registry:
        entry = registry.set_note(arguments.recipe, arguments.text)
    if arguments.json:
        print_json({"name": entry.name, "hash": entry.hash, "note": one_line(arguments.text, 2000)})
    else:
        print(f"Noted with {one_line(entry.name, 100)}.")
    return 0


def run_alias(arguments: argparse.Namespace) -> int:
    """Set an alias and return the exit status."""
    with open_registry() as registry:
        registry.set_alias(arguments.alias, arguments.recipe)
        entry = registry.get(arguments.recipe)
    if arguments.json:
        print_json({"alias": arguments.alias, "name": entry.name, "hash": entry.hash})
    else:
        print(f"{arguments.alias} stands for {one_line(entry.name, 100)} as it is now ({entry.hash[:12]}).")
    return 0


def run_accept(arguments: argparse.Namespace) -> int:
    """Accept a stranger's recipe and return the exit status."""
    with open_registry() as registry:
        entry = registry.accept(arguments.recipe)
    if arguments.json:
        print_json({"name": entry.name, "hash": entry.hash, "accepted": entry.accepted})
    else:
        print(f"{one_line(entry.name, 100)} can be run now: `tunewright train {one_line(entry.name, 100)}`.")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Take a recipe out of the lists, or put it back, and return the exit status."""
    with open_registry() as registry:
        entry = (registry.restore if arguments.undo else registry.withdraw)(arguments.recipe)
    name = one_line(entry.name, 100)
    if arguments.json:
        print_json({"name": entry.name, "hash": entry.hash, "listed": arguments.undo})
    elif arguments.undo:
        print(f"{name} is listed again.")
    else:
        print(
            f"{name} is no longer listed; its history and evidence stay. `tunewright recipes remove --undo {name}` brings it back."
        )
    return 0
