"""Advice: whether to prompt, adapt or train everything, by interpreting the questions and rules for one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..foundation.errors import TunewrightError, nearest
from ..foundation.text import one_line
from . import cost
from .anatomy import Anatomy
from .calibration import measured_watts, read_calibration
from .cards import find_card
from .machine import Machine
from .methods import METHODS, Demand, Method, MethodFigures, compare, demand_of, emptied
from .methods import compare_methods as compare_methods
from .prices import read_prices
from .questions import (
    NAMES,
    QUESTIONS,
    ROW_LIMITS,
    RULES,
    TIME_LIMITS,
    TOKEN_LIMITS,
    TYPICAL_ROW_TOKENS,
    TYPICAL_ROWS,
    TYPICAL_TOKENS,
    Outcome,
)
from .ways_out import Limits, WayOut, hours_text, ways_out

_WITHIN: dict[Outcome, tuple[Method, ...]] = {
    "continued pre-training": ("full", "lora", "qlora"),
    "preference tuning": ("lora", "qlora", "full"),
}
"""The methods by which an outcome can be reached."""
_OBJECTIVES: dict[str, str] = {"pairs": "dpo", "labels": "kto"}


@dataclass(frozen=True, slots=True)
class AdviceReason:
    """Why the advice is what it is, with the weight that the rule had."""

    outcome: Outcome
    because: str
    weight: float


@dataclass(frozen=True, slots=True)
class Change:
    """One other answer, and the outcome that it leads to."""

    question: str
    option: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, why, and what would change it."""

    outcome: Outcome
    headline: str
    reasons: tuple[AdviceReason, ...]
    would_change: tuple[str, ...]
    """A sentence for each of `changes`."""
    figures: tuple[MethodFigures, ...]
    answers: Mapping[str, str]
    """The answer to every question; counts stand before what was said."""
    within: Method | None = None
    """The method by which continued pre-training or preference tuning is to be done."""
    changes: tuple[Change, ...] = ()
    ways_out: tuple[WayOut, ...] = ()
    """Where the outcome is "not here": the changes that would do, the smallest first."""
    notes: tuple[str, ...] = ()
    """What the figures stand on, and what is to be written into a recipe for it."""

    @property
    def method(self) -> Method | None:
        """The method to train with, None where training is not advised."""
        return self.outcome if self.outcome in ("full", "lora", "qlora") else self.within


@dataclass(frozen=True, slots=True)
class Case:
    """What was answered and counted, for one model on one machine."""

    answers: Mapping[str, str]
    machine: Machine
    anatomy: Anatomy
    rows: int | None = None
    tokens: int | None = None
    hourly_rate: float | None = None
    budget: float | None = None
    measured_watts: float | None = None

    @property
    def given(self) -> dict[str, str]:
        """The answer to every question."""
        return complete(self.answers, self.rows, self.tokens)

    @property
    def limits(self) -> Limits:
        return Limits(TIME_LIMITS[self.given["time"]], self.budget)

    @property
    def usable(self) -> Machine:
        """The machine as far as it may be used."""
        return emptied(self.machine) if self.given["hardware"] == "whole" else self.machine

    @property
    def demand(self) -> Demand:
        """The data, as counted or else as typical for the answers."""
        given = self.given
        rows = max(1, self.rows if self.rows is not None else TYPICAL_ROWS[given["rows"]])
        if self.tokens is not None:
            tokens = self.tokens
        elif self.answers.get("tokens", "usual") == "usual":
            tokens = rows * TYPICAL_ROW_TOKENS
        else:
            tokens = TYPICAL_TOKENS[given["tokens"]]
        is_text = given["data_kind"] == "text" and given["goal"] in ("knowledge", "language", "quality")
        demand = demand_of(rows, max(1, round(tokens / rows)), "text" if is_text else "examples", self.anatomy.context)
        return replace(demand, hourly_rate=self.hourly_rate, measured_watts=self.measured_watts)

    def answering(self, question: str, option: str) -> Case:
        """Return the case with another answer; where rows or tokens were counted, with another count."""
        if question == "rows" and self.rows is not None:
            rows = TYPICAL_ROWS[option]
            return replace(
                self, rows=rows, tokens=self.tokens and max(1, round(self.tokens / max(1, self.rows) * rows))
            )
        if question == "tokens" and self.tokens is not None:
            return replace(self, tokens=TYPICAL_TOKENS.get(option, self.tokens))
        return replace(self, answers={**self.answers, question: option})


