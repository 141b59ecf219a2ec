"""`tunewright data`: what a data set is, what is wrong with it, what the model sees of it, and the same in another file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..foundation.errors import TunewrightError, nearest
from ..foundation.text import one_line
from ..recipes.model import FORMATS, Data, TemplateName, validate_section
from .parser import add_json, print_json
from .table import paragraph, percent_text, render_table, seconds_text

if TYPE_CHECKING:
    from ..engine.data.findings import Finding
    from ..engine.data.preview import Inspection, ShownRow
    from ..engine.data.statistics import Progress, Report

MARKS = {"error": "✗", "warning": "!", "hint": "·"}
TEMPLATES: tuple[str, ...] = get_args(TemplateName)
LEARNED = ("assistant", "completion", "last", "all")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)

    def verb(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=description, formatter_class=parser.formatter_class)
        added.add_argument("source", metavar="FILE", help="a file, folder, glob, or data set in the Hub's cache")
        return added

    inspecting = verb(
        "inspect", "tell the format, rows and columns", "Tell what a file is, and show its first rows as they are read."
    )
    _add_reading(inspecting)
    auditing = verb(
        "audit",
        "go through every row and name what is wrong",
        "Go through every row as it would be trained, and name what is wrong.",
    )
    _add_reading(auditing)
    _add_rendering(auditing)
    auditing.add_argument(
        "--against",
        metavar="FILE",
        action="append",
        default=[],
        help="an evaluation file that must not be in the data; may be repeated",
    )
    auditing.add_argument("--workers", type=int, metavar="N", help="processes to read with (one a core)")
    auditing.add_argument("--strict", action="store_true", help="exit with 1 when there is an error or a warning")
    showing = verb(
        "preview", "show rows with the trained tokens marked", "Show rows as text or tokens; what is trained is marked."
    )
    _add_reading(showing)
    _add_rendering(showing)
    which = showing.add_mutually_exclusive_group()
    which.add_argument("--row", type=int, metavar="N", help="the row to begin with, counted from 1 (1)")
    for name, what in (
        ("longest", "the longest rows"),
        ("worst", "the rows of which least is trained"),
        ("random", "any row"),
    ):
        which.add_argument(f"--{name}", action="store_true", help=what)
    which.add_argument("--search", metavar="TEXT", help="the first rows that hold TEXT")
    showing.add_argument("--count", type=int, default=1, metavar="N", help="how many rows to show (1)")
    showing.add_argument("--tokens", action="store_true", help="token by token instead of as text")
    converting = verb(
        "convert", "write the rows in one plain shape, mended if wished",
        "Write every row that can be read into a new JSONL file, in the shape that TRL documents; with --fix what the audit found is mended.",
    )  # fmt: skip
    _add_reading(converting)
    _add_rendering(converting)
    converting.add_argument(
        "--fix", metavar="CODE", action="append", default=[], help="mend this finding of the audit; may be repeated"
    )
    converting.add_argument("--out", metavar="FILE", help="the new file (beside the source: NAME.converted.jsonl)")
    splitting = verb(
        "split",
        "divide the rows into training and validation",
        "Divide the rows into two new files; the source stays as it is.",
    )
    _add_reading(splitting)
    amount = splitting.add_mutually_exclusive_group()
    amount.add_argument("--fraction", type=float, metavar="F", help="the share that goes into validation (0.05)")
    amount.add_argument("--rows", type=int, metavar="N", help="the number of rows that go into validation")
    splitting.add_argument("--key", metavar="COLUMN", help="rows with the same value stay on one side")
    splitting.add_argument("--stratify", metavar="COLUMN", help="every value keeps its share on both sides")
    splitting.add_argument("--seed", type=int, default=42, metavar="N", help="the same seed makes the same split (42)")
    splitting.add_argument(
        "--out-training", metavar="FILE", help="the new file of the training rows (NAME.train.jsonl)"
    )
    splitting.add_argument(
        "--out-validation", metavar="FILE", help="the new file of the validation rows (NAME.validation.jsonl)"
    )
    for each in (inspecting, auditing, showing, converting, splitting):
        add_json(each)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what says how rows are read."""
    parser.add_argument(
        "--format", choices=("auto", *FORMATS), metavar="NAME", help=f"auto, {', '.join(FORMATS)} (auto)"
    )
    parser.add_argument(
        "--column",
        metavar="OURS=THEIRS",
        action="append",
        default=[],
        help="a column with another name, such as prompt=question; may be repeated",
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="changes",
        help="any other key of a recipe's data section, such as system=user; may be repeated",
    )  # fmt: skip


