"""Advice: whether to prompt, adapt or train everything, as data (questions, rules, reasons) and a small interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..foundation.errors import TunewrightError, nearest
from ..foundation.text import one_line
from . import memory
from .anatomy import Anatomy
from .calibration import read_calibration
from .defaults import default_recipe
from .machine import Machine
from .search import Cadence, Work, choose, look_around, search, time_run

Outcome = Literal["prompting", "few-shot", "lora", "qlora", "full", "not here"]
METHODS: tuple[Literal["full", "lora", "qlora"], ...] = ("full", "lora", "qlora")


@dataclass(frozen=True, slots=True)
class Option:
    """One answer to a question."""

    key: str
    text: str
    changes: str
    """What choosing it changes, in a sentence."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the advice asks; the first option is taken for granted when nothing is said."""

    key: str
    text: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Speaks for (or, with a negative weight, against) an outcome when every condition holds."""

    outcome: Outcome
    weight: float
    when: Mapping[str, tuple[str, ...]]
    """Question → answers of which one was given."""
    because: str


QUESTIONS: tuple[Question, ...] = (
    Question(
        "goal",
        "What should the model do better?",
        (
            Option("behaviour", "a task of my domain", "Adapters learn a task as well as full tuning does."),
            Option("style", "answer in a style or format", "The least of all changes: few rows and a low rank do."),
            Option("knowledge", "know new facts", "Needs many rows and every layer; full tuning learns more of it."),
            Option("language", "speak another language", "Needs the most rows; full tuning learns more of it."),
            Option("quality", "be as good as can be", "Cost counts less; full tuning comes into question."),
        ),
    ),
    Question(
        "rows",
        "How many good examples are there?",
        (
            Option("hundreds", "200 to 2,000", "Enough for adapters."),
            Option("none", "fewer than 20", "Too few to train on; they serve as examples in the prompt."),
            Option("tens", "20 to 200", "Enough for a style, too few for a task."),
            Option("thousands", "2,000 to 50,000", "Enough for adapters of any rank."),
            Option("many", "more than 50,000", "Enough to train every weight."),
        ),
    ),
    Question(
        "prompted",
        "Was a good prompt with examples tried first?",
        (
            Option("yes", "yes, and it is not enough", "Tuning is the next step."),
            Option("no", "not yet", "A prompt costs minutes; with little data it comes first."),
        ),
    ),
    Question(
        "facts",
        "Do the facts change from week to week?",
        (
            Option("stable", "no", "What is learned stays true."),
            Option("changing", "yes", "Facts belong into the prompt, looked up when they are needed."),
        ),
    ),
    Question(
        "serving",
        "How many tuned models will be served?",
        (
            Option("one", "one", "No difference."),
            Option("many", "many, for tasks or customers", "Adapters of a few MB share one base model in memory."),
        ),
    ),
    Question(
        "forgetting",
        "Must it stay as good at everything else?",
        (
            Option("some", "it matters somewhat", "No difference."),
            Option("keep", "yes", "Adapters forget less than full tuning."),
            Option("free", "no", "Nothing has to be spared."),
        ),
    ),
    Question(
        "time",
        "How long may a run take?",
        (
            Option("day", "a day", "Methods that take longer here are ruled out."),
            Option("hour", "an hour", "Methods that take longer here are ruled out."),
            Option("any", "as long as it takes", "Time rules nothing out."),
        ),
    ),
    Question(
        "money",
        "What weighs more?",
        (
            Option("balanced", "a fair balance", "No difference."),
            Option("thrift", "the price", "The cheapest method that does the task is taken."),
            Option("result", "the result", "Full tuning and higher ranks come into question."),
        ),
    ),
)

RULES: tuple[Rule, ...] = (
    Rule("lora", 2, {}, "LoRA learns most tasks as well as full tuning at a fraction of the memory (PEFT's comparison: "
         "GSM8K 47.8 % against 47.2 %, Llama-3.2-3B)."),
    Rule("qlora", 1.5, {}, "QLoRA trains the same adapters in a third of the memory, and takes longer "
         "(arXiv 2305.14314)."),
    Rule("full", 1, {}, "Full tuning can change anything, and costs the most memory."),
    Rule("few-shot", 9, {"rows": ("none",)}, "Fewer than 20 rows are too few to train on; in the prompt they work at "
         "once."),
    Rule("few-shot", 3, {"rows": ("tens",), "goal": ("behaviour", "knowledge", "language", "quality")},
         "Fewer than 200 rows rarely teach a task; try them as examples in the prompt first."),
    Rule("prompting", 12, {"prompted": ("no",), "rows": ("none",), "goal": ("style", "behaviour")},
         "A good prompt costs minutes and may be enough."),
    Rule("few-shot", 3, {"prompted": ("no",), "rows": ("tens", "hundreds")},
         "A prompt with examples costs minutes, and shows what tuning has to beat."),
    Rule("prompting", 12, {"facts": ("changing",), "goal": ("knowledge",)},
         "Facts that change belong into the prompt, looked up for each question; a tuned model would go stale."),
    Rule("lora", 2, {"goal": ("style", "behaviour")}, "Style and tasks need little capacity: 310 adapters of rank 8 "
         "beat their base models on narrow tasks (LoRA Land, arXiv 2405.00732)."),
    Rule("full", 2, {"goal": ("knowledge", "language")}, "New knowledge needs capacity: on continued pre-training "
         "full tuning reached 0.263 on HumanEval, rank 256 reached 0.224 (arXiv 2405.09673)."),
    Rule("full", 1, {"goal": ("quality",)}, "With enough data full tuning is at least as good."),
    Rule("full", 1.5, {"rows": ("many",)}, "More than 50,000 rows are enough to train every weight."),
    Rule("full", -2, {"rows": ("none", "tens", "hundreds")}, "Few rows overfit when every weight is free."),
    Rule("lora", 2, {"serving": ("many",)}, "Many adapters of a few MB share one base model in memory."),
    Rule("full", -2, {"serving": ("many",)}, "Every fully tuned model needs a whole copy in memory."),
    Rule("lora", 1, {"forgetting": ("keep",)}, "Adapters forget less of what the model could do "
         "(arXiv 2405.09673)."),
    Rule("full", -1, {"forgetting": ("keep",)}, "Full tuning forgets the most."),
    Rule("full", 0.5, {"forgetting": ("free",)}, "Nothing has to be spared."),
    Rule("full", -1, {"money": ("thrift",)}, "Full tuning is the dearest."),
    Rule("full", 1, {"money": ("result",)}, "The result is worth the price."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """What one method would take on this machine."""

    method: Literal["full", "lora", "qlora"]
    trainable_parameters: int
    peak_gib: float
    seconds: float
    fits: bool
    plan: str
    """Micro-batch and recomputing in a few words."""


@dataclass(frozen=True, slots=True)
class AdviceReason:
    """Why the advice is what it is, with the weight that the rule had."""

    outcome: Outcome
    because: str
    weight: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, why, and what would change it."""

    outcome: Outcome
    headline: str
    reasons: tuple[AdviceReason, ...]
    would_change: tuple[str, ...]
    figures: tuple[MethodFigures, ...]
    answers: Mapping[str, str]


