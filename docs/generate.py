"""Writes the parts of the documentation that come from the code, between their marks.

`python docs/generate.py` rewrites them; `--check` only tells whether they are as the code says.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunewright.cli.parser import Parser, build_parser
from tunewright.cli.table import gib_text, percent_text, seconds_text
from tunewright.engine import activations, flop, gpu_memory, gpu_speed, memory, states
from tunewright.engine.architectures import FAMILIES
from tunewright.engine.cards import CARDS
from tunewright.engine.data.findings import CATALOGUE
from tunewright.engine.data.formats import FIELDS
from tunewright.engine.questions import QUESTIONS
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.model import FORMATS, TIERS, Recipe, Section, parse_recipe
from tunewright.recipes.schema import METHODS, section_of, slot_at
from tunewright.tui.keys import key_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "reference.md",
    ROOT / "docs" / "predictions.md",
    ROOT / "docs" / "data.md",
    ROOT / "docs" / "training.md",
    ROOT / "docs" / "runs.md",
    ROOT / "docs" / "recipes.md",
]
FIGURES = ROOT / "benchmarks" / "figures.json"


def commands() -> str:
    """Every command's own help, and that of its verbs."""
    return "\n\n".join(
        f"### `{parser.prog}`\n\n```\n{parser.format_help().rstrip()}\n```" for parser in _parsers(build_parser())
    )


def _parsers(parser: Parser) -> Iterator[Parser]:
    parser.load()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in action.choices:
                yield from _parsers(action.choices[name])


def keys() -> str:
    """The interface's key table."""
    rows = ["| Where | Key | What it does |", "|---|---|---|"]
    rows += [f"| {where} | `{key}` | {description} |" for key, _, description, where in key_table()]
    return "\n".join(rows)


def recipes() -> str:
    """The built-in recipes."""
    rows = ["| Recipe | Standing | Objective | Method | Model | What it is |", "|---|---|---|---|---|---|"]
    order = {"starter": 0, "A": 1, "B": 2, "C": 3, "D": 4}
    found = {name: parse_recipe(text, name) for name, text in built_in().items()}
    for name, recipe in sorted(found.items(), key=lambda each: (order[each[1].card.tier or "starter"], each[0])):
        tier = recipe.card.tier
        standing = f"{TIERS[tier]} ({tier})" if tier else "runs anywhere"
        words = (standing, recipe.training.objective, recipe.method.kind, recipe.base.model, recipe.card.title)
        rows.append(f"| `{name}` | {' | '.join(words)} |")
    return "\n".join(rows)


def left_out() -> str:
    """The cited configurations that are no recipes here."""
    found = tomllib.loads((ROOT / "docs" / "left_out.toml").read_text(encoding="utf-8"))
    rows = ["| Configuration | Why it is left out |", "|---|---|"]
    return "\n".join([*rows, *(f"| {each['title']} | {each['because']} |" for each in found.values())])


def fields() -> str:
    """Every key of a recipe, with its default, what it may hold, and its meaning."""
    rows = ["| Key | Default | May be | Meaning |", "|---|---|---|---|"]
    for name, field in Recipe.model_fields.items():
        if name == "method":
            for kind, method in METHODS.items():
                rows += _rows(method, name, f"method ({kind})")
        else:
            section = section_of(field.annotation)
            assert section is not None, "every part of a recipe is a table"
            rows += _rows(section, name, name)
    return "\n".join(rows)


