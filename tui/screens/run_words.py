"""A run in words: what the monitor's panes say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from textual.content import Content

from ...engine.runs.directory import RunDirectory
from ...engine.runs.events import Notice, Sample
from ...foundation.text import clean, one_line
from ...recipes.model import LoraMethod, Recipe
from ..figures import clock, count, duration, gib, share
from ..run_state import RunState
from ..standing import FACES, face
from ..widgets.bar import bar
from ..wrapping import hanging

SHOWN_SAMPLES = 24
SHOWN_CHARACTERS = 1200
_LEVELS = {"info": ("i", "accent"), "warning": ("!", "warning"), "error": ("✗", "error")}


def run_name(run: RunDirectory) -> str:
    """Return the run's id, safe to show."""
    return one_line(run.id, 60)


def method_words(recipe: Recipe) -> str:
    """Return the method with what matters of it, such as `qlora r16`."""
    method = recipe.method
    return f"{method.kind} r{method.rank}" if isinstance(method, LoraMethod) else method.kind


def head(state: RunState, width: int) -> Content:
    """Return the two lines above everything: how the run stands, and how far it is."""
    elapsed, left = state.elapsed(), state.history.seconds_left()
    times = [f"{duration(elapsed)} elapsed"] if elapsed is not None else []
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
    said = Content.assemble((f"{name}", "bold"), f"  {detail}" if detail else "")
    if done is None or not total:
        return said.truncate(width, ellipsis=True)
    percent = f" {share(done / total):>5}"
    room = width - said.cell_length - len(percent) - 2
    if room < 8:
        return (said + percent).truncate(width, ellipsis=True)
    return said + "  " + bar(done / total, room) + percent


def facts(state: RunState) -> Content:
    """Return what was predicted beside what was measured."""
    prediction = state.plan.prediction if state.plan else None
    history = state.history
    rows: list[tuple[str, str, str]] = []
    peak = state.peak_gib
    total = history.measured.get("total_seconds") or (None if state.live else state.elapsed())
    pace = history.measured.get("tokens_per_second") or history.tokens_per_second()
    rows.append(("peak memory", gib(prediction.peak_gib if prediction else None), gib(peak)))
    rows.append(("time", duration(prediction.total_seconds if prediction else None), duration(total)))
    rows.append(("tokens/s", count(prediction.tokens_per_second if prediction else None), count(pace)))
    lines = [Content.styled(f"{'':<12}{'predicted':>9} {'measured':>9}", "$muted")]
    lines += [
        Content.assemble((f"{name:<12}", "$muted"), f"{said:>9} ", (f"{measured:>9}", "bold"))
        for name, said, measured in rows
    ]
    before, after = history.exact_match_before, history.exact_match_after
    if before is not None or after is not None:
        lines.append(
            Content.assemble(
                ("exact match ", "$muted"),
                f"{share(before):>9} ",
                (("" if after is None else f"→ {share(after)}").rjust(9), "bold"),
            )
        )
    if history.checkpoints:
        last = history.checkpoints[-1]
        lines.append(
            Content.assemble(
                ("checkpoint  ", "$muted"), f"{f'step {last.step:,}':>9} {gib(last.size_bytes / 2**30):>9}"
            )
        )
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
        load = gpu.utilisation_percent
        aside = [f"{gpu.temperature_celsius:.0f} °C" if gpu.temperature_celsius is not None else ""]
        aside.append(f"{gpu.power_watts:.0f} W" if gpu.power_watts is not None else "")
        name = f"GPU {index}"
        lines.append(_gauge(f"{name:<6}", (load or 0) / 100, length, f"{load or 0:.0f} % busy", None))
        lines.append(
            _gauge("  mem ", used, length, f"{gpu.memory_used_gib:.1f} of {gpu.memory_total_gib:.0f} GiB", mark)
        )
        if any(aside):
            lines.append(Content.styled("       " + "  ".join(filter(None, aside)), "$muted"))
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


def _gauge(name: str, used: float, width: int, said: str, mark: float | None) -> Content:
    return Content.assemble((f"{name} ", "$muted"), bar(used, width, mark=mark), f" {said}")


def samples(found: Iterable[Sample], width: int) -> Content:
    """Return what the model answered, the latest first; right and wrong have a glyph and a colour."""
    blocks: list[Content] = []
    for sample in list(found)[: -SHOWN_SAMPLES - 1 : -1]:
        prompt = Content.styled(one_line(sample.prompt, SHOWN_CHARACTERS), "$muted")
        completion = clean(sample.completion, SHOWN_CHARACTERS).strip() or "(nothing)"
        reference = clean(sample.reference, SHOWN_CHARACTERS).strip()
        block = hanging(Content.styled(f"step {sample.step:,}  ", "$accent"), prompt, width) + "\n"
        if not reference:
            block += hanging(Content("› "), Content(completion), width)
        elif completion == reference:
            block += hanging(Content.styled("✓ ", "$success"), Content(completion), width)
        else:
            same = _same_start(completion, reference)
            answer = Content.assemble(completion[:same], (completion[same:], "underline $error"))
            block += hanging(Content.styled("✗ ", "$error"), answer, width) + "\n"
            block += hanging(Content.styled("= ", "$muted"), Content.styled(reference, "$muted"), width)
        blocks.append(block + "\n")
    if not blocks:
        return Content.styled("The model answers fixed prompts as it learns.", "$muted")
    return Content("\n").join(blocks)


def _same_start(one: str, other: str) -> int:
    """Return how many characters the two begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


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
