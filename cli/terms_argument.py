"""Terms as arguments: when a run starts, and how it treats others on its machine."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..engine.runs.terms import Terms


def add_terms(parser: argparse.ArgumentParser, again: bool = False) -> None:
    """Add what can be said about a run's start beside others; `again` for a run that has terms, which it keeps to."""
    parser.add_argument(
        "--queue", action="store_true", help="begin when no other run holds its cards (or the processor), in turn"
    )
    parser.add_argument("--wait", action="store_true", help="begin when the memory of its plan is free")
    parser.add_argument(
        "--wait-at-most", type=float, metavar="HOURS", help="give up after so long; waits for memory by itself"
    )
    parser.add_argument(
        "--nice", type=int, metavar="N", help="give way to other programs, on the processor and the disk: 0 to 19"
    )
    parser.add_argument(
        "--watch-preemption",
        action="store_true",
        help="ask the cloud for warnings that it takes the machine back, though this does not look like a cloud's",
    )
    if again:
        parser.add_argument("--now", action="store_true", help="begin at once, though it was started to wait")


def wished_terms(arguments: argparse.Namespace, before: Terms) -> Terms:
    """Return the terms that `arguments` ask for, the rest as `before`; raises TunewrightError for what makes no sense."""
    if getattr(arguments, "now", False):
        before = replace(before, queue=False, wait_for_memory=False)
    terms = replace(
        before,
        queue=before.queue or arguments.queue,
        wait_for_memory=before.wait_for_memory or arguments.wait,
        watch_preemption=before.watch_preemption or arguments.watch_preemption,
    )
    if arguments.wait_at_most is not None:
        alone = not terms.queue
        terms = replace(
            terms, wait_at_most_hours=arguments.wait_at_most, wait_for_memory=terms.wait_for_memory or alone
        )
    return terms if arguments.nice is None else replace(terms, nice=arguments.nice)


def when_told(terms: Terms) -> str:
    """Return when a run begins under `terms`, to stand at the end of a sentence; nothing where it does at once."""
    return ", once its turn has come" if terms.queue else ", once its memory is free" if terms.waits else ""
