"""A run in words: what the monitor's panes say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from textual.content import Content

from ...engine.runs.directory import RunDirectory
from ...engine.runs.events import Notice
from ...foundation.text import clean, one_line
from ...foundation.units import GIB, gib
from ..figures import clock, count, duration, share
from ..run_state import RunState
from ..standing import FACES, face
from ..widgets.bar import bar
from ..wrapping import hanging

if TYPE_CHECKING:
    from ...recipes.model import Recipe

_LEVELS = {"info": ("i", "accent"), "warning": ("!", "warning"), "error": ("✗", "error")}


def run_name(run: RunDirectory) -> str:
    """Return the run's id, safe to show."""
    return one_line(run.id, 60)


def method_words(recipe: Recipe) -> str:
    """Return the method with what matters of it, such as `qlora r16`."""
    method = recipe.method
    return method.kind if method.kind == "full" else f"{method.kind} r{method.rank}"


def head(state: RunState, width: int) -> Content:
    """Return the two lines above everything: how the run stands, and how far it is."""
    elapsed, left = state.elapsed(), state.history.seconds_left()
    times = [f"{duration(elapsed)} elapsed"] if elapsed is not None else []
    if state.wait is not None:
        times = [f"waits for {duration(max(0.0, state.now() - state.wait.since))}"]
    elif (
        not state.history.steps and state.plan is not None and state.plan.prediction is not None and elapsed is not None
    ):
        left = max(0.0, state.plan.prediction.total_seconds - elapsed)
    if left and state.live:
        times.append(f"{duration(left)} left")
    aside = Content.styled(" · ".join(times), "$muted")
    stands = face(state.standing)
    words = _what(state)
    # The times must stay; of the words, the last make room.
    while words and stands.cell_length + len(" · ".join(words)) + aside.cell_length + 4 > width:
        words.pop()
    first = Content.assemble(stands, (f"  {' · '.join(words)}", "bold"))
    first = first.pad_right(max(1, width - first.cell_length - aside.cell_length)) + aside
    return Content("\n").join([first.truncate(width, ellipsis=True), _progress(state, width)])


def _what(state: RunState) -> list[str]:
    if state.recipe is None:
        return []
    recipe = state.recipe
    return [
        word
        for word in (one_line(recipe.card.title, 60), method_words(recipe), one_line(recipe.base.model, 60))
        if word
    ]


def _progress(state: RunState, width: int) -> Content:
    """Return the phase and its bar; for an ended run, why it ended."""
    history = state.history
    if state.share_read < 1:
        return Content.assemble(
            ("reading its history ", "$muted"), bar(state.share_read, 20), f" {share(state.share_read)}"
        )
    if not state.live:
        reason = one_line(history.reason, 200) or FACES[state.standing].meaning
        steps = f"step {history.step:,} of {state.total_steps:,}"
        return Content.assemble(steps, (f" · {reason}", "$muted")).truncate(width, ellipsis=True)
    if state.wait is not None:
        place = f"{state.wait.short} · " if state.wait.place else ""
        return Content.assemble((place, "bold"), state.wait.said).truncate(width, ellipsis=True)
    phase = history.phase
    name = phase.name if phase else "starting"
    done: float | None
    if name == "training" or (phase and phase.total is None and history.steps and name in ("evaluating", "saving")):
        done, total = float(history.step), float(state.total_steps)
        detail = f"step {history.step:,} of {state.total_steps:,}"
        if history.steps:
            detail += f" · epoch {history.steps[-1].epoch:.2f}"
    else:
        done, total = (phase.done, phase.total) if phase else (None, None)
        detail = f"{done:,.0f} of {total:,.0f}" if done is not None and total else ""
        if phase and phase.detail:
            detail = f"{one_line(phase.detail, 60)} {detail}".strip()
        if (still := history.phase_seconds_left(state.now())) is not None:
            detail += f" · {duration(still)} left"
        elif history.phase_started is not None and not history.steps:
            detail = f"{detail} · {duration(max(0.0, state.now() - history.phase_started))}".removeprefix(" · ")
    said = Content.assemble((f"{name}", "bold"), f"  {detail}" if detail else "")
    if done is None or not total:
        return said.truncate(width, ellipsis=True)
    percent = f" {share(done / total):>5}"
    room = width - said.cell_length - len(percent) - 2
    if room < 8:
        return (said + percent).truncate(width, ellipsis=True)
    return said + "  " + bar(done / total, room) + percent