def advise(
    answers: Mapping[str, str],
    machine: Machine,
    anatomy: Anatomy,
    rows: int | None = None,
    tokens: int | None = None,
    hourly_rate: float | None = None,
    budget: float | None = None,
) -> Advice:
    """Return what to do for `answers` (question → option; missing ones are taken for granted).

    `rows` and `tokens` count the data; without them the answers and 400 tokens a row stand in. `budget` is in the
    currency of `hourly_rate`. Raises TunewrightError for a question or an option that does not exist.
    """
    drawn = measured_watts(machine.short_name)
    case = Case(answers, machine, anatomy, rows, tokens, hourly_rate, budget, drawn)
    calibration = read_calibration()
    figured: dict[tuple[bool, Demand], tuple[MethodFigures, ...]] = {}

    def figure(other: Case) -> tuple[MethodFigures, ...]:
        demand = other.demand
        key = (other.usable == other.machine, demand)
        if key not in figured:
            figured[key] = compare(other.usable, anatomy, demand, calibration)
        return figured[key]

    given, figures = case.given, figure(case)
    outcome, reasons = decide(given, figures, case.limits)
    changes = tuple(_changes(case, outcome, figure))
    out: tuple[WayOut, ...] = ()
    if outcome == "not here":
        out = tuple(ways_out(case.usable, anatomy, case.demand, case.limits, read_prices(), preferred(given)))
    return Advice(
        outcome=outcome,
        headline=_headline(outcome, within_of(outcome, given, figures, case.limits), figures, case, out),
        reasons=reasons,
        would_change=tuple(_sentence(change, case) for change in changes),
        figures=figures,
        answers=given,
        within=within_of(outcome, given, figures, case.limits),
        changes=changes,
        ways_out=out,
        notes=tuple(_notes(outcome, case)),
    )


def complete(answers: Mapping[str, str], rows: int | None = None, tokens: int | None = None) -> dict[str, str]:
    """Return an answer to every question; counted rows and tokens override what was said.

    Raises TunewrightError for a question or an option that does not exist.
    """
    questions = {question.key: question for question in QUESTIONS}
    for key, option in answers.items():
        if key not in questions:
            raise _unknown("question", key, questions)
        options = [each.key for each in questions[key].options]
        if option not in options:
            raise _unknown(f"answer to {key}", option, options)
    given = {key: answers.get(key, question.options[0].key) for key, question in questions.items()}
    if rows is not None:
        given["rows"] = next(name for limit, name in ROW_LIMITS if rows < limit)
    if tokens is None and given["tokens"] == "usual":
        tokens = (rows if rows is not None else TYPICAL_ROWS[given["rows"]]) * TYPICAL_ROW_TOKENS
    if tokens is not None:
        given["tokens"] = next(name for limit, name in TOKEN_LIMITS if tokens < limit)
    return given