def advise(
    answers: Mapping[str, str], machine: Machine, anatomy: Anatomy, rows: int | None = None, tokens: int | None = None
) -> Advice:
    """Return what to do for `answers` (question → option; missing ones are taken for granted).

    `rows` and `tokens` count the data; without them the answer on rows and 400 tokens a row stand in.
    Raises TunewrightError for a question or an option that does not exist.
    """
    given = complete(answers, rows)
    count = rows if rows is not None else _TYPICAL_ROWS[given["rows"]]
    mean = max(1, round(tokens / count)) if tokens and count else TYPICAL_ROW_TOKENS
    figures = compare_methods(machine, anatomy, max(1, count), min(mean, anatomy.context))
    outcome, reasons = decide(given, figures)
    return Advice(
        outcome,
        _headline(outcome, figures, machine),
        reasons,
        tuple(_what_would_change(given, figures, outcome)),
        figures,
        given,
    )


TYPICAL_ROW_TOKENS = 400
_TYPICAL_ROWS = {"none": 10, "tens": 100, "hundreds": 1000, "thousands": 10_000, "many": 100_000}
_ROW_LIMITS = ((20, "none"), (200, "tens"), (2000, "hundreds"), (50_000, "thousands"))
_TIME_LIMITS = {"hour": 3600.0, "day": 86_400.0, "any": float("inf")}


