"""What the workbench's panes say: each function writes one pane from a worksheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from ...foundation.text import one_line
from ...foundation.units import gib
from ..figures import count, duration, plural, share
from ..widgets.bar import row_bar
from ..wrapping import hanging

if TYPE_CHECKING:
    from ...engine.cards import Card
    from ...engine.comparison import Verdict
    from ...engine.estimate import Estimate
    from ..worksheet import Worksheet

HEADINGS = {"qlora": "QLoRA", "lora": "LoRA", "full": "full"}
SOFTWARE = {"unsloth": "Unsloth", "transformers": "transformers", "liger": "transformers + Liger"}
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "fits": ("✓", "$success"),
    "tight": ("≈", "$warning"),
    "no": ("✗", "$error"),
}
_SEPARATOR = (" │ ", "$rule")


def _verdict(sheet: Worksheet, found: Estimate) -> tuple[str, str, str]:
    """Return the mark, the word and the colour of whether `found` fits."""
    from ...engine.comparison import judge

    verdict = judge(found.needed_gib, sheet.device.free_gib)
    return (_VERDICTS[verdict][0], "too large" if verdict == "no" else verdict, _VERDICTS[verdict][1])


def key_text(key: str, said: str) -> Content:
    """Return a key, and what it leads to."""
    return Content.assemble((key, "bold $accent"), (f" {said}", "$muted"))


def settings_text(sheet: Worksheet, width: int) -> Content:
    """Return every setting behind the key that changes it, in lines of `width`."""
    case = sheet.case
    adapters = case.method != "full"
    items = [
        ("f", HEADINGS[case.method], True),
        ("t", case.targets, adapters),
        ("r", f"rank {case.rank}", adapters),
        ("n", f"{case.tokens:,} tokens", True),
        ("b", f"batch of {case.rows}", True),
        ("k", "recomputing" if case.recomputing else "no recomputing", True),
        ("o", sheet.setting.optimizer.replace("_", " "), True),
        ("u", SOFTWARE[sheet.software], True),
        ("e", plural(case.epochs, "epoch"), True),
    ]
    return _lines(
        (
            Content.assemble((key, "bold $accent"), " ", (said, "" if counts else "$faint"))
            for key, said, counts in items
        ),
        width,
        Content("  "),
    )


def headline_text(sheet: Worksheet, width: int) -> Content:
    """Return the model, and what the case takes, in lines of `width`."""
    anatomy, found = sheet.model.anatomy, sheet.chosen
    trained = (
        "all of it" if sheet.case.method == "full" else share(found.trainable_parameters / found.total_parameters, 2)
    )
    step = duration(found.step_seconds) if found.step_seconds >= 0.1 else f"{1000 * found.step_seconds:.0f} ms"
    mark, word, colour = _verdict(sheet, found)
    parts = (
        Content.assemble(
            (f"{one_line(anatomy.family, 24)} {count(found.total_parameters)}", "bold"),
            (f", {anatomy.layers} × {anatomy.hidden:,}", "$muted"),
        ),
        Content.assemble((count(found.trainable_parameters), "bold"), (f" trained, {trained}", "$muted")),
        Content.assemble(
            (gib(found.needed_gib), "bold"),
            (f" of {gib(sheet.device.free_gib)} ", "$muted"),
            (f"{mark} {word}", colour),
        ),
        Content.assemble(
            (f"{count(found.tokens_per_second)} tokens/s", "bold"),
            (f", {step} a step", "$muted"),
        ),
    )
    return _lines(parts, width, Content.styled(*_SEPARATOR))


def _lines(parts: Iterable[Content], width: int, between: Content) -> Content:
    """Return `parts` beside each other, as many in a line as there is room for."""
    lines: list[Content] = []
    for part in parts:
        if lines and lines[-1].cell_length + between.cell_length + part.cell_length <= width:
            lines[-1] = lines[-1] + between + part
        else:
            lines.append(part)
    return Content("\n").join(lines)


def memory_text(sheet: Worksheet, width: int) -> Content:
    """Return the terms of the peak for each method, the chosen one's largest first, and what must be free."""
    methods, chosen = list(sheet.methods), sheet.case.method
    terms = {method: found.terms for method, found in sheet.methods.items()}
    names = sorted(
        {name for each in terms.values() for name in each},
        key=lambda name: (-terms[chosen].get(name, 0.0), -max(each.get(name, 0.0) for each in terms.values())),
    )
    most = max(terms[chosen].values())
    room = min(40, width - 16 - 11 * len(methods) - 2)

    def line(title: str, cells: Sequence[str], style: str = "") -> Content:
        said = Content.styled(f"{one_line(title, 15):<15}", style or "$muted")
        for method, cell in zip(methods, cells, strict=True):
            said += Content.styled(f"{cell:>11}", style or ("" if method == chosen else "$muted"))
        return said

    lines = [line("", [HEADINGS[method] for method in methods])]
    for name in names:
        bar = row_bar(terms[chosen].get(name, 0.0) / most, room, "$soft") if room >= 6 else Content("")
        lines.append(line(name, [gib(terms[method].get(name)) for method in methods]) + "  " + bar)
    lines.append(line("peak", [gib(each.peak_allocated_gib) for each in sheet.methods.values()], "bold"))
    lines.append(line("must be free", [gib(each.needed_gib) for each in sheet.methods.values()]))
    verdicts = Content.styled(f"{f'of {gib(sheet.device.free_gib)}':<15}", "$muted")
    for found in sheet.methods.values():
        mark, word, colour = _verdict(sheet, found)
        verdicts += Content.styled(f"{f'{mark} {word}' if word != 'too large' else f'{mark} no':>11}", colour)
    lines.append(verdicts)
    notes = " ".join(filter(None, (sheet.model.note, sheet.chosen.note)))
    return Content("\n").join([*lines, Content.styled(one_line(notes, 600), "$muted")])