def decide(
    given: Mapping[str, str], figures: tuple[MethodFigures, ...], limits: Limits | None = None
) -> tuple[Outcome, tuple[AdviceReason, ...]]:
    """Return the outcome with the most weight among those that this machine allows, and the reasons that counted."""
    limits = limits or Limits(TIME_LIMITS[given["time"]])
    reasons = _weigh(given)
    scores = _scores(reasons)
    ruled_out: list[AdviceReason] = []
    for each in figures:
        if not limits.allow(each):
            scores.pop(each.method, None)
            ruled_out.append(AdviceReason(each.method, _why_not(each, limits), -10.0))
    for outcome in _WITHIN:
        if outcome in scores and within_of(outcome, given, figures, limits) is None:
            del scores[outcome]
    outcome: Outcome = max(scores, key=lambda name: scores[name]) if scores else "not here"
    within = within_of(outcome, given, figures, limits)
    kept = [each for each in reasons if each.outcome in (outcome, within)]
    kept += [each for each in reasons if each.outcome not in (outcome, within, "qlora") and each.weight < 0]
    compared = [AdviceReason(outcome, said, 0.5) for said in _comparisons(within or outcome, figures)]
    return outcome, (*sorted(kept, key=lambda each: -abs(each.weight)), *compared, *ruled_out)


def _weigh(given: Mapping[str, str]) -> list[AdviceReason]:
    """Return what the rules say that apply; what speaks for or against adapters does so for QLoRA too."""
    speaking = [rule for rule in RULES if all(given[key] in options for key, options in rule.when.items())]
    reasons = [AdviceReason(rule.outcome, rule.because, rule.weight) for rule in speaking]
    return reasons + [
        AdviceReason("qlora", rule.because, rule.weight) for rule in speaking if rule.outcome == "lora" and rule.when
    ]


def _scores(reasons: Iterable[AdviceReason]) -> dict[Outcome, float]:
    scores: dict[Outcome, float] = {}
    for reason in reasons:
        scores[reason.outcome] = scores.get(reason.outcome, 0.0) + reason.weight
    return scores


def within_of(
    outcome: Outcome, given: Mapping[str, str], figures: tuple[MethodFigures, ...], limits: Limits
) -> Method | None:
    """Return the method by which `outcome` is best reached here; None where none is possible, or none is needed.

    Continued pre-training takes the method that the rules speak for most, preference tuning adapters where it can.
    """
    allowed: set[Method] = {each.method for each in figures if limits.allow(each)}
    order = _WITHIN.get(outcome, ()) if outcome == "preference tuning" else preferred(given, _WITHIN.get(outcome, ()))
    return next((method for method in order if method in allowed), None)


def preferred(given: Mapping[str, str], methods: tuple[Method, ...] = METHODS) -> tuple[Method, ...]:
    """Return `methods` in the order in which the rules speak for them."""
    scores = _scores(_weigh(given))
    return tuple(sorted(methods, key=lambda method: -scores.get(method, 0.0)))


def _why_not(figures: MethodFigures, limits: Limits) -> str:
    """Say with its figure why a method is ruled out."""
    name = _capital(NAMES[figures.method])
    if not figures.fits:
        return f"{name} needs {figures.needed_gib:.1f} GiB here, and {figures.usable_gib:.1f} may be used."
    if limits.too_long(figures):
        return f"{name} would take {hours_text(figures.seconds)} here, longer than the {hours_text(limits.seconds)} allowed."
    return f"{name} would cost {figures.cost:,.2f} here, more than the budget of {limits.money:,.2f}."


def _comparisons(chosen_name: Outcome, figures: tuple[MethodFigures, ...]) -> Iterator[str]:
    """Yield how the chosen method compares here with the others that fit."""
    chosen = next((each for each in figures if each.method == chosen_name), None)
    for each in figures:
        if chosen is not None and each is not chosen and each.fits:
            memory_share, time_share = each.peak_gib / chosen.peak_gib - 1, each.seconds / chosen.seconds - 1
            yield (
                f"{_capital(NAMES[each.method])} would take {100 * memory_share:+.0f} % memory "
                f"({each.peak_gib:.1f} GiB) and {100 * time_share:+.0f} % time here."
            )