def _rows(section: type[Section], path: str, told: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        slot = slot_at(f"{path}.{name}")
        if inner is not None:
            yield from _rows(inner, f"{path}.{name}", f"{told}.{name}")
        elif slot is not None:
            default = "required" if field.is_required() else _literal(field.default)
            cells = (f"`{told}.{name}`", default, slot.allowed, field.description or "")
            yield f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"


def _literal(value: Any) -> str:
    return "not set" if value is None else f"`{json.dumps(value)}`"


def figures() -> str:
    """What `make bench` measured last."""
    measured = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = ["| Method | Trainable | Peak: predicted | measured | Training: predicted | measured | Before | After |"]
    rows.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for method, each in measured["demo"].items():
        rows.append(
            f"| {method} | {each['trainable_parameters']:,} | {gib_text(each['peak_predicted_gib'])} "
            f"| {gib_text(each['peak_measured_gib'])} | {seconds_text(each['seconds_predicted'])} "
            f"| {seconds_text(each['seconds_measured'])} | {percent_text(each['exact_match_before'])} "
            f"| {percent_text(each['exact_match_after'])} |"
        )
    start = (
        f"`tunewright --help` takes {measured['help_seconds']:.2f} s, the first screen is there after "
        f"{measured['first_paint_seconds']:.2f} s; `tunewright estimate` takes {measured['estimate_seconds']:.2f} s, and the search "
        f"for the fastest plan {1000 * measured['plan_search_seconds']:.0f} ms in process."
    )
    return f"Measured by `make bench` on: {measured['machine']}.\n\n" + "\n".join(rows) + f"\n\n{start}"


ERRORS = {
    "seen while the formulas were written": "seen while the formulas were written",
    "predicted before measured, as written down": "predicted before they were measured",
    "measured alone on the host": "measured alone on an idle host",
}
FIGURE_NAMES = {"allocated": "peak allocated", "reserved": "peak reserved", "step": "time of a step"}


def accuracy() -> str:
    """How far predictions are from what was measured, and the headline runs."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from report import make_report

    report: dict[str, Any] = make_report(0)
    rows = ["| Figure | Rows on an H200 | Number | Median error | 95th percentile | Worst under | Worst over |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|")
    for each in report["errors"]:
        if each["of"] in ERRORS:
            rows.append(
                f"| {FIGURE_NAMES[each['figure']]} | {ERRORS[each['of']]} | {each['rows']} | {each['median']:.1f} % "
                f"| {each['percentile_95']:.1f} % | {each['worst_under']:.1f} % | {each['worst_over']:+.1f} % |"
            )
    judged = sum(each["rows"] for each in report["fits"])
    wrong = sum(each["dangerous"] for each in report["fits"])
    cautious = sum(each["over_cautious"] for each in report["fits"])
    said = (
        f"Of {judged:,} judgements whether one of these runs fits a card of 8 to 80 GiB, {wrong} said “fits” where it would "
        f"not have, and {cautious} the opposite. Most runs were measured while others loaded on the same host, which the "
        "times of small models suffer from."
    )
    runs = ["| On one H200 | Reserved: predicted | measured | Tokens a second: predicted | measured |"]
    runs.append("|---|--:|--:|--:|--:|")
    for each in report["headlines"]:
        if each["gpus"] == 1:
            runs.append(
                f"| {each['what']} | {each['predicted_reserved_gib']:.1f} GiB | {each['peak_reserved_gib']:.1f} GiB "
                f"| {each['predicted_tokens_per_second']:,.0f} | {each['tokens_per_second']:,.0f} |"
            )
    return "\n".join(rows) + f"\n\n{said}\n\n" + "\n".join(runs)


def terms() -> str:
    """What the terms of the memory are."""
    rows = ["| Term | What it is |", "|---|---|"]
    return "\n".join([*rows, *(f"| {name} | {meaning} |" for name, meaning in memory.TERMS.items())])


FORMULAS = {
    "What stands between two steps": (states, gpu_memory),
    "What layers keep for their backward pass": (activations,),
    "Time on a GPU": (gpu_speed,),
    "Arithmetic": (flop,),
}


def formulas() -> str:
    """The functions that the predictions are made of, in their own words."""
    parts: list[str] = []
    for title, modules in FORMULAS.items():
        rows = ["| Function | What it returns |", "|---|---|"]
        for module in modules:
            short = module.__name__.rpartition(".")[2]
            for name, function in vars(module).items():
                if not name.startswith("_") and inspect.isfunction(function) and function.__module__ == module.__name__:
                    said = " ".join((inspect.getdoc(function) or "").split()).replace("|", "\\|")
                    rows.append(f"| `{short}.{name}` | {said} |")
        parts.append(f"**{title}**\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def architectures() -> str:
    """The families whose parameters are counted by formula."""
    return ", ".join(f"`{name}`" for name in sorted(FAMILIES))


def cards() -> str:
    """The cards that are known, with the figures that predictions start from."""
    rows = ["| Card | Memory | bf16 or fp16 TFLOP/s | of a large product | Bandwidth | To a neighbour | Power |"]
    rows.append("|---|--:|--:|--:|--:|--:|--:|")
    for card in CARDS:
        rows.append(
            f"| {card.name} | {card.memory_gib:g} GiB | {card.datasheet_tflops:g} | {card.matrix_tflops:.0f} ({card.source}) "
            f"| {card.bandwidth_gb_per_second:g} GB/s | {card.link_gb_per_second:g} GB/s | {card.watts:g} W |"
        )
    return "\n".join(rows)


def questions() -> str:
    """What the advice asks, and what each answer changes."""
    rows = ["| Question | Answer | What it changes |", "|---|---|---|"]
    for question in QUESTIONS:
        for option in question.options:
            rows.append(
                f"| {question.text} (`--{question.key.replace('_', '-')}`) | {option.text} (`{option.key}`) | {option.changes} |"
            )
    return "\n".join(rows)


def findings() -> str:
    """What an audit of data can find."""
    rows = ["| Code | Severity | What it is | What to do | Mended by `--fix` |", "|---|---|---|---|---|"]
    for code, kind in CATALOGUE.items():
        rows.append(f"| `{code}` | {kind.severity} | {kind.title} | {kind.remedy} | {kind.fix or ''} |")
    return "\n".join(rows)


def formats() -> str:
    """The shapes of rows that can be read, with the fields that columns can be named for."""
    rows = ["| Format | Fields |", "|---|---|"]
    return "\n".join(
        [*rows, *(f"| `{name}` | {', '.join(f'`{field}`' for field in FIELDS[name])} |" for name in FORMATS)]
    )


def audit() -> str:
    """How long the audit of a large set took last."""
    of = json.loads((ROOT / "benchmarks" / "data_audit.json").read_text(encoding="utf-8"))
    return (
        f"Measured by `make bench-data` on {of['processors']} cores: {of['rows']:,} chat rows ({of['bytes'] / 1e9:.2f} GB, "
        f"{of['tokens']:,} tokens of the built-in model) are recognised in {of['detection_seconds']:.2f} s and audited in "
        f"{of['audit_seconds']:.0f} s with {of['peak_pss_mib']:,} MiB in all processes; the first findings are there after "
        f"{of['first_finding_seconds']:.1f} s, and cancelling takes {of['cancel_seconds']:.2f} s."
    )


def long() -> str:
    """What a run of a million steps takes to open and to follow."""
    of = json.loads((ROOT / "benchmarks" / "long_runs.json").read_text(encoding="utf-8"))
    rows = ["| What | Figure |", "|---|--:|"]
    rows += [
        f"| `runs show`, with the start of Python | {of['runs_show_seconds']:.2f} s, {of['runs_show_cpu_seconds']:.2f} s of a core |",
        f"| `attach --plain` to the first line | {of['attach_seconds']:.2f} s |",
        f"| the same without a kept fold | {of['attach_without_fold_seconds']:.2f} s |",
        f"| the monitor, to the whole history on the screen | {of['monitor_seconds']:.2f} s, {of['monitor_cpu_seconds']:.2f} s of a core |",
        f"| of these, reading the kept fold and the {of['events_after_the_kept_fold_kib'] / 1024:.1f} MiB of events after it | {of['fold_kept_cpu_seconds']:.2f} s of a core |",
        f"| making the fold anew | {of['fold_anew_cpu_seconds']:.0f} s of a core |",
        f"| following {of['steps_per_second_followed']:.0f} steps a second in the monitor | {percent_text(of['monitor_share_of_a_core'])} of a core |",
        f"| the same with `attach --plain` | {percent_text(of['attach_share_of_a_core'])} of a core |",
    ]
    for beside in of["beside"]:
        cores = "1 core" if beside["cores"] == 1 else f"{beside['cores']} cores"
        share = percent_text(beside["each_follower_share_of_a_core"])
        rows += [
            f"| {beside['followers']} monitors beside a step that keeps {cores} busy, each | {share} of a core |",
            f"| the step's own processor time beside them | {_slower(beside, 'slower_in_processor_time')} |",
            f"| its time on the clock | {_slower(beside, 'slower_on_the_clock')} |",
        ]
    said = (
        f"Measured by `make bench-runs` on {of['machine']}: {of['steps']:,} steps, {of['events_mib']:,} MiB of events, a fold of "
        f"{of['fold_kib']:,} KiB. The load is that of other work at the time, which what stands on the clock suffers from. The trainer's "
        "stand-in tells 20 steps a second; where no core is idle, it loses what followers take."
    )
    return said + "\n\n" + "\n".join(rows)


def _slower(of: dict[str, float], what: str) -> str:
    return f"{100 * of[what]:+.1f} % ± {100 * of[f'{what}_error']:.1f}"


def opening() -> str:
    """How soon the interface is there."""
    of = json.loads((ROOT / "benchmarks" / "first_screen.json").read_text(encoding="utf-8"))
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from first_screen import NAMES

    rows = ["| What | On the clock | The least | Of a core |", "|---|--:|--:|--:|"]
    rows += [
        f"| {NAMES[name]} | {1000 * seconds:.0f} ms | {1000 * of['least_seconds'][name]:.0f} ms "
        f"| {1000 * of['core_seconds'][name]:.0f} ms |"
        for name, seconds in of["seconds"].items()
    ]
    parts = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in of["library_parts_seconds"].items())
    return (
        f"Measured by `make bench-start` on {of['machine']}, Python {of['python']}: {of['recipes']:,} recipes with "
        f"{of['evidence_rows']:,} rows of evidence, and a run of {of['steps']:,} steps. Medians of {of['times']}; the load is that of "
        f"other work at the time.\n\n" + "\n".join(rows) + f"\n\nOf the library's start: {parts}."
    )


WHO = {"ours": "Tunewright", "trl": "transformers and TRL as they come", "unsloth": "Unsloth and TRL as they come"}
HOW = {"one": "", "ddp": "DDP", "fsdp2": "FSDP2"}
LENGTHS = {"chat": "as long as chats", "fixed": "of 2,048 tokens each"}


def rivals() -> str:
    """Our runs beside the libraries' own defaults."""
    lines = (ROOT / "benchmarks" / "rows" / "side_by_side.jsonl").read_text(encoding="utf-8").splitlines()
    measured = [row for row in map(json.loads, lines) if "useful_tokens_per_second" in row]
    rows = [
        "| Rows | Method | Who | Useful tokens a second | Peak allocated | To the first step |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in sorted(measured, key=lambda each: (each["rows"], each["method"], -each["useful_tokens_per_second"])):
        who = WHO[row["who"]] + (", asked for Unsloth" if row["backend"] == "unsloth" else "")
        who += f", asked for micro-batches of {row['micro_batch']}" if re.search(r"-m\d+$", row["case"]) else ""
        kept = ", kernels kept" if row.get("kernels_kept") else ""
        rows.append(
            f"| {LENGTHS[row['rows']]} | {row['method']} | {who} | {row['useful_tokens_per_second']:,.0f} "
            f"| {gib_text(row['peak_gib'])} | {row['first_step_seconds']:.0f} s{kept} |"
        )
    return "\n".join(
        [
            "Measured by `benchmarks/side_by_side.py` on NVIDIA H200 cards, one for each run, several runs on the host at once: a model of "
            "8 billion random weights, rank 16 on all projections, the same rows and global batch. The time to the first step goes "
            "from the command to the step's end, and holds all compiling but where kernels of an earlier run were kept.",
            "",
            *rows,
        ]
    )


def several() -> str:
    """The same training on one GPU and on several, and weights that no single card holds."""
    lines = (ROOT / "benchmarks" / "rows" / "several_gpus.jsonl").read_text(encoding="utf-8").splitlines()
    measured = [row for row in map(json.loads, lines) if "tokens_per_second" in row]
    alone = {(row["shape"], row["method"]): row["tokens_per_second"] for row in measured if row["gpus"] == 1}
    rows = [
        "| Model | Method | GPUs | How | Tokens a second | Times one GPU | Peak allocated on each |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for row in measured:
        one = alone.get((row["shape"], row["method"]))
        scaling = f"{row['tokens_per_second'] / one:.2f}" if one else ""
        rows.append(
            f"| {row['shape']} | {row['method']} | {row['gpus']} | {HOW[row['parallelism']]} | {row['tokens_per_second']:,.0f} "
            f"| {scaling} | {gib_text(row['peak_gib'])} |"
        )
    return "\n".join(
        [
            "Measured by `benchmarks/several_gpus.py` on H200 cards of one host, rows of 2,048 tokens, random weights:",
            "",
            *rows,
        ]
    )


def interchange() -> str:
    """How many examples of other tools load, and how many recipes come back from other tools as they were."""
    figures: dict[str, Any] = json.loads((ROOT / "benchmarks" / "interchange.json").read_text(encoding="utf-8"))
    rows = [
        "| Tool | Text fine-tuning examples | Load | With a warning | Of other kinds | Read at |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for tool, parts in sorted(figures["examples"].items()):
        loaded, failed, others = (
            sum(len(each[key]) for each in parts) for key in ("loaded", "failed", "refused_paths")
        )
        warned = sum(each["with_warnings"] for each in parts)
        commits = ", ".join(f"{each['repository']}@{each['commit'][:12]}" for each in parts)
        rows.append(f"| {tool} | {loaded + failed} | {loaded} | {warned} | {others} | {commits} |")
    rows += [
        "",
        "Recipes of the catalogue, written for another tool and read back:",
        "",
        "| Tool | Recipes | The same by their hash | With a loss that is told | Refused, since it would be another run | Comes back otherwise most often |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for tool, each in figures["round_trips"].items():
        often = sorted(each["fields"].items(), key=lambda field: -field[1])[:3]
        fields = ", ".join(f"`{name}` ({count})" for name, count in often)
        rows.append(f"| {tool} | {each['recipes']} | {each['same']} | {each['told']} | {each['refused']} | {fields} |")
    return "\n".join(rows)


def mistreated() -> str:
    """What runs withstood when the harnesses were run last."""
    torture, on_cards, disks, drops = (
        json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("torture", "torture_gpu", "full_disk", "dropped")
    )
    failures = sum(each["failures"] for each in disks["writers"].values())
    rows = [
        "| What was done | How often | What was lost |",
        "|---|--:|---|",
        f"| SIGKILL to the trainer, the supervisor or both ({_most(torture['by_phase'])}) | {torture['kills']:,} "
        f"| {torture['lost_checkpoints']} checkpoints, {torture['unreadable_runs']} runs; {torture['other_losses']} with another loss "
        f"by `repr`, {torture['other_weights']} with other weights |",
        f"| the same of runs on cards ({_most(on_cards['by_backend'])}) | {on_cards['kills']:,} "
        f"| {on_cards['lost_checkpoints']} checkpoints, {on_cards['unreadable_runs']} runs; of {on_cards['runs']} runs "
        f"{on_cards['other_losses']} with another loss, {on_cards['other_weights']} with other weights |",
        f"| a file of a checkpoint flipped in one bit, cut short or removed | {torture['damaged_files']:,} "
        f"| {len(torture['damages_not_found'])} not found before loading |",
        f"| a disk that fills at one page after the other, under each writer | {failures:,} | {disks['torn']} torn states |",
        f"| a whole run on a disk of another size ({_most(disks['runs_by_end'])}) | {disks['runs']:,} "
        f"| {disks['unclear_stops']} stops without a clear word, {disks['other_results']} other results once there was space |",
        f"| a terminal dropped from a run ({_most(drops['by_way'])}) | {drops['drops']:,} "
        f"| {drops['runs_ended_early']} runs ended, {drops['other_losses']} with other losses |",
    ]
    return "\n".join(
        ["Printed by `make torture` on processors, and by `benchmarks/torture.py --gpus` on H200 cards:", "", *rows]
    )


def _most(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


PARTS: dict[str, Callable[[], str]] = {
    "mistreated": mistreated,
    "interchange": interchange,
    "left_out": left_out,
    "rivals": rivals,
    "several": several,
    "audit": audit,
    "long": long,
    "opening": opening,
    "findings": findings,
    "formats": formats,
    "accuracy": accuracy,
    "terms": terms,
    "formulas": formulas,
    "architectures": architectures,
    "cards": cards,
    "questions": questions,
    "commands": commands,
    "keys": keys,
    "recipes": recipes,
    "fields": fields,
    "figures": figures,
}


def render(text: str) -> str:
    """Return `text` with every marked part written anew."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}\n{PARTS[match[2]]()}\n{match[4]}"

    return re.sub(r"(<!-- generated: (\w+) -->)(.*?)(<!-- end -->)", replace, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = [page for page in PAGES if render(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in stale:
        if options.check:
            print(f"{page.relative_to(ROOT)} is not as the code says; `make docs` rewrites it.", file=sys.stderr)
        else:
            page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
            print(f"rewrote {page.relative_to(ROOT)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