def complete(answers: Mapping[str, str], rows: int | None = None) -> dict[str, str]:
    """Return an answer to every question; a counted number of rows overrides the one that was said."""
    questions = {question.key: question for question in QUESTIONS}
    for key, option in answers.items():
        if key not in questions:
            raise _unknown("question", key, questions)
        options = [each.key for each in questions[key].options]
        if option not in options:
            raise _unknown(f"answer to {key}", option, options)
    given = {key: answers.get(key, question.options[0].key) for key, question in questions.items()}
    if rows is not None:
        given["rows"] = next((name for limit, name in _ROW_LIMITS if rows < limit), "many")
    return given


def decide(given: Mapping[str, str], figures: tuple[MethodFigures, ...]) -> tuple[Outcome, tuple[AdviceReason, ...]]:
    """Return the outcome with the most weight among those that this machine allows, and the reasons that counted."""
    speaking = [rule for rule in RULES if all(given[key] in options for key, options in rule.when.items())]
    reasons = [AdviceReason(rule.outcome, rule.because, rule.weight) for rule in speaking]
    # QLoRA stands in for LoRA: what speaks for adapters speaks for both.
    reasons += [
        AdviceReason("qlora", rule.because, rule.weight) for rule in speaking if rule.outcome == "lora" and rule.when
    ]
    scores: dict[Outcome, float] = {}
    for reason in reasons:
        scores[reason.outcome] = scores.get(reason.outcome, 0.0) + reason.weight
    limit = _TIME_LIMITS[given["time"]]
    ruled_out: list[AdviceReason] = []
    for each in figures:
        if not each.fits:
            said = f"{each.method} needs {each.peak_gib:.1f} GiB here, which is more than is free."
        elif each.seconds > limit:
            said = f"{each.method} would take {each.seconds / 3600:.1f} h here, longer than you allow."
        else:
            continue
        scores.pop(each.method, None)
        ruled_out.append(AdviceReason(each.method, said, -10.0))
    outcome: Outcome = max(scores, key=lambda name: scores[name]) if scores else "not here"
    kept = [each for each in reasons if each.outcome == outcome]
    kept += [each for each in reasons if each.outcome not in (outcome, "qlora") and each.weight < 0]
    compared = [AdviceReason(outcome, said, 0.5) for said in _comparisons(outcome, figures)]
    return outcome, (*sorted(kept, key=lambda each: -abs(each.weight)), *compared, *ruled_out)


def _comparisons(outcome: Outcome, figures: tuple[MethodFigures, ...]) -> Iterator[str]:
    """Yield how the chosen method compares here with the others that fit."""
    chosen = next((each for each in figures if each.method == outcome), None)
    for each in figures:
        if chosen is not None and each is not chosen and each.fits:
            memory_share, time_share = each.peak_gib / chosen.peak_gib - 1, each.seconds / chosen.seconds - 1
            yield (
                f"{_NAMES[each.method][0].upper()}{_NAMES[each.method][1:]} would take {100 * memory_share:+.0f} % memory "
                f"({each.peak_gib:.1f} GiB) and {100 * time_share:+.0f} % time here."
            )


def compare_methods(machine: Machine, anatomy: Anatomy, rows: int, mean_tokens: int) -> tuple[MethodFigures, ...]:
    """Return what full tuning, LoRA and QLoRA would take here, each with its defaults and its fastest plan that fits."""
    return tuple(_figures(method, machine, anatomy, rows, mean_tokens) for method in METHODS)