def _headline(
    outcome: Outcome, within: Method | None, figures: tuple[MethodFigures, ...], case: Case, out: tuple[WayOut, ...]
) -> str:
    found = next((each for each in figures if each.method == (within or outcome)), None)
    by = f" with {NAMES[within]}" if within else ""
    if found:
        first = " for the supervised tuning before it" if outcome == "preference tuning" else ""
        return (
            f"{_capital(NAMES[outcome])}{by}: about {found.peak_gib:.1f} GiB and {hours_text(found.seconds)}{first} on "
            f"{case.machine.short_name}, {found.trainable_parameters / 1e6:.1f} million trained parameters."
        )
    match outcome:
        case "prompting":
            return "Prompting: write a better prompt first; no training is needed yet."
        case "few-shot":
            return "Few-shot: put your examples into the prompt first; they are too few to train on."
        case _:
            return f"Not on this machine: {_obstacle(figures, case)} {_smallest(out)}"


def _obstacle(figures: tuple[MethodFigures, ...], case: Case) -> str:
    fitting = [each for each in figures if each.fits]
    if fitting:
        least = min(fitting, key=lambda each: each.seconds)
        price = "" if least.cost is None else f" and cost {least.cost:,.2f}"
        return f"{NAMES[least.method]}, the fastest method that fits, would take {hours_text(least.seconds)}{price}."
    least = min(figures, key=lambda each: each.needed_gib)
    here = case.usable
    free = max((gpu.memory_free_gib for gpu in here.gpus), default=here.memory_free_gib)
    return f"{NAMES[least.method]} needs {least.needed_gib:.1f} GiB; of {free:.1f} free, {least.usable_gib:.1f} may be used."


def _smallest(out: tuple[WayOut, ...]) -> str:
    """Return the first way out as a sentence, or that there is none."""
    if not out:
        return "No single change of data, model size or card was found that would do."
    return f"The smallest change that would do: {out[0].text}"


def _changes(case: Case, outcome: Outcome, figure: Callable[[Case], tuple[MethodFigures, ...]]) -> Iterator[Change]:
    """Yield the single answers that would lead elsewhere."""
    given = case.given
    for question in QUESTIONS:
        for option in question.options:
            if option.key == given[question.key] or (question.key == "tokens" and option.key == "usual"):
                continue
            other = case.answering(question.key, option.key)
            found, _ = decide(other.given, figure(other), other.limits)
            if found != outcome:
                yield Change(question.key, option.key, found)


def _sentence(change: Change, case: Case) -> str:
    question = next(each for each in QUESTIONS if each.key == change.question)
    option = next(each for each in question.options if each.key == change.option)
    counted = case.rows if change.question == "rows" else case.tokens if change.question == "tokens" else None
    said = f" (counted: {counted:,})" if counted is not None else ""
    return f"{question.text} “{option.text}”{said} would lead to {NAMES[change.outcome]}."


def _notes(outcome: Outcome, case: Case) -> Iterator[str]:
    """Yield what the figures stand on, and what is to be written into a recipe for it."""
    if outcome == "preference tuning":
        wanted = _OBJECTIVES.get(case.given["data_kind"], "dpo")
        yield (
            f'The figures are for supervised tuning on as many rows. `training.objective = "{wanted}"` asks the reference about each of '
            "them too, and of a pair reads both answers: `tunewright plan` prices that on your own rows."
        )
    if outcome == "continued pre-training":
        yield (
            'The figures are for sequences of up to 2,048 tokens read once. `training.objective = "cpt"` divides longer '
            "documents into rows of the maximum length and trains every token of them."
        )
    card = find_card(case.machine.gpus[0].name) if case.machine.gpus else None
    if card is not None and card.note:
        yield f"{card.name}: {card.note}"
    yield f"Energy is counted {cost.POWER_WORDS[cost.power_source(case.machine, case.measured_watts)]}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _unknown(what: str, name: str, known: Iterable[str]) -> TunewrightError:
    names = list(known)
    suggestion = nearest(name, names)
    return TunewrightError(
        f"Unknown {what}",
        f"{one_line(name, 60)!r} is none of {', '.join(names)}.",
        f"Did you mean {suggestion}?" if suggestion else "Choose one of these.",
    )