def _add_rendering(parser: argparse.ArgumentParser) -> None:
    """Add what says how rows are rendered."""
    parser.add_argument(
        "--model", metavar="MODEL", help="read with this model's tokenizer and template (ChatML, and 4 bytes a token)"
    )
    parser.add_argument("--template", choices=TEMPLATES, metavar="NAME", help=f"{', '.join(TEMPLATES)} (model)")
    parser.add_argument(
        "--loss-on", metavar="WHAT", help=f"{', '.join(LEARNED)}, or roles with commas between (assistant)"
    )
    parser.add_argument("--max-length", type=int, metavar="N", help="the most tokens of a row (2048)")
    parser.add_argument("--overlong", choices=("cut", "drop"), help="what happens to longer rows (cut)")


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` ask and return the exit status."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "inspect": _inspect, "audit": _audit, "preview": _preview, "convert": _convert, "split": _split,
    }  # fmt: skip
    return verbs[arguments.verb](arguments)


def data_section(arguments: argparse.Namespace) -> Data:
    """Return the data section of a recipe that `arguments` describe; raises TunewrightError."""
    values: dict[str, Any] = {"source": arguments.source}
    for name in ("format", "template", "max_length", "overlong"):
        if getattr(arguments, name, None) is not None:
            values[name] = getattr(arguments, name)
    if getattr(arguments, "loss_on", None) is not None:
        words = [each.strip() for each in arguments.loss_on.split(",")]
        values["loss_on"] = words[0] if len(words) == 1 and words[0] in LEARNED else words
    columns = dict(_pair(each, "--column prompt=question") for each in arguments.column)
    if columns:
        values["columns"] = columns
    for change in arguments.changes:
        key, text = _pair(change, "--set system=user")
        table = values
        *path, last = key.removeprefix("data.").split(".")
        for name in path:
            table = table.setdefault(name, {})
        try:
            table[last] = json.loads(text)
        except ValueError:
            table[last] = text
    return validate_section(Data, values, "the arguments")


def _pair(text: str, example: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise TunewrightError(
            "Argument not understood", f"{one_line(text, 100)!r} is not KEY=VALUE.", f"Such as {example}."
        )
    return key.strip(), value


def _inspect(arguments: argparse.Namespace) -> int:
    from ..engine.data.child import DataProcess

    with DataProcess() as process:
        found = process.inspect(arguments.source, data_section(arguments))
    if arguments.json:
        print_json(inspection_json(found))
    else:
        print(inspection_text(found))
    return 0


def inspection_json(found: Inspection) -> dict[str, Any]:
    """Return the object that `inspect --json` prints."""
    return {
        "source": found.source,
        "files": found.files,
        "bytes": found.total_bytes,
        "format": found.format,
        "dialect": found.dialect,
        "confidence": round(found.confidence, 4),
        "evidence": found.evidence,
        "rows": found.rows,
        "rows_exact": found.rows_exact,
        "columns": found.columns,
        "mapping": found.mapping,
        "faults": [{"place": str(each.place), "code": each.code, "problem": each.problem} for each in found.faults],
        "samples": [
            {
                "place": each.place,
                "turns": [{"role": role, "text": text} for role, text in each.turns],
                "problem": each.problem,
            }
            for each in found.samples
        ],
    }


def inspection_text(found: Inspection) -> str:
    """Return what a file is, as text: format with evidence, size, columns, faults, and the first rows as they are read."""
    files = found.files[0] if len(found.files) == 1 else f"{len(found.files)} files"
    about = "" if found.rows_exact else "about "
    name = "format not recognised" if found.format is None else f"{found.format}, {found.dialect}".rstrip(", ")
    parts = [
        f"{name} · {100 * found.confidence:.0f} % sure · {about}{found.rows:,} rows · {found.total_bytes / 1e6:,.1f} MB · {files}",
        "\n".join(paragraph(each, indent="  ", hanging="  ") for each in found.evidence),
        paragraph("columns: " + ", ".join(found.columns), hanging="  "),
    ]
    if found.mapping:
        parts.append(
            paragraph(
                "read as: " + ", ".join(f"{ours} = {theirs}" for ours, theirs in found.mapping.items()), hanging="  "
            )
        )
    if found.faults:
        lines = [paragraph(f"✗ {each.place}: {each.problem}", hanging="  ") for each in found.faults[:8]]
        parts.append("\n".join(lines))
    for sample in found.samples[:2]:
        said = [f"  {role}: {one_line(text, 400)}" for role, text in sample.turns] or [f"  ✗ {sample.problem}"]
        parts.append("\n".join([sample.place, *(paragraph(each, hanging="    ") for each in said)]))
    return "\n\n".join(part for part in parts if part)


def _audit(arguments: argparse.Namespace) -> int:
    from ..engine.data.child import DataProcess
    from ..engine.data.statistics import AuditRequest

    request = AuditRequest(
        arguments.source, data_section(arguments), arguments.model, tuple(arguments.against), arguments.workers
    )
    tell = sys.stderr.isatty()

    def on_progress(progress: Progress) -> None:
        if tell:
            share = progress.done_bytes / max(1, progress.total_bytes)
            left = progress.seconds * (1 - share) / share if share > 0 else None
            print(
                f"\r\x1b[K{100 * share:3.0f} %  {progress.rows:,} rows  {seconds_text(left)} left",
                end="", file=sys.stderr, flush=True,
            )  # fmt: skip

    try:
        with DataProcess() as process:
            report = process.audit(request, on_progress, lambda: False)
    finally:
        if tell:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    assert report is not None, "nobody cancels"
    if arguments.json:
        print_json(report.to_json())
    else:
        print(report_text(report))
    return 1 if arguments.strict and any(each.severity != "hint" for each in report.findings) else 0


def report_text(report: Report) -> str:
    """Return a report as text: the verdict, findings with examples and remedies, lengths, advice."""
    counts = {name: sum(each.severity == name for each in report.findings) for name in MARKS}
    verdict = ", ".join(f"{number} {name}{'s' if number != 1 else ''}" for name, number in counts.items() if number)
    parts = [
        f"{report.rows:,} rows of {report.format or 'no known format'}, {report.converted:,} of them readable; "
        f"{verdict or 'nothing found'} ({seconds_text(report.seconds)})"
    ]
    parts += map(_finding_text, report.findings)
    tokens = report.tokens
    if tokens is not None:
        about = "" if tokens.exact else "about "
        parts.append(
            f"{about}{tokens.total:,} tokens, {percent_text(report.supervised_share)} of them trained; a row has {tokens.least:,} to "
            f"{tokens.most:,}: half up to {tokens.p50:,}, 90 % up to {tokens.p90:,}, 95 % up to {tokens.p95:,}, 99 % up to {tokens.p99:,}\n"
            + "  ".join(
                f"{role} {percent_text(number / max(1, tokens.total))}"
                for role, number in tokens.by_role.items()
                if number
            )
        )
        enough = next((each.max_length for each in report.lengths if not each.cut_rows), sys.maxsize)
        rows = [
            (f"{each.max_length:,}", f"{each.cut_rows:,}", f"{each.lost_rows:,}", percent_text(each.kept_tokens_share))
            for each in report.lengths
            if each.max_length <= enough
        ]
        parts.append(render_table(("MAX LENGTH", "ROWS CUT", "NOTHING LEFT", "TOKENS KEPT"), rows, right=(0, 1, 2, 3)))
    if len(report.languages) > 1:
        parts.append(
            "languages: " + ", ".join(f"{name} {percent_text(share)}" for name, share in report.languages.items())
        )
    parts += [paragraph(each) for each in report.advice]
    return "\n\n".join(parts)


def _finding_text(finding: Finding) -> str:
    head = f"{MARKS[finding.severity]} {finding.kind.title} · {finding.count:,} · {finding.code}"
    lines = [head]
    if finding.detail:
        lines.append(paragraph(finding.detail, indent="    "))
    lines += [paragraph(f"{each.place}: {each.detail}", indent="    ", hanging="  ") for each in finding.examples[:3]]
    remedy = finding.kind.remedy + (f" (`--fix {finding.code}`)" if finding.kind.fix else "")
    lines.append(paragraph(f"→ {remedy}", indent="    ", hanging="  "))
    return "\n".join(lines)


def _preview(arguments: argparse.Namespace) -> int:
    from ..engine.data.child import DataProcess

    if not 1 <= arguments.count <= 1000:
        raise TunewrightError("Count out of range", f"{arguments.count} rows cannot be shown.", "Choose 1 to 1000.")
    data = data_section(arguments)
    rows: list[ShownRow] = []
    with DataProcess() as process:
        for want in _wants(arguments, rows):
            row = process.preview(arguments.source, data, arguments.model, want)
            if row is None:
                break
            rows.append(row)
    if not rows:
        raise TunewrightError(
            "No such row",
            "No row of the data is what was asked for.",
            "`tunewright data inspect` tells how many rows there are.",
        )
    if arguments.json:
        print_json({"rows": [row_json(each) for each in rows]})
    else:
        print("\n\n".join(row_text(each, arguments.tokens, sys.stdout.isatty()) for each in rows))
    return 0


def _wants(arguments: argparse.Namespace, shown: list[ShownRow]) -> Iterable[Any]:
    """Yield what is asked for, one row after the other; a search goes on behind the last row in `shown`."""
    from ..engine.data.preview import Want

    for number in range(arguments.count):
        if arguments.search is not None:
            yield Want("search", shown[-1].index if shown else -1, arguments.search)
        elif arguments.random:
            yield Want("random")
        elif arguments.longest or arguments.worst:
            yield Want("longest" if arguments.longest else "worst", number)
        else:
            yield Want("row", (arguments.row or 1) - 1 + number)


def row_json(row: ShownRow) -> dict[str, Any]:
    """Return one row as `preview --json` prints it."""
    return {
        "row": row.index + 1,
        "place": row.place,
        "tokens": row.tokens,
        "kept": row.kept,
        "trained": row.trained,
        "problem": row.problem or None,
        "pieces": [
            {"text": each.text, "trained": each.trained, "cut": each.cut, "tokens": each.tokens} for each in row.pieces
        ],
    }


def row_text(row: ShownRow, as_tokens: bool, styled: bool) -> str:
    """Return one row as text; what is trained is underlined on a terminal, and between ⟦ and ⟧ elsewhere."""
    head = f"row {row.index + 1:,} ({row.place}) · {row.tokens:,} tokens, {row.trained:,} trained"
    if row.kept < row.tokens:
        head += f", {row.tokens - row.kept:,} behind the cut"
    parts: list[str] = []
    for piece in row.pieces:
        text = "|".join(piece.tokens) + "|" if as_tokens else piece.text
        if piece.cut:
            text = f"\x1b[2m{text}\x1b[22m" if styled else f"⟨cut: {text}⟩"
        elif piece.trained:
            text = f"\x1b[4;32m{text}\x1b[24;39m" if styled else f"⟦{text}⟧"
        parts.append(text)
    problem = f"\n✗ {row.problem}" if row.problem else ""
    return f"{head}{problem}\n{''.join(parts).rstrip()}"


def _convert(arguments: argparse.Namespace) -> int:
    from ..engine.data.child import DataProcess
    from ..engine.data.findings import CATALOGUE

    fixable = sorted(code for code, kind in CATALOGUE.items() if kind.fix)
    for code in arguments.fix:
        if code not in fixable:
            hint = (
                f"Did you mean {suggestion}?"
                if (suggestion := nearest(code, fixable))
                else f"Such are: {', '.join(fixable)}."
            )
            raise TunewrightError(
                "Nothing safe to mend", f"{one_line(code, 60)!r} is no finding that can be mended by itself.", hint
            )
    target = (
        Path(arguments.out).expanduser()
        if arguments.out
        else _beside(arguments.source, "fixed" if arguments.fix else "converted")
    )
    with DataProcess() as process:
        done = process.fix(arguments.source, data_section(arguments), tuple(arguments.fix), target, arguments.model)
    if arguments.json:
        print_json(done.to_json())
    else:
        print(f"{done.rows_written:,} of {done.rows_read:,} rows are in {target}")
        for code, number in done.changed.items():
            print(f"  {CATALOGUE[code].title}: {number:,}")
        for fault in done.faults:
            print(paragraph(f"✗ {fault.place}: {fault.problem}", indent="  ", hanging="  "))
    return 0


def _split(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ..engine.data.splits import write_split

    rule: dict[str, Any] = {"kind": "fraction", "value": 0.05 if arguments.fraction is None else arguments.fraction}
    if arguments.rows is not None:
        rule = {"kind": "rows", "value": float(arguments.rows)}
    rule |= {name: getattr(arguments, name) for name in ("key", "stratify") if getattr(arguments, name) is not None}
    data = data_section(arguments)
    data = validate_section(Data, {**data.model_dump(exclude_none=True), "validation": rule}, "the arguments")
    training = (
        Path(arguments.out_training).expanduser() if arguments.out_training else _beside(arguments.source, "train")
    )
    validation = (
        Path(arguments.out_validation).expanduser()
        if arguments.out_validation
        else _beside(arguments.source, "validation")
    )
    done = write_split(arguments.source, data, arguments.seed, training, validation)
    if arguments.json:
        print_json(asdict(done))
    else:
        print(
            f"{done.training_rows:,} rows are in {done.training}\n{done.validation_rows:,} rows are in {done.validation}"
        )
        if done.left_out:
            print(f"{done.left_out:,} rows could not be read, and are in neither.")
    return 0


def _beside(source: str, word: str) -> Path:
    """Return the name of a new file beside `source`, or in this folder when that is no file."""
    path = Path(source).expanduser()
    if not path.exists():
        return Path(f"{source.strip('/').replace('/', '-').replace('*', '')}.{word}.jsonl")
    name = path.name
    for suffix in (
        ".gz",
        ".zst",
        ".bz2",
        ".xz",
        ".jsonl",
        ".ndjson",
        ".json",
        ".csv",
        ".tsv",
        ".parquet",
        ".arrow",
        ".txt",
    ):
        name = name.removesuffix(suffix)
    return path.parent / f"{name}.{word}.jsonl"