def _figures(
    method: Literal["full", "lora", "qlora"], machine: Machine, anatomy: Anatomy, rows: int, mean_tokens: int
) -> MethodFigures:
    recipe, _ = default_recipe(method, "model", "data", rows, anatomy)
    lengths = _spread(mean_tokens, min(rows, 500), recipe.data.max_length)
    epochs = (recipe.training.epochs or 1) * rows / len(lengths)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
    work = Work(recipe, anatomy, lengths, (), mean_tokens / 3, mean_tokens, 0)
    around = look_around(work, machine, read_calibration())
    candidates = list(search(work, around))
    fitting = [each for each in candidates if each.needed_gib <= around.budget_gib]
    chosen = choose(fitting) if fitting else min(candidates, key=lambda each: each.needed_gib)
    total = time_run(work, around, chosen, Cadence(work.steps, work.steps, work.steps)).total
    return MethodFigures(
        method,
        work.tuning.trainable_parameters(anatomy),
        memory.peak_gib(chosen.terms),
        total,
        bool(fitting),
        chosen.summary,
    )


def _spread(mean: int, rows: int, longest: int) -> tuple[int, ...]:
    """Return lengths that are spread as chat rows are: from a quarter of the mean to three times it."""
    shape = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.6)
    return tuple(max(1, min(longest, round(mean * shape[index % len(shape)]))) for index in range(rows))


def _headline(outcome: Outcome, figures: tuple[MethodFigures, ...], machine: Machine) -> str:
    found = next((each for each in figures if each.method == outcome), None)
    if found:
        return (
            f"{_NAMES[outcome][0].upper()}{_NAMES[outcome][1:]}: about {found.peak_gib:.1f} GiB and {found.seconds / 60:.0f} minutes on "
            f"{machine.short_name}, {found.trainable_parameters / 1e6:.1f} million trained parameters."
        )
    match outcome:
        case "prompting":
            return "Prompting: write a better prompt first; no training is needed yet."
        case "few-shot":
            return "Few-shot: put your examples into the prompt first; they are too few to train on."
        case _:
            return smallest_change(figures, machine)


_NAMES: dict[Outcome, str] = {
    "prompting": "prompting",
    "few-shot": "examples in the prompt",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "full": "full fine-tuning",
    "not here": "nothing that this machine can do",
}


def smallest_change(figures: tuple[MethodFigures, ...], machine: Machine) -> str:
    """Return what would have to change for any method to be possible here."""
    least = min(figures, key=lambda each: each.peak_gib)
    free = max((gpu.memory_free_gib for gpu in machine.gpus), default=machine.memory_free_gib)
    total = max((gpu.memory_total_gib for gpu in machine.gpus), default=machine.memory_total_gib)
    if least.fits:
        return f"Not within the time: {least.method} would take {least.seconds / 3600:.1f} h here. Allow more time."
    wanted = f"Not on this machine: {least.method} needs {least.peak_gib:.1f} GiB, and {free:.1f} are free."
    if least.peak_gib * 1.1 < total:
        return f"{wanted} The smallest change that would do: free the {total:.1f} GiB that others use a part of."
    share = free / least.peak_gib
    return f"{wanted} The smallest change that would do: a model of {100 * share * 0.85:.0f} % of this size."


def _what_would_change(given: Mapping[str, str], figures: tuple[MethodFigures, ...], outcome: Outcome) -> Iterator[str]:
    """Yield the single answers that would lead elsewhere."""
    for question in QUESTIONS:
        for option in question.options:
            if option.key == given[question.key]:
                continue
            other, _ = decide({**given, question.key: option.key}, figures)
            if other != outcome:
                yield f"{question.text} “{option.text}” would lead to {_NAMES[other]}."


def _unknown(what: str, name: str, known: object) -> TunewrightError:
    names = [str(each) for each in known]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType, reportUnknownArgumentType]
    suggestion = nearest(name, names)
    return TunewrightError(
        f"Unknown {what}",
        f"{one_line(name, 60)!r} is none of {', '.join(names)}.",
        f"Did you mean {suggestion}?" if suggestion else "Choose one of these.",
    )
