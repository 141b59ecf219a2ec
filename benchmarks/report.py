"""Prints how far the formulas are from what was measured; `make bench-report` runs it.

`python benchmarks/report.py [--json] [--worst N]`
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from measure import chat_lengths
from measured import (
    Figures,
    Row,
    anatomy_of,
    coefficients,
    failed_rows,
    kept_out,
    measured_rows,
    predict,
    read_rows,
    written_down,
)
from tunewright.engine import gpu_speed
from tunewright.engine.cards import find_card
from tunewright.engine.flop import flop_per_token
from tunewright.engine.gpu_memory import CUDA_CONTEXT_GIB
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.search import Candidate, choose, look_around, search
from tunewright.engine.work import Work
from tunewright.recipes.model import Base, Data, LoraMethod, Recipe, Training

SEEN = ("paths", "sweep")
SETS = ("paths", "sweep", "held_out", "headlines", "two_gpus", "alone")
FIGURES = {"allocated": "peak_allocated_gib", "reserved": "peak_reserved_gib", "step": "step_seconds"}
CARD_SIZES_GIB = (8, 12, 16, 24, 40, 48, 80)
CHAT_MODEL, CHAT_BATCH, CHAT_EPOCHS = "llama-3.1-8b", 16, 100.0
H200_GIB, H200_FREE_GIB = 139.8, 139.3
PEAK_TFLOPS = 790.0
"""What a large bf16 matrix product reaches on an H200."""

Prediction = tuple[Row, Figures]


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions of one figure are from what was measured, in per cent of it."""

    of: str
    figure: str
    rows: int
    median: float
    percentile_95: float
    worst_under: float
    worst_over: float


@dataclass(frozen=True, slots=True)
class Fits:
    """How often the judgement of whether a run fits was right on a card of this size."""

    of: str
    size_gib: int
    rows: int
    fitted: int
    """Rows that would have fitted, by what was measured."""
    dangerous: int
    """Rows that were said to fit and would not have."""
    over_cautious: int
    """Rows that were said not to fit and would have."""


def error_of(row: Row, predicted: Figures, figure: str) -> float:
    """Return the error of a prediction as a share of what was measured."""
    return getattr(predicted, FIGURES[figure]) / row.values[FIGURES[figure]] - 1


def errors_of(of: str, figure: str, predictions: Sequence[Prediction]) -> Errors:
    """Return the errors of one figure over these predictions."""
    errors = [100 * error_of(row, predicted, figure) for row, predicted in predictions]
    sizes = sorted(abs(each) for each in errors)
    beyond = sizes[math.ceil(0.95 * len(sizes)) - 1]
    return Errors(of, figure, len(errors), statistics.median(sizes), beyond, min(0.0, *errors), max(0.0, *errors))


def predict_all(names: Iterable[str]) -> list[Prediction]:
    """Return the rows of these sets with what today's formulas say of them."""
    return [(row, predict(row)) for row in measured_rows(*names)]


def errors_by_set() -> Iterator[Errors]:
    """Yield the errors of every set, for allocated and reserved memory and for the time of a step."""
    seen, held_out = predict_all(SEEN), predict_all(["held_out"])
    rows = [row for row, _ in held_out]
    timed = [each for each in seen if not kept_out(each[0])]
    sets = {
        "seen while the formulas were written": seen,
        "predicted before measured, as written down": list(zip(rows, written_down(rows), strict=True)),
        "the same by today's formulas (2 changed them)": held_out,
        "later: headlines, two GPUs": predict_all(["headlines", "two_gpus"]),
        "measured alone on the host": predict_all(["alone"]),
    }
    for figure in FIGURES:
        for of, predictions in sets.items():
            yield errors_of(of, figure, predictions)
            if figure == "step" and predictions is seen:
                yield errors_of("seen, without what has no formula", figure, timed)