def terms_text(sheet: Worksheet, width: int) -> Content:
    """Return what each term of the memory is."""
    from ...engine.memory import TERMS

    names = sorted(sheet.chosen.terms, key=lambda name: -sheet.chosen.terms[name])
    return Content("\n").join(
        hanging(Content.styled(f"{name:<15}", "$accent"), Content.styled(TERMS[name], "$muted"), width)
        for name in names
        if name in TERMS
    )


def ranks_text(sheet: Worksheet, width: int) -> Content:
    """Return adapters of each rank side by side, and what the model's parameters are."""
    total = sheet.model.anatomy.total_parameters
    lines = [Content.styled(f"{'rank':>6}{'trained':>11}{'of all':>10}{'file':>11}{'in memory':>12}", "$muted")]
    for each in sheet.ranks:
        here = each.rank == sheet.case.rank and sheet.case.method != "full"
        words = (
            f"{each.rank:>6}{count(each.trainable_parameters):>11}{share(each.share, 2):>10}"
            f"{gib(each.file_gib):>11}{gib(each.memory_gib):>12}"
        )
        lines.append(Content.styled(words + (" ←" if here else ""), "bold" if here else ""))
    kinds = sorted(sheet.model.anatomy.parameters_by_kind().items(), key=lambda kind: -kind[1])
    said = ", ".join(f"{kind} {share(parameters / total)}" for kind, parameters in kinds if parameters >= total / 200)
    return Content("\n").join([*lines, hanging(Content(""), Content.styled(f"The model: {said}", "$muted"), width)])


