"""The data step in words: what the data is, how far the audit is, the token figures, and the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.content import Content

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...foundation.units import size
from ..figures import count, duration, plural, share
from ..widgets.bar import bar
from ..widgets.findings_list import summary
from ..wrapping import hanging

if TYPE_CHECKING:
    from ...engine.data.preview import Inspection, Want
    from ...engine.data.statistics import LengthFigures, Progress, Report, TokenFigures
    from ...engine.hub.needs import Need
    from ...recipes.model import Data
    from ..data_report import DataReport

BARS = "▁▂▃▄▅▆▇█"
LABEL = 13
SHOWN_FILES = 6
SHOWN_FAULTS = 3
SHOWN_EVIDENCE = 3
DOUBTFUL = 0.8
"""Below this confidence a format is marked."""
ROLE_TITLES = {"template": "the template"}


@dataclass(frozen=True, slots=True)
class AuditState:
    """How far the audit is."""

    kind: Literal["waiting", "offered", "running", "stopped", "done", "failed"] = "waiting"
    progress: Progress | None = None
    problem: TunewrightError | None = None


def status_text(report: DataReport | None, audit: AuditState, width: int) -> Content:
    """Return what the data and the model are, and how far the audit is, or what stands in the way."""
    if report is None:
        return Content.styled("Reading…", "$muted")
    problems = {"model": report.model_problem, "dataset": report.data_problem}
    lines = [_needed(each, problems[each.kind] is None, width) for each in report.needs]
    named = {each.kind for each in report.needs}
    lines += [problem_text(each, width) for kind, each in problems.items() if each is not None and kind not in named]
    if report.anatomy is not None and not report.data_problem:
        anatomy = report.anatomy
        shape = f"{count(anatomy.total_parameters)} parameters · {anatomy.layers} layers · context {anatomy.context:,}"
        line = Content.assemble(("✓ ", "$success"), (one_line(anatomy.family, 40), "bold"), (f" · {shape}", "$muted"))
        lines.append(line.truncate(width, ellipsis=True))
    if report.inspection is not None:
        lines.append(_found(report.inspection, width))
        if audit.kind not in ("running", "done") and (report.audit is None or not report.audit.findings):
            lines += _faults(report.inspection, width)
        if report.inspection.format is not None:
            lines.append(audit_text(report, audit, width))
    return Content("\n").join(lines)


def _needed(need: Need, usable: bool, width: int) -> Content:
    """Return that something on the Hub is not here; a model can be `usable` for the plan without its weights."""
    noun = "data" if need.kind == "dataset" else "weights" if usable else "model"
    mark = ("· ", "$muted") if usable else ("✗ ", "$error")
    said = Content.assemble(
        mark, (one_line(need.name, 40), "bold"), (f"  the {noun} can be had from the Hub: ", "$muted"),
        ("g", "$accent"), (" fetches", "$muted"),
    )  # fmt: skip
    return said.truncate(width, ellipsis=True)


def _found(found: Inspection, width: int) -> Content:
    """Return the format and the size in a line; of an unknown format what is known of it."""
    if found.format is None:
        said = Content.assemble(("✗ ", "$error"), ("The format was not recognised", "bold $error"), "  ",
                                ("c", "$accent"), (" maps its columns, ", "$muted"),
                                ("f", "$accent"), (" names it", "$muted"))  # fmt: skip
        about = [*found.evidence[:SHOWN_EVIDENCE], f"columns: {', '.join(found.columns)}"]
        lines = [hanging(Content("  "), Content.styled(one_line(each, 200), "$muted"), width) for each in about]
        return Content("\n").join([said.truncate(width, ellipsis=True), *lines])
    mark = ("✓ ", "$success") if found.confidence >= DOUBTFUL else ("! ", "$warning")
    said = f" · {share(found.confidence)} sure · {size_text(found)}"
    return Content.assemble(mark, (format_name(found), "bold"), (said, "$muted")).truncate(width, ellipsis=True)


def format_name(found: Inspection) -> str:
    """Return the format, with its dialect where it has one."""
    name = found.format or "not recognised"
    return f"{name}, {found.dialect}" if found.dialect and found.dialect != found.format else name


def size_text(found: Inspection) -> str:
    """Return rows, bytes and files."""
    rows = plural(found.rows, "row") if found.rows_exact else f"about {count(found.rows)} rows"
    files = f" · {len(found.files)} files" if len(found.files) > 1 else ""
    return f"{rows} · {size(found.total_bytes)}{files}"


def _faults(found: Inspection, width: int) -> list[Content]:
    """Return the first rows that cannot be read, for as long as no audit has told them."""
    lines = [
        Content.assemble(("✗ ", "$error"), (f"{each.place}  ", "bold"), one_line(each.problem, 200)).truncate(width, ellipsis=True)
        for each in found.faults[:SHOWN_FAULTS]
    ]  # fmt: skip
    if len(found.faults) > SHOWN_FAULTS:
        lines.append(Content.styled("  and more; the audit counts them", "$muted"))
    return lines


def problem_text(problem: TunewrightError, width: int) -> Content:
    """Return what stands in the way, and what to do about it."""
    said = Content.assemble((one_line(problem.title, 100), "bold $error"), "  ", clean(problem.message, 600).strip())
    remedy = hanging(Content.styled("  → ", "$accent"), Content.styled(one_line(problem.remedy, 300), "$muted"), width)
    return hanging(Content.styled("✗ ", "$error"), said, width) + "\n" + remedy


def audit_text(report: DataReport, audit: AuditState, width: int) -> Content:
    """Return how far the audit is, or what it came to, in a line."""
    match audit.kind:
        case "waiting":
            said = Content.styled("· the audit begins in a moment", "$muted")
        case "offered":
            whole = size(report.inspection.total_bytes) if report.inspection else ""
            said = Content.assemble(("· ", "$muted"), ("a", "$accent"), (f" audits all {whole}, row by row", "$muted"))
        case "running":
            return _progress(audit.progress, width)
        case "failed":
            assert audit.problem is not None
            return problem_text(audit.problem, width)
        case "stopped":
            rows = plural(audit.progress.rows, "row") if audit.progress else "no row"
            said = Content.assemble(
                ("! ", "$warning"), f"stopped after {rows}  ", ("a", "$accent"), (" begins anew", "$muted")
            )
        case "done":
            assert report.audit is not None
            said = _verdict(report.audit)
    return said.truncate(width, ellipsis=True)


def _verdict(audit: Report) -> Content:
    """Return what a whole audit came to."""
    found = summary(audit.findings)
    gravest = {each.severity for each in audit.findings}
    mark = (
        ("✗ ", "$error") if "error" in gravest else ("! ", "$warning") if "warning" in gravest else ("✓ ", "$success")
    )
    said = Content.assemble(mark, ("audited", "bold"), (" · ", "$muted"))
    said += found[1:] if found.cell_length else Content.styled("nothing found", "$muted")
    if audit.tokens is not None:
        about = "" if audit.tokens.exact else "about "
        said += Content.styled(f" · {about}{count(audit.tokens.total)} tokens, {learned_text(audit)}", "$muted")
    return said


def learned_text(audit: Report) -> str:
    """Return how much is learned; what is little is not rounded to nothing."""
    digits = 0 if audit.supervised_share >= 0.005 or not audit.supervised_tokens else 2
    return f"{share(audit.supervised_share, digits)} learned"


def _progress(progress: Progress | None, width: int) -> Content:
    if progress is None:
        return Content.styled("· auditing…  esc or a stops", "$muted")
    done = progress.done_bytes / progress.total_bytes if progress.total_bytes else 0.0
    speed = f"{count(progress.rows / progress.seconds)} rows/s" if progress.seconds > 0 else ""
    left = f"{duration(progress.seconds * (1 - done) / done)} left" if done > 0 else ""
    words = Content.assemble(
        (f" {share(min(done, 1.0)):>5}", "bold"), (f" · {plural(progress.rows, 'row')} · {speed} · {left}", "$muted"),
        ("  esc", "$accent"), (" stops", "$muted"),
    )  # fmt: skip
    return (Content("· ") + bar(done, max(8, min(40, width - words.cell_length - 2))) + words).truncate(
        width, ellipsis=True
    )


def no_findings_text(audit: AuditState) -> Content:
    """Return what stands in place of the findings where there are none."""
    match audit.kind:
        case "running":
            return Content.styled("Nothing found so far.", "$muted")
        case "done":
            return Content.assemble(("✓ ", "$success"), ("The audit found nothing.", "$muted"))
        case _:
            return Content.assemble(("Not audited yet: ", "$muted"), ("a", "$accent"), (" audits every row.", "$muted"))


def why_this_row(want: Want) -> str:
    """Return why a row is shown that was not asked for by its number."""
    match want.kind:
        case "longest":
            return "the longest" if not want.index else f"longest, {ordinal(want.index + 1)}"
        case "worst":
            return "the worst" if not want.index else f"worst, {ordinal(want.index + 1)}"
        case "random":
            return "at random"
        case "search":
            return f"holds “{one_line(want.text, 30)}”"
        case "row":
            return ""


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def tokens_text(report: DataReport, width: int) -> Content:
    """Return the figures of the rows' tokens, what each maximum length costs, and the advice that follows."""
    audit = report.audit
    if audit is None or audit.tokens is None:
        return Content.styled("The audit counts the tokens.", "$muted")
    tokens = audit.tokens
    lines = [_histogram(tokens, width), *_spread(tokens, width)]
    if not tokens.exact:
        lines.append(
            Content.styled(" " * LABEL + "estimated: about 4 bytes a token, without the model's tokenizer", "$warning")
        )
    total = max(1, sum(tokens.by_role.values()))
    roles = " · ".join(
        f"{ROLE_TITLES.get(role, role)} {share(number / total)}"
        for role, number in sorted(tokens.by_role.items(), key=lambda each: -each[1])
        if number
    )
    lines.append(_labelled("by role", Content(roles), width))
    colour = "bold" if audit.supervised_tokens else "bold $error"
    learned = Content.assemble((f"{share(audit.supervised_share, 1)}", colour),
                               (f" of the tokens, {count(audit.supervised_tokens)} in all", "$muted"))  # fmt: skip
    lines.append(_labelled("learned", learned, width))
    lines.append(Content(""))
    chosen = report.data.max_length if report.data else 0
    lines += lengths_lines(audit.lengths, chosen, width)
    keeps = f"{audit.length_for_99:,} keeps 99 % of the rows whole"
    lines.append(
        _labelled("", Content.assemble((keeps, "$muted"), ("  + -", "$accent"), (" change it", "$muted")), width)
    )
    if audit.packing is not None:
        packing = audit.packing
        said = (
            f"padding falls from {share(packing.padded_share)} to {share(packing.packed_share)} in "
            f"{plural(packing.sequences, 'sequence')} of the maximum length"
        )
        lines.append(_labelled("packed", Content(said), width))
    if len(audit.languages) > 1:
        said = " · ".join(f"{one_line(name, 20)} {share(part)}" for name, part in list(audit.languages.items())[:8])
        lines.append(_labelled("languages", Content(said), width))
    if audit.advice:
        lines.append(Content(""))
        lines += [
            hanging(Content.styled("→ ", "$accent"), Content(one_line(each, 400)), width) for each in audit.advice
        ]
    return Content("\n").join(lines)