def errors_by_method(predictions: Sequence[Prediction]) -> Iterator[Errors]:
    """Yield the errors of each backend and method over all rows, for allocated memory and for the time of a step."""
    ways = sorted({(row.values["backend"], row.values["method"]) for row, _ in predictions})
    for figure in ("allocated", "step"):
        for way in ways:
            own = [each for each in predictions if (each[0].values["backend"], each[0].values["method"]) == way]
            yield errors_of(" ".join(way), figure, own)


def fits_by_size(of: str, predictions: Sequence[Prediction]) -> Iterator[Fits]:
    """Yield for cards of several sizes how often what is needed is judged rightly."""
    for size in CARD_SIZES_GIB:
        judged = Counter((predicted.needed_gib <= size, taken_gib(row) <= size) for row, predicted in predictions)
        fitted = judged[True, True] + judged[False, True]
        yield Fits(of, size, len(predictions), fitted, judged[True, False], judged[False, True])


def taken_gib(row: Row) -> float:
    """Return what a row took of the card: torch's allocator and the CUDA context."""
    return row.values["peak_reserved_gib"] + CUDA_CONTEXT_GIB


def dangerous_fits(predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
    """Yield the rows that were said to fit on a card and would not have."""
    for size in CARD_SIZES_GIB:
        for row, predicted in predictions:
            if predicted.needed_gib <= size < taken_gib(row):
                yield {
                    "size_gib": size,
                    "set": row.set,
                    "what": row.summary,
                    "needed_gib": predicted.needed_gib,
                    "taken_gib": taken_gib(row),
                }


def headlines() -> Iterator[dict[str, Any]]:
    """Yield what was measured for the README's table, with the share of the card's rate that it is (MFU)."""
    for row, predicted in predict_all(["headlines", "two_gpus"]):
        flop = flop_per_token(row.anatomy, row.tuning, row.values["sequence"], recomputing=False)
        yield {
            "what": row.summary,
            "gpus": row.setting.gpus,
            "peak_reserved_gib": row.values["peak_reserved_gib"],
            "predicted_reserved_gib": predicted.peak_reserved_gib,
            "tokens_per_second": row.values["tokens_per_second"],
            "predicted_tokens_per_second": row.setting.tokens / predicted.step_seconds,
            "mfu": row.values["tokens_per_second"] * flop / (PEAK_TFLOPS * 1e12),
        }


def chat_search(rows: int | None = None) -> tuple[Work, list[Candidate], Candidate]:
    """Return the work of an 8B LoRA on rows as long as chats, every plan for it on a free H200, and the one taken."""
    recipe = Recipe(
        base=Base(model=CHAT_MODEL),
        data=Data(source="random", max_length=max(chat_lengths())),
        method=LoraMethod(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear"),
        training=Training(global_batch=CHAT_BATCH, learning_rate=1e-5, epochs=CHAT_EPOCHS, optimizer="adamw_8bit"),
    )
    drawn = chat_lengths()
    lengths = tuple(drawn[index % len(drawn)] for index in range(rows or len(drawn)))
    work = Work(recipe, anatomy_of(CHAT_MODEL), lengths, (), sum(lengths) / len(lengths), max(lengths), 0)
    gpu = GpuDevice(0, "NVIDIA H200", H200_GIB, H200_FREE_GIB, (9, 0), None, None, None, None)
    machine = Machine("Linux", "", 16, 128.0, 120.0, 60.0, (gpu,), None, "")
    # Both backends and Liger are taken for installed, as on the machine that was measured.
    around = replace(look_around(work, machine, None), backends=("unsloth", "transformers"), liger=True)
    candidates = list(search(work, around))
    return work, candidates, choose([each for each in candidates if each.needed_gib <= around.budget_gib])


def chat_plans() -> dict[str, Any]:
    """Return what plans for rows as long as chats reached, and the plan that Tunewright takes for those rows."""
    work, candidates, chosen = chat_search()
    plans: list[dict[str, Any]] = []
    for row in read_rows("chat_lengths"):
        if "tokens_per_second" not in row.values:
            continue
        same = [each for each in candidates if _is_plan_of(row, each)]
        plans.append({
            "plan": _plan_of(row),
            "tokens_per_second": row.values["tokens_per_second"],
            "predicted_tokens_per_second": _busy_tokens_per_second(work, same[0], row) if same else None,
            "chosen": chosen in same and not row.values["note"],
            "rival": bool(row.values["note"]),
        })  # fmt: skip
    plans.sort(key=lambda each: -each["tokens_per_second"])
    taken = next((each["tokens_per_second"] for each in plans if each["chosen"]), None)
    best = plans[0]["tokens_per_second"]
    return {"plans": plans, "chosen": chosen.summary, "share_of_best": taken / best if taken else None}


def _is_plan_of(row: Row, candidate: Candidate) -> bool:
    """Tell whether a measured row ran as this plan would."""
    setting, values = candidate.setting, row.values
    recomputed = values["recompute_every"] if values["checkpointing"] else 0
    own = setting.recompute_every if setting.checkpointing != "off" else 0
    same = (values["backend"], values["liger"], values["micro_batch"], recomputed)
    return same == (setting.backend, setting.liger, candidate.micro_batch, own)


def _busy_tokens_per_second(work: Work, candidate: Candidate, row: Row) -> float:
    """Return the useful tokens a second of a plan on a host as busy as the one that was measured."""
    card, fitted = find_card(row.values["gpu"]), coefficients(row.host)
    anatomy, tuning, setting = work.anatomy, work.tuning, candidate.setting
    seconds = gpu_speed.micro_batch_seconds(anatomy, tuning, setting, candidate.load, card, fitted)
    seconds += gpu_speed.optimizer_seconds(anatomy, tuning, setting, card, fitted)
    return work.rows.mean * candidate.micro_batch / seconds


def _plan_of(row: Row) -> str:
    values = row.values
    words = [f"{values['backend']}{' with Liger' if values['liger'] else ''}", f"{values['micro_batch']} rows"]
    if values["checkpointing"]:
        every = values["recompute_every"]
        words.append("recomputing" if every == 1 else f"recomputing every {every} layers")
    return ", ".join([*words, values["note"]] if values["note"] else words)


def worst(predictions: Sequence[Prediction], number: int) -> Iterator[dict[str, Any]]:
    """Yield for each figure the rows that are predicted worst."""
    for figure, field in FIGURES.items():
        for row, predicted in sorted(predictions, key=lambda each: -abs(error_of(*each, figure)))[:number]:
            yield {
                "figure": figure,
                "set": row.set,
                "what": row.summary,
                "measured": row.values[field],
                "predicted": getattr(predicted, field),
                "error": 100 * error_of(row, predicted, figure),
                "why": kept_out(row) if figure == "step" else "",
            }


def make_report(number: int) -> dict[str, Any]:
    """Return the whole report, with `number` of the worst rows of each figure."""
    everything = predict_all(SETS)
    known = {
        "seen": [each for each in everything if each[0].set in SEEN],
        "not seen": [each for each in everything if each[0].set not in SEEN],
    }
    failed = Counter((row.set, why.splitlines()[0][:100]) for row, why in failed_rows(*SETS[:-1], "chat_lengths"))
    return {
        "errors": [asdict(each) for each in errors_by_set()],
        "by_method": [asdict(each) for each in errors_by_method(everything)],
        "fits": [asdict(each) for of, rows in known.items() for each in fits_by_size(of, rows)],
        "dangerous": list(dangerous_fits(everything)),
        "headlines": list(headlines()),
        "chat_lengths": chat_plans(),
        "failed": [{"set": name, "why": why, "rows": rows} for (name, why), rows in failed.items()],
        "worst": list(worst(everything, number)),
    }


def print_errors(title: str, errors: Sequence[dict[str, Any]]) -> None:
    """Print a table of errors, figure by figure."""
    print(f"{title}\n  {'':<46}{'rows':>5}{'median':>9}{'95th':>9}{'under':>9}{'over':>9}")
    for figure in dict.fromkeys(each["figure"] for each in errors):
        print(f"  {_FIGURE_NAMES[figure]}")
        for each in errors:
            if each["figure"] == figure:
                shares = (each["median"], each["percentile_95"], each["worst_under"], each["worst_over"])
                print(f"    {each['of']:<44}{each['rows']:>5}" + "".join(f"{share:>8.1f}%" for share in shares))
    print()


_FIGURE_NAMES = {"allocated": "peak allocated", "reserved": "peak reserved", "step": "time of a step"}


def print_report(report: dict[str, Any]) -> None:
    """Print the report for people."""
    print_errors("Errors of the predictions, of what was measured", report["errors"])
    print_errors("By backend and method, all sets, today's formulas", report["by_method"])
    print("Cards of other sizes: rows said to fit that do not (dangerous), and said not to fit that do (cautious)")
    _print_table(
        ("rows", "card", "number", "fit", "dangerous", "cautious"),
        [(each["of"], f"{each['size_gib']} GiB", each["rows"], each["fitted"], each["dangerous"], each["over_cautious"])
         for each in report["fits"]],
    )  # fmt: skip
    for each in report["dangerous"]:
        figures = f"{each['needed_gib']:.2f} GiB predicted as needed, {each['taken_gib']:.2f} taken"
        print(f"  Dangerous on {each['size_gib']} GiB: {each['set']}, {each['what']}: {figures}\n")
    print("Headlines, for each GPU: peak reserved in GiB, tokens a second, share of 790 TFLOP/s without recomputing")
    _print_table(
        ("", "GPUs", "GiB", "predicted", "tokens/s", "predicted", "MFU"),
        [(each["what"], each["gpus"], f"{each['peak_reserved_gib']:.1f}", f"{each['predicted_reserved_gib']:.1f}",
          f"{each['tokens_per_second']:,.0f}", f"{each['predicted_tokens_per_second']:,.0f}", f"{100 * each['mfu']:.0f}%")
         for each in report["headlines"]],
    )  # fmt: skip
    chat = report["chat_lengths"]
    print(f"Rows as long as chats, {CHAT_MODEL} LoRA: useful tokens a second on the busy host")
    _print_table(
        ("", "measured", "predicted", ""),
        [(each["plan"], f"{each['tokens_per_second']:,.0f}", _or_nothing(each["predicted_tokens_per_second"]),
          "taken" if each["chosen"] else "") for each in chat["plans"]],
    )  # fmt: skip
    share = chat["share_of_best"]
    reached = "it was not measured" if share is None else f"{100 * share:.0f} % of the best that was measured"
    print(f"  The plan for a global batch of {CHAT_BATCH}: {chat['chosen']}; {reached}.\n")
    print("Rows without figures, which are in none of the tables")
    _print_table(
        ("set", "why", "rows"), [(each["set"], each["why"], each["rows"]) for each in report["failed"]], left=2
    )
    if report["worst"]:
        print("Predicted worst")
        _print_table(
            ("figure", "set", "", "measured", "predicted", "error"),
            [(each["figure"], each["set"], each["what"], f"{each['measured']:.3f}", f"{each['predicted']:.3f}",
              f"{each['error']:+.1f}%") for each in report["worst"]],
            left=3,
        )  # fmt: skip


def _or_nothing(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> None:
    """Print a table whose first columns are aligned to the left."""
    cells = [list(titles), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        aligned = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        aligned += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        print("  " + "  ".join(aligned).rstrip())
    print()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report, or its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="list the N worst rows of each figure")
    options = parser.parse_args(arguments)
    report = make_report(options.worst)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