def model_text(sheet: Worksheet, width: int) -> Content:
    """Return the model's parameters by kind, and its projections with the adapters of those that are targeted."""
    total = sheet.model.anatomy.total_parameters
    room = min(40, width - 32)
    lines: list[Content] = []
    for kind, parameters in sheet.model.anatomy.parameters_by_kind().items():
        if parameters:
            bar = row_bar(parameters / total, room, "$soft") if room >= 6 else Content("")
            words = f"{count(parameters):>9}{share(parameters / total, 1):>9}  "
            lines.append(Content.styled(f"{kind:<12}", "$muted") + words + bar)
    lines.append(Content.assemble((f"{'all':<12}", "$muted"), (f"{count(total):>9}", "bold"), f"{'100 %':>9}", "\n"))
    lines.append(Content.styled(f"  {'projection':<13}{'out × in':>16}{'weights':>10}{'adapters':>10}", "$muted"))
    for each in sheet.model.anatomy.projections:
        targeted = each.name in sheet.target_names and sheet.case.method != "full"
        shape = f"{each.outputs:,} × {each.inputs:,}"
        adapters = count(sheet.case.rank * (each.outputs + each.inputs) * each.count) if targeted else "–"
        words = (
            f"{one_line(each.name, 13):<13}{shape:>16}{count(each.outputs * each.inputs * each.count):>10}"
            f"{adapters:>10}"
        )
        mark = ("✓ ", "$success") if targeted else ("· ", "$muted")
        lines.append(Content.assemble(mark, (words, "" if targeted else "$muted")))
    return Content("\n").join(lines)


def targets_text(sheet: Worksheet) -> Content:
    """Return each choice of target modules with what it trains, takes and costs in speed."""
    method = "QLoRA" if sheet.case.method == "qlora" else "LoRA"
    titles = f"{f'{method} rank {sheet.case.rank}':<15}{'trained':>8}{'of all':>8}{'needs':>10}{'tokens/s':>9}"
    lines = [Content.styled(titles, "$muted")]
    for each in sheet.targets:
        here = each.name == sheet.case.targets and sheet.case.method != "full"
        found = each.estimate
        name = each.name if len(each.targets) > 1 else f"  {each.name}"
        mark, _, colour = _verdict(sheet, found)
        words = (
            f"{one_line(name, 14):<15}{count(found.trainable_parameters):>8}{share(each.share, 2):>8}"
            f"{gib(found.needed_gib):>10}{count(found.tokens_per_second):>9} "
        )
        lines.append(Content.assemble((words, "bold" if here else ""), (mark, colour), (" ←" if here else "", "bold")))
    return Content("\n").join(lines)


def cards_text(sheet: Worksheet, width: int) -> Content:
    """Return the smallest card for each method, and each card with what fits on it, how fast, and its price if wide."""
    from ...engine.cards import card_by_name
    from ...engine.comparison import CARD_NAMES, smallest_card

    methods = list(sheet.methods)
    smallest = {method: smallest_card(sheet.cards, method) for method in methods}
    least = [min(each.needed_gib for each in sheet.cards if each.method == method) for method in methods]
    priced = width >= 62
    titles = "".join(f"{HEADINGS[method]:>11}" for method in methods) + ("  an h" if priced else "")
    lines = [
        Content.styled(f"{'':<21}{titles}", "$muted"),
        Content.styled(f"{'needs at least':<21}" + "".join(f"{gib(each):>11}" for each in least), "$muted"),
    ]
    said = "".join(f"{'none here' if found is None else found.card:>11}" for found in smallest.values())
    lines.append(Content.assemble((f"{'smallest card':<21}", "$muted"), (said, "bold")))
    for place, name in enumerate(CARD_NAMES):
        of_card = sheet.cards[place :: len(CARD_NAMES)]
        here = card_by_name(name) is sheet.device.card
        line = Content.styled(f"{name:<10}{gib(of_card[0].card_gib):>11}", "bold" if here else "")
        for each in of_card:
            mark, colour = _VERDICTS[each.verdict]
            speed = "" if each.tokens_per_second is None else f"{count(each.tokens_per_second)}/s"
            line += Content.assemble(f"{speed:>9} ", (mark, colour))
        price = of_card[0].hourly_price
        if priced:
            line += Content.styled(f"{'' if price is None else f'{price:.2f}':>6}", "$muted")
        lines.append(line + Content.styled(" ←" if here else "", "bold"))
    return Content("\n").join(lines)