def _labelled(label: str, said: Content, width: int) -> Content:
    return hanging(Content.styled(f"{label:<{LABEL}}", "$muted"), said, width)


def _histogram(tokens: TokenFigures, width: int) -> Content:
    head = Content.styled(f"{'length':<{LABEL}}", "$muted")
    return (
        head + f"{tokens.least:,} " + Content.styled(bars(tokens.histogram), "$accent") + f" {tokens.most:,}"
    ).truncate(width)


def _spread(tokens: TokenFigures, width: int) -> list[Content]:
    said = f"half up to {tokens.p50:,} · 90 % {tokens.p90:,} · 95 % {tokens.p95:,} · 99 % {tokens.p99:,} · mean {tokens.mean:,.0f}"
    return [_labelled("", Content.styled(said, "$muted"), width)]


def bars(counts: Sequence[int]) -> str:
    """Return a histogram in one line; a bin that holds anything is seen."""
    most = max(counts, default=0) or 1
    return "".join(" " if not each else BARS[min(7, each * 8 // (most + 1))] for each in counts)


def lengths_lines(lengths: Sequence[LengthFigures], chosen: int, width: int) -> list[Content]:
    """Return a table: for each maximum length the rows that are cut, and those with nothing left to learn."""
    shown = list(lengths)
    while len(shown) > 2 and LABEL + len(shown) * 9 > width:
        # The longest that costs no more than a shorter one goes first, never the chosen one.
        shown.remove(next(each for each in reversed(shown) if each.max_length != chosen))
    names = ("max length", "rows cut", "rows lost", "tokens kept")
    lines = [Content.styled(f"{name:<{LABEL}}", "$muted") for name in names]
    for each in shown:
        here = each.max_length == chosen
        title = f"▸{each.max_length:,}" if here else f"{each.max_length:,}"
        cells = (
            title,
            f"{each.cut_rows:,}",
            f"{each.lost_rows:,}",
            share(each.kept_tokens_share, 0 if each.kept_tokens_share == 1 else 1),
        )
        for line, cell in enumerate(cells):
            colour = "bold $accent" if here else "$error" if line == 2 and each.lost_rows else ""
            lines[line] += Content.styled(f"{cell:>9}", colour)
    return lines


def file_text(report: DataReport, changes: Mapping[str, object], width: int) -> Content:
    """Return what the file is and how that was told, and below it how it is trained."""
    lines: list[Content] = []
    if (found := report.inspection) is not None:
        named = "named by you" if "format" in changes else f"{share(found.confidence)} sure"
        said = Content.assemble(
            (format_name(found), "bold"), (f"  {named}", "$muted"), ("  f", "$accent"), (" names another", "$muted")
        )
        lines.append(_labelled("format", said, width))
        lines += [_labelled("", Content.styled(one_line(each, 300), "$muted"), width) for each in found.evidence]
        mapped = " · ".join(f"{name} ← {one_line(column, 60)}" for name, column in found.mapping.items())
        used = set(found.mapping.values())
        unused = [one_line(each, 40) for each in found.columns if each not in used]
        said = Content(mapped or "none") + Content.assemble(("  c", "$accent"), (" maps them", "$muted"))
        lines.append(_labelled("columns", said, width))
        if unused:
            more = f" and {len(unused) - 12} more" if len(unused) > 12 else ""
            lines.append(_labelled("", Content.styled(f"not used: {', '.join(unused[:12])}{more}", "$muted"), width))
        lines.append(_labelled("size", Content(size_text(found)), width))
        names = [one_line(each, 300) for each in found.files[:SHOWN_FILES]]
        if len(found.files) > SHOWN_FILES:
            names.append(f"and {len(found.files) - SHOWN_FILES:,} more")
        lines += [
            _labelled("file" if not number else "", Content.styled(name, "$muted"), width)
            for number, name in enumerate(names)
        ]
        lines.append(Content(""))
    if report.data is not None:
        lines.append(
            Content.assemble(("How it is trained", "bold $accent"), ("  o", "$accent"), (" changes it", "$muted"))
        )
        lines += option_lines(report.data, width)
    return Content("\n").join(lines)


def option_lines(data: Data, width: int) -> list[Content]:
    """Return the options of the data section, each in a line with its value."""
    from ...recipes.reading import written

    lines: list[Content] = []
    for name, value in (
        ("loss on", written(data.loss_on)),
        ("template", data.template),
        (
            "system",
            data.system + (f", “{one_line(data.system_prompt, 60)}” where there is none" if data.system_prompt else ""),
        ),
        ("thinking", data.thinking),
        ("max length", f"{data.max_length:,} tokens, longer rows are {'cut' if data.overlong == 'cut' else 'dropped'}"),
        ("faulty rows", "left out" if data.faulty == "drop" else "refused: the run does not begin"),
        ("validation", validation_text(data)),
    ):
        lines.append(_labelled(name, Content(value), width))
    return lines


def validation_text(data: Data) -> str:
    """Return which rows are kept out of training."""
    rule = data.validation
    match rule.kind:
        case "none":
            return "none"
        case "file":
            most = f", at most {rule.value:,.0f} rows" if rule.value else ""
            return f"the rows of {one_line(rule.source or '', 100)}{most}"
        case "rows":
            said = plural(int(rule.value), "row")
        case "fraction":
            said = f"{share(rule.value, 0 if (rule.value * 100).is_integer() else 1)} of the rows"
    if rule.key:
        said += f", those of one {one_line(rule.key, 60)} together"
    return said + (f", evenly by {one_line(rule.stratify, 60)}" if rule.stratify else "")