FULL_GAUGES = 2
"""More GPUs than this have a line each: the bar is the memory's."""
FACTS = (
    "peak memory",
    "allocated",
    "time",
    "tokens/s",
    "MFU",
    "exact match",
    "preferred",
    "first step",
    "reserved",
    "checkpoint",
    "resumed",
)
"""What is compared, what matters most first."""


def facts(state: RunState, most: int = len(FACTS)) -> Content:
    """Return what was predicted beside what was measured, in at most so many rows."""
    prediction = state.plan.prediction if state.plan else None
    history = state.history
    rows: list[tuple[str, str, str]] = []
    total = history.measured.get("total_seconds") or (None if state.live else state.elapsed())
    pace = history.measured.get("tokens_per_second") or history.tokens_per_second()
    first = history.measured.get("seconds_to_first_step")
    on_gpu = state.plan is not None and state.plan.device == "cuda"
    rows.append(
        (
            "allocated" if on_gpu else "peak memory",
            gib(prediction.peak_gib if prediction else None),
            gib(state.peak_gib),
        )
    )
    if on_gpu:
        reserved = history.steps[-1].reserved_gib if history.steps else None
        rows.append(("reserved", gib(prediction.reserved_gib if prediction else None), gib(reserved or None)))
    rows.append(("time", duration(prediction.total_seconds if prediction else None), duration(total)))
    rows.append(("tokens/s", count(prediction.tokens_per_second if prediction else None), count(pace)))
    if (mfu := history.mfu()) is not None:
        rows.append(("MFU", "", share(mfu, 1)))
    if first is not None:
        rows.append(("first step", duration(prediction.seconds_to_first_step if prediction else None), duration(first)))
    before, after = history.exact_match_before, history.exact_match_after
    if before is not None or after is not None:
        rows.append(("exact match", share(before), "" if after is None else f"→ {share(after)}"))
    if len(state.curves.preferred):
        held_out = state.curves.preferred_held_out.last
        value = held_out if held_out is not None else state.curves.preferred.last
        rows.append(("preferred", "", share(value / 100 if value is not None else None)))
    if history.checkpoints:
        last = history.checkpoints[-1]
        rows.append(("checkpoint", f"step {last.step:,}", gib(last.size_bytes / GIB)))
    if resumed := history.continuity:
        how = f"± {resumed.largest_difference:.0e}" if resumed.largest_difference else "exactly"
        rows.append(("resumed", f"step {resumed.step:,}", how))
    shown = sorted(rows, key=lambda row: FACTS.index(row[0]))[:most]
    lines = [Content.styled(f"{'':<12}{'predicted':>9} {'measured':>9}", "$muted")]
    lines += [
        Content.assemble((f"{name:<12}", "$muted"), f"{said:>9} ", (f"{measured:>9}", "bold"))
        for name, said, measured in rows
        if (name, said, measured) in shown
    ]
    return Content("\n").join(lines)


