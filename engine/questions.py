"""Questions and rules: the decision tree of the advice as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal[
    "prompting", "few-shot", "lora", "qlora", "full", "continued pre-training", "preference tuning", "not here"
]
OUTCOMES: tuple[Outcome, ...] = (
    "prompting", "few-shot", "lora", "qlora", "full", "continued pre-training", "preference tuning", "not here",
)  # fmt: skip
NAMES: dict[Outcome, str] = {
    "prompting": "prompting",
    "few-shot": "examples in the prompt",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "full": "full fine-tuning",
    "continued pre-training": "continued pre-training",
    "preference tuning": "preference tuning",
    "not here": "nothing that this machine can do",
}
"""What the outcomes are called within a sentence."""


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
            Option("behaviour", "a task of my domain", "Adapters learn tasks as well as full tuning."),
            Option("style", "answer in a style or format", "The least change: few rows and a low rank."),
            Option("knowledge", "know new facts", "Needs many rows or text; full is better."),
            Option("language", "speak another language", "Needs the most text; full is better."),
            Option("quality", "be as good as can be", "Full tuning comes into question."),
            Option("preferences", "prefer better answers", "From judged answers, after supervised tuning."),
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
        "data_kind",
        "What is in a row?",
        (
            Option("examples", "a prompt with its answer", "Supervised tuning learns to answer like that."),
            Option(
                "text", "plain text", "Nothing to answer: for knowledge and language, pre-training goes on with it."
            ),
            Option("pairs", "a better and a worse answer", "Direct preference optimisation (DPO) learns from pairs."),
            Option("labels", "an answer marked good or bad", "KTO learns from single marks."),
        ),
    ),
    Question(
        "tokens",
        "How much text is that in all?",
        (
            Option("usual", "400 tokens a row", "Taken where nothing was counted."),
            Option("few", "less than a million tokens", "Plain text this short is better looked up than learned."),
            Option("millions", "1 to 100 million tokens", "Enough plain text to go on pre-training with."),
            Option("billions", "more than 100 million", "Enough plain text to train every weight."),
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
        "How will the tuned model be served?",
        (
            Option("one", "one model", "No difference."),
            Option("many", "many, for tasks or customers", "Adapters of a few MB share one base model in memory."),
            Option(
                "merged", "one, as fast as can be", "An adapter is merged into the weights, and then costs no time."
            ),
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
            Option("week", "a week", "Methods that take longer here are ruled out."),
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
    Question(
        "hardware",
        "What may be used of this machine?",
        (
            Option("now", "what is free now", "Methods that need more memory are ruled out."),
            Option("whole", "all of it, others stopped", "Counts memory that other programs hold now as free."),
        ),
    ),
)

_TEXT_GOALS = ("knowledge", "language", "quality")
_OTHER_GOALS = ("behaviour", "style", "knowledge", "language", "quality")
_JUDGED = ("pairs", "labels")

RULES: tuple[Rule, ...] = (
    Rule("lora", 2, {}, "LoRA learns most tasks as well as full tuning at a fraction of the memory (PEFT's comparison: "
         "GSM8K 47.8 % against 47.2 %, Llama-3.2-3B)."),
    Rule("qlora", 1.5, {}, "QLoRA trains the same adapters in a third of the memory, and takes longer "
         "(arXiv 2305.14314)."),
    Rule("full", 1, {}, "Full tuning can change anything, and costs the most memory."),
    Rule("few-shot", 11, {"rows": ("none",), "data_kind": ("examples", *_JUDGED)},
         "Fewer than 20 rows are too few to train on; in the prompt they work at once."),
    Rule("few-shot", 11, {"rows": ("none",), "data_kind": ("text",), "goal": ("behaviour", "style", "preferences")},
         "Fewer than 20 rows are too few to train on; in the prompt they work at once."),
    Rule("few-shot", 3, {"rows": ("tens",), "data_kind": ("examples",),
                         "goal": ("behaviour", "knowledge", "language", "quality")},
         "Fewer than 200 rows rarely teach a task; try them as examples in the prompt first."),
    Rule("few-shot", 11, {"rows": ("tens",), "goal": ("preferences",)},
         "Fewer than 200 judged answers are too few to tune on (threshold assumed); put good ones into the prompt."),
    Rule("few-shot", 11, {"rows": ("tens",), "goal": _OTHER_GOALS, "data_kind": _JUDGED},
         "Fewer than 200 judged answers are too few to tune on (threshold assumed); put good ones into the prompt."),
    Rule("prompting", 14, {"prompted": ("no",), "rows": ("none",), "goal": ("style", "behaviour")},
         "A good prompt costs minutes and may be enough."),
    Rule("few-shot", 3, {"prompted": ("no",), "rows": ("tens", "hundreds"), "data_kind": ("examples",)},
         "A prompt with examples costs minutes, and shows what tuning has to beat."),
    Rule("prompting", 14, {"facts": ("changing",), "goal": ("knowledge",)},
         "Facts that change belong into the prompt, looked up for each question; a tuned model would go stale."),
    Rule("prompting", 10, {"data_kind": ("text",), "goal": _TEXT_GOALS, "tokens": ("few",)},
         "Less than a million tokens of plain text change little in the weights: look up what matters for each question "
         "and put it into the prompt, or write questions with answers from it (threshold assumed)."),
    Rule("continued pre-training", 8, {"data_kind": ("text",), "goal": _TEXT_GOALS, "tokens": ("millions", "billions")},
         "Plain text teaches knowledge and language by next-token prediction on all of it, before any tuning on answers; "
         "published runs read up to 20 billion tokens (arXiv 2405.09673)."),
    Rule("continued pre-training", 0.5, {"data_kind": ("text",), "goal": _TEXT_GOALS, "tokens": ("millions", "billions")},
         "It makes no better answers by itself: supervised tuning on a few hundred examples comes after it."),
    Rule("full", 1.5, {"data_kind": ("text",), "goal": _TEXT_GOALS, "tokens": ("billions",)},
         "More than 100 million tokens are enough to train every weight."),
    Rule("lora", -0.5, {"data_kind": ("text",), "goal": ("behaviour", "style")},
         "Plain text holds no answers to learn from: write prompts with answers from it first."),
    Rule("full", -0.5, {"data_kind": ("text",), "goal": ("behaviour", "style")},
         "Plain text holds no answers to learn from: write prompts with answers from it first."),
    Rule("preference tuning", 8, {"goal": ("preferences",)},
         "Which of two good answers is better is learned from judged answers, not from examples."),
    Rule("preference tuning", 8, {"goal": _OTHER_GOALS, "data_kind": _JUDGED},
         "Judged answers are what preference tuning learns from; supervised tuning would copy the bad ones too."),
    Rule("preference tuning", 1, {"data_kind": ("pairs",)},
         "Pairs are for DPO: Zephyr 7B with QLoRA of rank 128, rate 5e-6 and beta 0.01 was replicated five times, with "
         "losses of 0.476 to 0.488. Rates of 2e-4, as in some examples, are 40 times that."),
    Rule("preference tuning", 1, {"data_kind": ("labels",)},
         "Single marks are for KTO (arXiv 2402.01306): no pairs are needed. Its authors published full tuning; no score "
         "of KTO with adapters was found."),
    Rule("preference tuning", 1, {"goal": ("preferences",), "data_kind": ("examples", "text")},
         "There are no judged answers yet: collect pairs for DPO, or good and bad marks for KTO. Examples serve the "
         "supervised tuning before it."),
    Rule("preference tuning", 0.5, {"goal": ("preferences",)},
         "It comes after supervised tuning, as in Zephyr and Tulu 3: what the model cannot write cannot be preferred."),
    Rule("preference tuning", 0.5, {"goal": _OTHER_GOALS, "data_kind": _JUDGED},
         "It comes after supervised tuning, as in Zephyr and Tulu 3: what the model cannot write cannot be preferred."),
    Rule("lora", 2, {"goal": ("preferences",)}, "With an adapter, the model without it is the reference that DPO and KTO "
         "compare with; full tuning holds a second copy."),
    Rule("lora", 2, {"goal": _OTHER_GOALS, "data_kind": _JUDGED}, "With an adapter, the model without it is the reference "
         "that DPO and KTO compare with; full tuning holds a second copy."),
    Rule("lora", 2, {"goal": ("style", "behaviour")}, "Style and tasks need little capacity: 310 adapters of rank 8 "
         "beat their base models on narrow tasks (LoRA Land, arXiv 2405.00732)."),
    Rule("full", 2, {"goal": ("knowledge", "language")}, "New knowledge needs capacity: on continued pre-training "
         "full tuning reached 0.263 on HumanEval, rank 256 reached 0.224 (arXiv 2405.09673)."),
    Rule("full", 1, {"goal": ("quality",)}, "With enough data full tuning is at least as good: on instructions for code "
         "0.497, against 0.358, 0.417 and 0.498 at ranks 16, 64 and 256 (arXiv 2405.09673)."),
    Rule("full", 1.5, {"rows": ("many",)}, "More than 50,000 rows are enough to train every weight."),
    Rule("full", -2, {"rows": ("none", "tens", "hundreds"), "data_kind": ("examples", *_JUDGED)},
         "Few rows overfit when every weight is free."),
    Rule("lora", 2, {"serving": ("many",)}, "Many adapters of a few MB share one base model in memory."),
    Rule("full", -2, {"serving": ("many",)}, "Every fully tuned model needs a whole copy in memory."),
    Rule("lora", 0.5, {"serving": ("merged",)}, "Merged into the weights (`tunewright export`), an adapter adds nothing "
         "to the time of an answer (arXiv 2106.09685)."),
    Rule("full", 0.5, {"serving": ("merged",)}, "A fully tuned model has no adapter to merge."),
    Rule("lora", 1, {"forgetting": ("keep",)}, "Adapters forget less of what the model could do "
         "(arXiv 2405.09673)."),
    Rule("full", -1, {"forgetting": ("keep",)}, "Full tuning forgets the most."),
    Rule("full", 0.5, {"forgetting": ("free",)}, "Nothing has to be spared."),
    Rule("full", -1, {"money": ("thrift",)}, "Full tuning is the dearest."),
    Rule("full", 1, {"money": ("result",)}, "The result is worth the price."),
)  # fmt: skip

TIME_LIMITS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "any": float("inf")}
"""Seconds that a run may take, by the answer to `time`."""
TYPICAL_ROW_TOKENS = 400
TYPICAL_ROWS = {"none": 10, "tens": 100, "hundreds": 1000, "thousands": 10_000, "many": 100_000}
TYPICAL_TOKENS = {"few": 300_000, "millions": 10_000_000, "billions": 1_000_000_000}
"""What stands in for a count that was not made, by the answers to `rows` and `tokens`."""
ROW_LIMITS = ((20, "none"), (200, "tens"), (2000, "hundreds"), (50_000, "thousands"), (float("inf"), "many"))
TOKEN_LIMITS = ((1e6, "few"), (1e8, "millions"), (float("inf"), "billions"))
