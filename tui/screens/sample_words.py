"""What the model answered to its fixed prompts: one answer below the other, or side by side over the steps."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from ...engine.runs.events import Sample
from ...foundation.text import clean, one_line
from ..wrapping import hanging

SHOWN_SAMPLES = 24
SHOWN_CHARACTERS = 1200
COLUMN, GAP = 36, 2
"""The least cells of an answer beside others, and between two."""
MOST_COLUMNS = 5
NONE_YET = "The model answers fixed prompts as it learns."


def samples(found: Sequence[Sample], width: int) -> Content:
    """Return the answers: of the first step and the latest ones side by side where there is room, the latest first else."""
    if not found:
        return Content.styled(NONE_YET, "$muted")
    steps = sorted({sample.step for sample in found})
    columns = min(MOST_COLUMNS, len(steps), (width + GAP) // (COLUMN + GAP))
    return _beside(found, steps, columns, width) if columns > 1 else _below(found, width)


def _below(found: Sequence[Sample], width: int) -> Content:
    blocks: list[Content] = []
    for sample in list(found)[: -SHOWN_SAMPLES - 1 : -1]:
        prompt = Content.styled(one_line(sample.prompt, SHOWN_CHARACTERS), "$muted")
        block = hanging(Content.styled(f"step {sample.step:,}  ", "$accent"), prompt, width) + "\n"
        block += Content("\n").join(_answer(sample, width)) + "\n"
        if (wanted := _wanted(sample)) and wanted != _completion(sample):
            block += hanging(Content.styled("= ", "$muted"), Content.styled(wanted, "$muted"), width) + "\n"
        blocks.append(block)
    return Content("\n").join(blocks)


def _beside(found: Sequence[Sample], steps: list[int], columns: int, width: int) -> Content:
    """Return a block a prompt, with a column for the first step and for each of the latest."""
    shown = [steps[0], *steps[1 - columns :]]
    room = (width - GAP * (columns - 1)) // columns
    by_prompt: dict[str, dict[int, Sample]] = {}
    for sample in found:
        by_prompt.setdefault(sample.prompt, {})[sample.step] = sample
    between = Content(" " * GAP)
    heads = [Content.styled(f"step {step:,}".ljust(room), "$accent") for step in shown]
    blocks = [between.join(heads)]
    newest = sorted(by_prompt, key=lambda prompt: -max(by_prompt[prompt]))
    for prompt in newest[:SHOWN_SAMPLES]:
        asked = hanging(Content("  "), Content.styled(one_line(prompt, SHOWN_CHARACTERS), "$muted"), width)
        cells = [_answer(by_prompt[prompt][step], room) if step in by_prompt[prompt] else [] for step in shown]
        wanted = next((_wanted(sample) for sample in by_prompt[prompt].values() if sample.reference), "")
        height = max(map(len, cells))
        rows = [
            between.join(_filled(cell[row] if row < len(cell) else Content(""), room) for cell in cells)
            for row in range(height)
        ]
        if wanted:
            rows.append(hanging(Content.styled("= ", "$muted"), Content.styled(wanted, "$muted"), width))
        blocks.append(Content("\n").join([asked, *rows]) + "\n")
    return Content("\n").join(blocks)


def _filled(line: Content, room: int) -> Content:
    return line.pad_right(max(0, room - line.cell_length))


def _answer(sample: Sample, width: int) -> list[Content]:
    """Return the lines of one answer; right and wrong have a glyph and a colour."""
    completion, reference = _completion(sample), _wanted(sample)
    if not reference:
        text = hanging(Content("› "), Content(completion), width)
    elif completion == reference:
        text = hanging(Content.styled("✓ ", "$success"), Content(completion), width)
    else:
        same = _same_start(completion, reference)
        answer = Content.assemble(completion[:same], (completion[same:], "underline $error"))
        text = hanging(Content.styled("✗ ", "$error"), answer, width)
    return text.split("\n", allow_blank=True)


def _completion(sample: Sample) -> str:
    return clean(sample.completion, SHOWN_CHARACTERS).strip() or "(nothing)"


def _wanted(sample: Sample) -> str:
    return clean(sample.reference, SHOWN_CHARACTERS).strip()


def _same_start(one: str, other: str) -> int:
    """Return how many characters the two begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