def gauges(state: RunState, width: int) -> Content:
    """Return each GPU's load and memory, or the processor's; the mark is the predicted peak."""
    history, lines = state.history, list[Content]()
    prediction = state.plan.prediction if state.plan else None
    length = max(6, width - 24)
    for index in sorted(history.gpus):
        gpu = history.gpus[index]
        mark = prediction.peak_gib / gpu.memory_total_gib if prediction and gpu.memory_total_gib else None
        used = gpu.memory_used_gib / gpu.memory_total_gib if gpu.memory_total_gib else 0
        load = gpu.utilisation_percent or 0
        held = f"{gpu.memory_used_gib:.1f} of {gpu.memory_total_gib:.0f} GiB"
        if len(history.gpus) > FULL_GAUGES:
            slowed = Content.styled(" !", "$warning") if gpu.throttled_by else Content("")
            said = f"{load:>3.0f} %  {gpu.memory_used_gib:.0f} GiB" + _told(gpu.power_watts, "  {:.0f} W")
            lines.append(_gauge(f"GPU {index:<2}", used, max(6, width - 31), said, mark) + slowed)
            continue
        lines.append(_gauge(f"{f'GPU {index}':<6}", load / 100, length, f"{load:.0f} % busy", None))
        lines.append(_gauge("  mem ", used, length, held, mark))
        aside = [
            _told(gpu.temperature_celsius, "{:.0f} °C"),
            _told(gpu.power_watts, "{:.0f} W"),
            _told(gpu.clock_mhz, "{:,.0f} MHz"),
        ]
        if any(aside):
            lines.append(Content.styled("       " + "  ".join(filter(None, aside)), "$muted"))
        if gpu.throttled_by:
            lines.append(Content.styled(f"       ! slowed by {one_line(gpu.throttled_by, 40)}", "$warning"))
    if history.cpu is not None and not history.gpus:
        cores = state.plan.threads if state.plan else 1
        busy = history.cpu.utilisation_percent / 100
        lines.append(_gauge("CPU   ", busy / max(1, cores), length, f"{busy:.1f} of {cores} cores", None))
        most = max(prediction.peak_gib if prediction else 0, state.peak_gib or 0, history.cpu.memory_gib) * 1.25
        mark = prediction.peak_gib / most if prediction and most else None
        used = history.cpu.memory_gib
        lines.append(_gauge("mem   ", used / most if most else 0, length, f"{gib(used)}", mark))
        if mark is not None and prediction is not None:
            lines.append(Content.styled(f"       ┃ predicted peak {gib(prediction.peak_gib)}", "$muted"))
    return Content("\n").join(lines) if lines else Content.styled("No sample yet.", "$muted")


def _told(value: float | None, form: str) -> str:
    """Return `value` in the given form, nothing where the driver does not tell it."""
    return "" if value is None else form.format(value)


def _gauge(name: str, used: float, width: int, said: str, mark: float | None) -> Content:
    return Content.assemble((f"{name} ", "$muted"), bar(used, width, mark=mark), f" {said}")


LOST = Notice(
    time=0.0,
    level="error",
    title="The run's processes are gone",
    message="They ended without a word: the machine went down, or they were killed.",
    remedy="Press r to go on from the last good checkpoint.",
)


def notices(state: RunState, width: int) -> Content:
    """Return what people should know, the latest first."""
    blocks: list[Content] = []
    found = [
        *state.history.notices,
        *([replace(LOST, time=state.history.last_event)] if state.standing == "lost" else []),
    ]
    for notice in reversed(found):
        glyph, colour = _LEVELS.get(notice.level, _LEVELS["info"])
        title = Content.assemble(
            (one_line(notice.title, 200), f"bold ${colour}"), (f"  {clock(notice.time)}", "$muted")
        )
        block = hanging(Content.styled(f"{glyph} ", f"bold ${colour}"), title, width) + "\n"
        block += hanging(Content("  "), Content(clean(notice.message, 4000).strip()), width) + "\n"
        if notice.remedy:
            remedy = Content(clean(notice.remedy, 1000).strip())
            block += hanging(Content.styled("→ ", "$accent"), remedy, width) + "\n"
        blocks.append(block)
    return Content("\n").join(blocks) if blocks else Content.styled("Nothing to tell.", "$muted")