def card_line(card: Card | None) -> int | None:
    """Return the line of `cards_text` that `card` stands in, None for one that is not listed."""
    from ...engine.cards import card_by_name
    from ...engine.comparison import CARD_NAMES

    return next((3 + place for place, name in enumerate(CARD_NAMES) if card_by_name(name) is card), None)


def batch_text(sheet: Worksheet) -> str:
    """Return the micro-batch in a few words."""
    return f"{sheet.case.rows} × {sheet.case.tokens:,} tokens, rank {sheet.case.rank}"


def batches_text(sheet: Worksheet) -> Content:
    """Return the needed memory for each length of a row and each number of rows, coloured by whether it fits."""
    from ..worksheet import BATCHES

    lines = [Content.styled(f"{'tokens':>7}" + "".join(f"{plural(rows, 'row'):>8}" for rows in BATCHES), "$muted")]
    for place in range(0, len(sheet.batches), len(BATCHES)):
        row = sheet.batches[place : place + len(BATCHES)]
        line = Content.styled(f"{row[0].tokens:>7,}", "$muted")
        for each in row:
            mark, colour = _VERDICTS[each.verdict]
            here = (each.tokens, each.rows) == (sheet.case.tokens, sheet.case.rows)
            cell = f"{each.needed_gib:,.1f}" if each.needed_gib < 1000 else f"{each.needed_gib:,.0f}"
            style = f"bold reverse {colour}" if here else colour
            line += Content.assemble(" " * (7 - len(cell)), (f"{cell}{mark}", style))
        lines.append(line)
    recomputing = "recomputing" if sheet.case.recomputing else "no recomputing"
    lines.append(Content.styled(f"GiB that must be free for {HEADINGS[sheet.case.method]}, {recomputing}", "$muted"))
    return Content("\n").join(lines)


def cost_text(sheet: Worksheet, hourly_rate: float | None, width: int) -> Content:
    """Return time, money and energy of a run with each method, at `hourly_rate` or else the card's typical price."""
    from ...engine.cost import money

    case = sheet.case
    rate = hourly_rate if hourly_rate is not None else sheet.price.typical if sheet.price else None
    said = f"{plural(case.data_rows, 'row')} of {case.tokens:,} tokens, {plural(case.epochs, 'epoch')}"
    lines = [
        Content.styled(said, "$muted"),
        Content.styled(f"{'batch':>10}{'needs':>10}{'tokens/s':>9}{'time':>10}{'kWh':>6}{'money':>9}", "$muted"),
    ]
    for each in sheet.costs:
        price = money(each.seconds, rate)
        mark, colour = _VERDICTS[each.verdict]
        energy = f"{each.kwh:.2f}" if each.kwh < 100 else f"{each.kwh:,.0f}"
        lines.append(
            Content.assemble(
                (f"{HEADINGS[each.method]:<6}", "bold" if each.method == case.method else ""),
                f"{each.rows:>3}{'r' if each.recomputing else ' '}",
                f"{gib(each.needed_gib):>10}{count(each.tokens_per_second):>9}{duration(each.seconds):>10}{energy:>6}",
                f"{'–' if price is None else f'{price:,.2f}':>9} ",
                (mark, colour),
            )
        )
    told = ""
    if hourly_rate is None and sheet.price:
        told = f"{sheet.price.currency} {sheet.price.typical:.2f} an hour (cloud, {sheet.price.date}). "
    elif hourly_rate is None:
        told = "p gives a price for an hour. "
    told += "r: recomputing."
    return Content("\n").join([*lines, hanging(Content(""), Content.styled(told, "$muted"), width)])
