"""What the library says of recipes, beside the recipe itself: evidence, differences, history, and what is to be sent or kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.content import Content

from ...foundation.text import clean, one_line
from ..figures import duration, plural

if TYPE_CHECKING:
    from pathlib import Path

    from ...engine.fitting import Fit
    from ...recipes.comparing import Difference
    from ...recipes.finding import Found
    from ...recipes.interchange.conversion import Exported
    from ...recipes.interchange.ledger import Imported
    from ...recipes.records import Edition
    from ...recipes.sharing import Arrival, Shipment


def evidence_text(found: Found) -> Content:
    """Return what is known of a recipe, in a line or two."""
    from ...recipes.finding import GRADE_WORDS

    if not found.accepted:
        return Content.styled("A stranger's: read it, then a accepts it.\n", "bold $warning")
    tally = found.tally
    counts = ", ".join(
        f"{number} {word}"
        for number, word in (
            (tally.replicated, "replicated"), (tally.published, "published"), (tally.finished, "finished here"),
            (tally.smoke, "tried here"), (tally.failed, "failed here"), (tally.claims, "claimed by strangers"),
        )
        if number
    )  # fmt: skip
    tier = f" (tier {found.tier})" if found.tier else ""
    return Content.assemble(
        ("known ", "$muted"), GRADE_WORDS[found.grade], tier, (f": {counts}" if counts else "", "$muted"), "\n"
    )


def differences_text(found: tuple[Difference, ...], costs: tuple[Fit, Fit] | None) -> Content:
    """Return what differs between two recipes and what each difference does, with what both take here."""
    text = Content("")
    for each in found:
        if each.changes_result:
            text += Content.assemble(
                (each.path, "bold"), f"  {each.before} → {each.after}\n", (f"  {each.effect}\n\n", "$muted")
            )
    words = [each.path for each in found if not each.changes_result]
    if words:
        text += Content.styled(f"Of no effect on what is trained: {', '.join(words)}.\n", "$muted")
    if not found:
        text += Content("They mean the same.\n")
    if costs and costs[0].peak_gib and costs[1].peak_gib and costs[0].step_seconds and costs[1].step_seconds:
        text += Content(
            f"\nPredicted here: {costs[0].peak_gib:.2f} → {costs[1].peak_gib:.2f} GiB, "
            f"{duration(costs[0].step_seconds)} → {duration(costs[1].step_seconds)} a step on rows of full length."
        )
    return text


def history_text(editions: list[Edition], names: dict[str, str | None]) -> Content:
    """Return every edition of a recipe with its note, its ancestors by their names, and its evidence."""
    text = Content("")
    for each in editions:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created))
        text += Content.assemble((each.hash[:12], "bold"), f"  {made}{'  the present one' if each.current else ''}\n")
        if each.note:
            text += Content(f"  {one_line(each.note, 500)}\n")
        for parent, kind in each.parents:
            text += Content.styled(
                f"  {kind} of {names.get(parent) or 'a recipe that is not here'} ({parent[:12]})\n", "$muted"
            )
        counts = ", ".join(f"{number} {status}" for status, number in each.evidence.items())
        text += Content.styled(f"  evidence: {counts or 'none'}\n\n", "$muted")
    return text


def shipment_text(shipment: Shipment) -> str:
    """Return every byte that would be sent, where to, and what speaks against it."""
    parts = [f"To {one_line(shipment.remote.address.partition(':')[2], 200)}."]
    parts += [f"Note: {each}" for each in shipment.warnings]
    parts += [f"NOT SENT: {each.file}, line {each.line}, looks like a secret ({each.kind})." for each in shipment.leaks]
    if shipment.unchanged:
        parts.append("The very same is there already.")
    for name, content in shipment.files.items():
        parts.append(
            f"──── {name}, {plural(len(content), 'byte')}\n{clean(content.decode('utf-8', 'replace')).rstrip()}"
        )
    return "\n\n".join(parts)


def arrival_text(arrival: Arrival) -> str:
    """Return what was pulled, before it is kept."""
    head = f"{arrival.namespace}/{arrival.slug} at commit {arrival.snapshot.commit[:12]}"
    claims = len(arrival.parcel.evidence)
    parts = [
        head,
        *arrival.warnings,
        f"Its maker claims {plural(claims, 'result')}." if claims else "",
        arrival.parcel.toml,
    ]
    return "\n\n".join(filter(None, parts))


def account_text(imported: Imported) -> Content:
    """Return what became of every key of another tool's file: warnings, what was dropped, what that tool's defaults are, and what was taken."""
    from ...recipes.interchange.ledger import account_of

    mapped, defaulted, dropped = account_of(imported)
    text = Content.assemble(
        ("Read as a configuration of ", "$muted"), imported.format,
        (f": {len(mapped)} keys taken, {len(defaulted)} by default, {len(dropped)} dropped.\n", "$muted"),
    )  # fmt: skip
    for warning in imported.warnings:
        text += Content.assemble(("! ", "$warning"), one_line(warning, 600), "\n")
    if dropped:
        text += Content.styled("\nDropped\n", "bold $accent")
        for key, there, why in dropped:
            text += Content.assemble((f"{key} = {there}", "bold"), (f"  {why}\n", "$muted"))
    if defaulted:
        text += Content.styled("\nNot in the file\n", "bold $accent")
        for field, here, why in defaulted:
            text += Content.assemble((f"{field} = {here or '—'}", "bold"), (f"  {why}\n", "$muted"))
    if mapped:
        text += Content.styled("\nTaken\n", "bold $accent")
        for key, there, field, here in mapped:
            text += Content.assemble((f"{key} = {there}", "$muted"), " → ", (f"{field} = {here or '—'}\n", "bold"))
    return text


def export_text(exported: Exported, path: Path | None) -> Content:
    """Return a recipe as another tool reads it, below what this does not carry."""
    text = Content("")
    if path is not None:
        there = ", in the place of what is there now" if path.exists() else ""
        text += Content(f"To {one_line(str(path), 300)}{there}.\n")
    for warning in exported.warnings:
        text += Content.assemble(("! ", "$warning"), one_line(warning, 600), "\n")
    return text + "\n" + clean(exported.text).rstrip()
