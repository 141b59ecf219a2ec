"""`tunewright fetch NAME`: a model or a data set from the Hub, gone on with where it broke off."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..engine.hub.errors import require_space
from ..engine.hub.fetching import FetchPlan, FetchProgress, fetch, plan_fetch, plan_from_cache
from ..engine.hub.needs import Need, needs_of
from ..engine.sources import cached_snapshot
from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from ..foundation.units import size
from ..recipes.model import Recipe
from ..tui.figures import duration, plural
from .parser import print_json
from .table import render_table

LINES = 20
"""Into a pipe goes about this many lines of progress."""
JSON_SECONDS = 1.0
NARROWEST_BAR, WIDEST_BAR = 8, 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "name", metavar="NAME", help="owner/name, or owner/name@revision; of a data set also owner/name:configuration"
    )
    parser.add_argument(
        "--dataset", action="store_true", help="NAME is a data set; otherwise it is a model or an adapter"
    )
    parser.add_argument("--revision", metavar="R", help="a branch, a tag or a commit; main when left out")
    parser.add_argument("--split", default="train", help="the split of the data set (train)")
    parser.add_argument(
        "--description", action="store_true", help="of a model only what planning needs, not the weights"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and fetch nothing")
    parser.add_argument("--json", action="store_true", help="print lines of JSON: the plan, the progress, what is here")
    parser.epilog = (
        "What has arrived stays when it is ended or the line breaks; the same command goes on. "
        "HF_HOME names the folder, HF_ENDPOINT a mirror, HF_TOKEN or `hf auth login` the account."
    )


def run(arguments: argparse.Namespace) -> int:
    """Fetch what `arguments` ask for and return the exit status."""
    kind = "dataset" if arguments.dataset else "model"
    plan = plan_fetch(arguments.name, kind, arguments.revision, arguments.split)
    if arguments.description:
        plan = plan.description
    if arguments.json:
        print_json({"plan": values_of(plan, with_files=arguments.dry_run)})
    elif arguments.dry_run:
        print(f"{plan_text(plan)}\n\n{files_text(plan)}")
    else:
        print(plan_text(plan))
    if arguments.dry_run:
        return 0
    folder = bring(plan, arguments.json)
    if arguments.json:
        print_json({"fetched": {**values_of(plan, with_files=False), "folder": str(folder)}})
    else:
        print(f"{plan.name} is whole in {folder}")
    return 0


def bring(plan: FetchPlan, as_json: bool = False) -> Path:
    """Fetch what `plan` lists, telling how far it is, and return the folder; raises TunewrightError and KeyboardInterrupt."""
    tell = _json_lines() if as_json else _live_line(sys.stderr) if sys.stderr.isatty() else _plain_lines(sys.stderr)
    try:
        folder = fetch(plan, tell if plan.missing_bytes else lambda progress: None)
    except KeyboardInterrupt:
        if not as_json:
            print("\nStopped. What has arrived stays; the same command goes on.", file=sys.stderr)
        raise
    assert folder is not None, "nobody cancels"
    return folder


def values_of(plan: FetchPlan, with_files: bool) -> dict[str, Any]:
    """Return `plan` as JSON."""
    values: dict[str, Any] = {
        "name": str(plan.name), "kind": plan.kind, "commit": plan.commit, "host": plan.host, "split": plan.split,
        "files": len(plan.files), "missing_files": plan.missing_files, "total_bytes": plan.total_bytes,
        "missing_bytes": plan.missing_bytes, "free_bytes": plan.free_bytes,
    }  # fmt: skip
    if with_files:
        values["file_list"] = [{"path": each.path, "bytes": each.size_bytes} for each in plan.files]
    return values


def plan_text(plan: FetchPlan) -> str:
    """Return what fetching takes, in three lines."""
    here = f"; {size(plan.here_bytes)} of it is here" if plan.here_bytes else ""
    return (
        f"{plan.name} from {plan.host}, commit {plan.commit[:12]}\n"
        f"  {plural(len(plan.files), 'file')}, {size(plan.total_bytes)}{here}\n"
        f"  into {plan.repository.folder.parent}, which has {size(plan.free_bytes)} free"
    )


def files_text(plan: FetchPlan) -> str:
    """Return the files of `plan`, with what is here already."""
    rows = [(each.path, size(each.size_bytes), "here" if plan.repository.is_here(each) else "") for each in plan.files]
    return render_table(("FILE", "SIZE", ""), rows, right=(1,))


def progress_text(progress: FetchProgress, width: int) -> str:
    """Return how far a transfer is on one line of `width` cells."""
    share = progress.done_bytes / progress.total_bytes if progress.total_bytes else 1.0
    left = f"{duration(progress.seconds_left)} left" if progress.seconds_left is not None else "waiting"
    words = f"{100 * share:3.0f} %  {size(progress.done_bytes)} of {size(progress.total_bytes)}"
    if progress.done_bytes < progress.total_bytes:
        words += f"  {one_line(progress.note, 80) or f'{size(progress.bytes_per_second)}/s  {left}'}"
    room = min(WIDEST_BAR, width - len(words) - 2)
    if room >= NARROWEST_BAR:
        filled = round(share * room)
        words = f"{'━' * filled}{'─' * (room - filled)}  {words}"
    return words[: max(1, width - 1)]


def _live_line(stream: TextIO) -> Callable[[FetchProgress], None]:
    """Return what rewrites one line of a terminal."""

    def tell(progress: FetchProgress) -> None:
        width = shutil.get_terminal_size((80, 24)).columns
        end = "\n" if progress.done_files == progress.files else ""
        stream.write(f"\r\x1b[K{progress_text(progress, width)}{end}")
        stream.flush()

    return tell


def _plain_lines(stream: TextIO) -> Callable[[FetchProgress], None]:
    """Return what prints a line whenever enough has arrived."""
    told = -1

    def tell(progress: FetchProgress) -> None:
        nonlocal told
        part = LINES * progress.done_bytes // max(1, progress.total_bytes)
        if part > told:
            told = part
            print(progress_text(progress, 79), file=stream, flush=True)

    return tell


def _json_lines() -> Callable[[FetchProgress], None]:
    """Return what prints the progress as JSON, once a second and at the end."""
    told = 0.0

    def tell(progress: FetchProgress) -> None:
        nonlocal told
        if time.monotonic() - told >= JSON_SECONDS or progress.done_files == progress.files:
            told = time.monotonic()
            values = {name: getattr(progress, name) for name in FetchProgress.__slots__}
            print_json({"progress": values})

    return tell


def make_plannable(recipe: Recipe, allowed: bool, run_follows: bool = True) -> tuple[FetchPlan, ...]:
    """Fetch what planning `recipe` needs, and return what its run needs beyond that.

    The configuration and the tokenizer of a model are small and fetched without a question; where they are here and no
    run follows, the Hub is not asked. Data sets and adapters have to be here whole: they are asked for on a terminal,
    unless that was `allowed`; elsewhere TunewrightError names the command.
    """
    plans = {each: _plan(each, run_follows) for each in needs_of(recipe)}
    whole = {each: plan for each, plan in plans.items() if plan.kind == "dataset" or plan.is_adapter}
    for plan in plans.values():
        if run_follows or not plan.description.is_whole:
            print(plan_text(plan), file=sys.stderr)
    _permit([*whole.values()], [each.command for each in whole], allowed, "so that the run can be planned")
    for need, plan in plans.items():
        bring(plan if need in whole else plan.description)
    return tuple(plan.anew for plan in plans.values() if not plan.is_whole)


def _plan(need: Need, run_follows: bool) -> FetchPlan:
    """Return what fetching takes, from what is kept here where a model can be planned for by that."""
    known = plan_from_cache(need.name, need.revision) if need.kind == "model" and not run_follows else None
    if known is not None and known.description.is_whole and not known.is_adapter:
        return known
    return plan_fetch(need.name, need.kind, need.revision, need.split)


def describe_model(name: str) -> None:
    """Fetch the configuration and the tokenizer of a model on the Hub, unless they are here."""
    if cached_snapshot("model", name) is None:
        bring(plan_fetch(name).description)


def fetch_rest(plans: tuple[FetchPlan, ...], allowed: bool) -> None:
    """Fetch the weights that a run needs; raises TunewrightError where that was neither allowed nor agreed to."""
    _permit(plans, [f"tunewright fetch {plan.name}" for plan in plans], allowed, "and start the run")
    for plan in plans:
        bring(plan)


def waiting_text(plans: tuple[FetchPlan, ...]) -> str:
    """Return what a run still needs from the Hub."""
    return "\n".join(
        f"Still to be fetched from {plan.host}: {plan.name}, {size(plan.missing_bytes)}; "
        f"{size(plan.free_bytes)} are free in {plan.repository.folder.parent}."
        for plan in plans
    )


def _permit(plans: Sequence[FetchPlan], commands: list[str], allowed: bool, purpose: str) -> None:
    """Return when fetching `plans` is allowed, after asking on a terminal; raises TunewrightError."""
    needed = sum(plan.missing_bytes for plan in plans)
    if not plans:
        return
    require_space(needed, plans[0].free_bytes, plans[0].name)
    names = " and ".join(str(plan.name) for plan in plans)
    what = f"{size(needed)} of {names} from {plans[0].host}"
    if allowed or needed == 0:
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"Fetch {what} {purpose}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    listed = " and ".join(f"`{each}`" for each in commands)
    raise TunewrightError("Not here yet", f"This needs {what}.", f"Add --fetch, or fetch first: {listed}.")
