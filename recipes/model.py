"""The recipe: everything that changes the result of a fine-tuning run, in a closed schema.

A recipe is data. Nothing in it can run code, name an output path, set an environment variable or an endpoint.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args

import rfc8785
import tomlkit
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..foundation.errors import TunewrightError, nearest
from ..foundation.files import read_text
from ..foundation.text import clean

LARGEST_RECIPE_BYTES = 256 * 1024


def _clean_if_text(value: object) -> object:
    return clean(value, limit=20_000) if isinstance(value, str) else value


def _clean_if_line(value: object) -> object:
    return clean(value, limit=20_000).replace("\n", " ").replace("\t", " ") if isinstance(value, str) else value


def _as_tuple(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


Text = Annotated[str, BeforeValidator(_clean_if_text)]
"""Text that was freed of terminal escapes, control and reordering characters when it came in."""
Line = Annotated[str, BeforeValidator(_clean_if_line)]
"""Text on one line, freed of the same."""
Lines = Annotated[tuple[Line, ...], BeforeValidator(_as_tuple)]
Prompts = Annotated[
    tuple[Annotated[Text, Field(min_length=1, max_length=20_000)], ...],
    BeforeValidator(_as_tuple),
    Field(max_length=8),
]
ModuleName = Annotated[str, BeforeValidator(_clean_if_text), Field(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
ModuleNames = Annotated[tuple[ModuleName, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class Section(BaseModel):
    """One table of a recipe; unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Base(Section):
    """The model that the run starts from."""

    model: Line = Field(min_length=1, max_length=500)
    """A name on the Hugging Face Hub (`owner/name`), a local folder, or `tunewright/starter`, the built-in model."""
    revision: Line | None = Field(default=None, max_length=100)
    """The commit of the model on the Hub; a full commit hash makes the recipe reproducible."""
    adapter: Line | None = Field(default=None, min_length=1, max_length=500)
    """An adapter of this model to go on from: a local folder, or a name on the Hub. Left out, adapters start afresh."""


class Validation(Section):
    """Which rows are kept out of training to measure the validation loss."""

    kind: Literal["none", "fraction", "rows", "file"] = "fraction"
    """How the validation rows are chosen: none, a fraction of the data, a number of rows, or another file's rows."""
    value: float = Field(default=0.05, ge=0, le=1_000_000_000)
    """The fraction (0 to 0.5), or the number of rows; of a file's rows the most that are taken, 0 for all."""
    source: Line | None = Field(default=None, max_length=1000)
    """The file of the validation rows, when `kind` is `file`."""
    key: Line | None = Field(default=None, max_length=200)
    """A column whose equal values stay together, such as a user or a document, so that nothing leaks across."""
    stratify: Line | None = Field(default=None, max_length=200)
    """A column whose values keep their shares in both parts, such as a category or a language."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Validation:
        if self.kind == "fraction" and self.value > 0.5:
            raise ValueError("a validation fraction is at most 0.5")
        if self.kind in ("rows", "file") and self.value != int(self.value):
            raise ValueError("a number of validation rows is a whole number")
        if (self.kind == "file") != (self.source is not None):
            raise ValueError("validation of the kind file has a source, and no other kind has")
        if self.kind in ("none", "file") and (self.key or self.stratify):
            raise ValueError(f"validation of the kind {self.kind} has no key and no stratify: nothing is divided")
        if self.key and self.stratify:
            raise ValueError("give either key or stratify: groups cannot be kept whole and divided evenly at once")
        return self


FormatName = Literal["messages", "tools", "sharegpt", "alpaca", "prompt-completion", "text", "preference", "kto"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)
"""The shapes of rows that can be read."""
TemplateName = Literal[
    "model", "trl", "none", "chatml", "alpaca", "vicuna", "zephyr", "llama3", "gemma", "mistral", "phi3"
]
LossOn = Literal["assistant", "completion", "last", "all"]
LearnedRole = Literal["system", "user", "assistant", "tool"]
Columns = Annotated[dict[Line, Line], Field(max_length=50)]
"""Our field → the column of the file."""


class Data(Section):
    """What the model is trained on, and on which of its tokens the loss is taken."""

    source: Line = Field(min_length=1, max_length=1000)
    """A local file, folder or glob, a data set on the Hub (`owner/name`, with its configuration `owner/name:configuration`, at a branch or commit `owner/name@revision:configuration`), or `tunewright/starter-orders`, the built-in one."""
    split: Line = Field(default="train", min_length=1, max_length=200)
    """The split of the data set to train on, where it has several."""
    format: Literal["auto", FormatName] = "auto"
    """The shape of a row; `auto` tells it from the content (`tunewright data inspect` shows what it finds)."""
    columns: Columns | None = Field(default=None, min_length=1)
    """Columns with other names than the format's: `{ prompt = "question", completion = "answer" }`."""
    template: TemplateName = "model"
    """The chat template: `model` is the base model's own, `trl` what TRL trains that one as, `none` adds nothing to a prompt and its completion."""
    system: Literal["keep", "drop", "user"] = "keep"
    """What happens to system prompts: kept, dropped, or put before the first user turn, for templates that know none."""
    system_prompt: Text | None = Field(default=None, max_length=20_000)
    """A system prompt for the rows that have none."""
    thinking: Literal["keep", "drop"] = "keep"
    """Whether the reasoning in the rows is trained or left out."""
    loss_on: LossOn | Annotated[tuple[LearnedRole, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = "assistant"
    """The tokens that are learned: the assistant's, those after the prompt, of the last turn, all, or of a list of roles."""
    validation: Validation = Validation()
    """The rows that are kept out of training."""
    max_length: int = Field(default=2048, ge=8, le=1_048_576)
    """The most tokens of one row."""
    overlong: Literal["cut", "drop"] = "cut"
    """What happens to longer rows; for `cpt` those that are not dropped are divided into several."""
    faulty: Literal["refuse", "drop"] = "refuse"
    """What happens to rows that cannot be read: the run is refused, or goes on without them."""
    share: float = Field(default=1.0, gt=0, le=1)
    """The share of the training rows that is used; smaller shares are parts of larger ones, as a learning curve needs."""
    packing: bool = False
    """Whether several short rows share one sequence, each blind to the others."""


class FullMethod(Section):
    """Every weight of the model is trained."""

    kind: Literal["full"]
    """`full`: every weight is trained. The most capable and the most expensive in memory."""


class LoraMethod(Section):
    """Small low-rank matrices are trained beside frozen weights (arXiv 2106.09685)."""

    kind: Literal["lora"]
    """`lora`: low-rank adapters beside frozen 16-bit weights."""
    rank: int = Field(default=16, ge=1, le=1024)
    """The inner width r of the adapters; trainable parameters grow in proportion."""
    alpha: float = Field(default=16, gt=0, le=4096)
    """The adapters' output is scaled by alpha / r (by alpha / √r with rsLoRA)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapters' input that is dropped at random while training."""
    targets: Literal["all-linear", "attention", "qv"] | ModuleNames = "all-linear"
    """The projections that get an adapter: all linear ones, those of the attention, only query and value, or a list."""
    dora: bool = False
    """Weight-decomposed adapters (arXiv 2402.09353): a little better, a quarter slower."""
    rslora: bool = False
    """Rank-stabilised scaling (arXiv 2312.03732): for high ranks."""
    lora_plus_ratio: float = Field(default=1.0, ge=1, le=1024)
    """LoRA+ (arXiv 2402.12354): by how much faster the B matrices learn than the A matrices; 16 is its authors' choice."""
    modules_to_save: ModuleNames | None = None
    """Modules that are trained whole and kept beside the adapters, such as `["embed_tokens", "lm_head"]` for new words."""


class QloraMethod(LoraMethod):
    """LoRA beside weights that are frozen in 4 bits (arXiv 2305.14314)."""

    kind: Literal["qlora"]  # pyright: ignore[reportIncompatibleVariableOverride]
    """`qlora`: low-rank adapters beside frozen 4-bit weights. The least memory, a little slower."""
    quantisation: Literal["nf4"] = "nf4"
    """The 4-bit data type of the frozen weights."""
    double_quantisation: bool = True
    """Whether the quantisation constants are quantised too; saves 0.37 bits a weight."""


Method = Annotated[Union[FullMethod, LoraMethod, QloraMethod], Field(discriminator="kind")]  # noqa: UP007


class Warmup(Section):
    """How the learning rate rises at the start."""

    kind: Literal["ratio", "steps"] = "ratio"
    """Whether `value` is a share of all steps or a number of steps."""
    value: float = Field(default=0.03, ge=0, le=10_000_000)
    """The share of all steps (0 to 1), or the number of steps."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Warmup:
        if self.kind == "ratio" and self.value > 1:
            raise ValueError("a warm-up ratio is at most 1")
        if self.kind == "steps" and self.value != int(self.value):
            raise ValueError("a number of warm-up steps is a whole number")
        return self


class EarlyStopping(Section):
    """When to stop because the validation loss no longer falls."""

    patience: int = Field(ge=1, le=1000)
    """How many evaluations without improvement are waited for."""
    min_delta: float = Field(default=0.0, ge=0)
    """The least fall of the validation loss that counts as an improvement."""


class Preference(Section):
    """How strongly, and by which loss, preferred answers are told from others."""

    beta: float = Field(default=0.1, gt=0, le=100)
    """How far the model may move from the reference: smaller moves further. For ORPO the weight of the odds ratio."""
    loss: Literal[
        "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard",
        "apo_zero", "apo_down", "discopop",
    ] = "sigmoid"  # fmt: skip
    """DPO's loss, by TRL's names; `sigmoid` is that of the paper (arXiv 2305.18290)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The share of pairs that are believed to be the wrong way round, for the losses `robust` and `exo_pair`."""
    desirable_weight: float = Field(default=1.0, gt=0, le=100)
    """KTO: the weight of good answers; raise it when they are fewer than the bad ones."""
    undesirable_weight: float = Field(default=1.0, gt=0, le=100)
    """KTO: the weight of bad answers."""

    @model_validator(mode="after")
    def _smooths_what_can_be(self) -> Preference:
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("the loss exo_pair needs label_smoothing above 0, such as 1e-3")
        if self.label_smoothing and self.loss not in ("robust", "exo_pair"):
            raise ValueError(f"the loss {self.loss} knows no label_smoothing; robust and exo_pair do")
        return self


class Guard(Section):
    """What happens when a run goes wrong in a way that its loss or its weights show."""

    not_a_number: Literal["stop", "warn"] = "stop"
    """When the loss or the gradient is NaN or infinite."""
    explosion: Literal["stop", "warn", "off"] = "warn"
    """When the gradient's norm stays far above what it was."""
    explosion_factor: float = Field(default=20.0, gt=1, le=1e6)
    """How many times the median of the last steps counts as far above."""
    unchanged: Literal["stop", "warn", "off"] = "stop"
    """When the trained weights are the same as before after the warm-up's first steps."""


Objective = Literal["sft", "cpt", "dpo", "orpo", "kto"]
PREFERENCE_OBJECTIVES: tuple[Objective, ...] = ("dpo", "orpo", "kto")


class Extension(Section):
    """Steps that were added to a run after its end, with a learning rate of their own."""

    after: int = Field(ge=1, le=10_000_000)
    """The step at which the run had ended."""
    planned: int = Field(ge=1, le=10_000_000)
    """How many steps its schedule was laid over; more than it took where it stopped early."""
    steps: int = Field(ge=1, le=10_000_000)
    """How many steps are added."""
    schedule: Literal["constant", "linear", "cosine"]
    """How the learning rate falls over them, after the warm-up."""
    peak: float = Field(gt=0, le=1)
    """The highest learning rate of the added steps."""
    warmup_steps: int = Field(default=0, ge=0, le=10_000_000)
    """Over how many of them it rises to the peak, from what it had come to."""

    @model_validator(mode="after")
    def _agrees(self) -> Extension:
        if self.after > self.planned:
            raise ValueError("after is at most planned: a run ends no later than its schedule")
        if self.warmup_steps > self.steps:
            raise ValueError("warmup_steps are at most steps")
        return self


class Training(Section):
    """The optimisation: objective, learning rate, length, batch, seed."""

    objective: Objective = "sft"
    """`sft`: supervised fine-tuning; `cpt`: continued pre-training on plain text; `dpo`, `orpo`: from pairs of a better and a worse answer; `kto`: from answers marked good or bad."""
    preference: Preference | None = None
    """For `dpo`, `orpo` and `kto`: how preferences are weighed."""
    learning_rate: float = Field(gt=0, le=1)
    """The peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""
    floor: float | None = Field(default=None, gt=0, lt=1)
    """With `cosine`, the share of the peak at which the learning rate ends; left out, it falls to nothing."""
    warmup: Warmup = Warmup()
    """How the learning rate rises at the start."""
    epochs: float | None = Field(default=None, gt=0, le=1000)
    """How often the whole data set is seen; either this or `steps`."""
    steps: int | None = Field(default=None, ge=1, le=10_000_000)
    """How many optimizer steps are taken; either this or `epochs`."""
    global_batch: int = Field(default=16, ge=1, le=65_536)
    """Rows in one optimizer step, over all GPUs and accumulation."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """AdamW with 32-bit or with block-wise 8-bit states (bitsandbytes)."""
    beta2: float | None = Field(default=None, gt=0, lt=1)
    """How slowly AdamW's estimate of the gradients' squares forgets; left out, 0.999."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seeds the adapters, the order of the rows and dropout."""
    early_stopping: EarlyStopping | None = None
    """When to stop before the end; left out, the run takes all its steps."""
    finish_with: Literal["last", "best"] = "last"
    """The weights that the run ends with: the last step's, or those with the lowest validation loss."""
    guard: Guard = Guard()
    """What happens when the run goes wrong."""
    extensions: (
        Annotated[tuple[Extension, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=100)] | None
    ) = None
    """Steps that are added after the end, each with a schedule of its own; `tunewright extend` writes them."""

    @model_validator(mode="after")
    def _has_one_length(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self

    @model_validator(mode="after")
    def _ends_above_nothing(self) -> Training:
        if self.floor is not None and self.schedule != "cosine":
            raise ValueError(f"floor belongs to the schedule cosine, not to {self.schedule}")
        return self

    @model_validator(mode="after")
    def _is_extended_in_order(self) -> Training:
        end = None
        for each in self.extensions or ():
            if end is not None and each.planned != end:
                raise ValueError(f"an extension's planned is where the one before ends, {end}")
            end = each.after + each.steps
        return self

    def extended(self, steps: int) -> int:
        """Return the steps of the whole run, those that were added among them, where `steps` were planned at first."""
        return self.extensions[-1].after + self.extensions[-1].steps if self.extensions else steps

    @model_validator(mode="after")
    def _weighs_preferences(self) -> Training:
        if self.objective in PREFERENCE_OBJECTIVES:
            if self.preference is None:  # every field of a recipe is resolved
                object.__setattr__(self, "preference", Preference())
        elif self.preference is not None:
            raise ValueError(f"preference belongs to {', '.join(PREFERENCE_OBJECTIVES)}, not to {self.objective}")
        return self


class Evaluation(Section):
    """How the model is judged before and after; it does not change what is trained."""

    source: Line | None = Field(default=None, max_length=1000)
    """Held-out rows: a local JSONL file, or `tunewright/starter-held-out`. Greedy answers are compared word for word."""
    rows: int = Field(default=200, ge=1, le=100_000)
    """The most rows that are judged."""
    max_new_tokens: int = Field(default=128, ge=1, le=8192)
    """The most tokens of one answer."""
    prompts: Prompts = ()
    """What the model answers again and again while it learns, at most 8 texts; left out, three held-out rows' prompts."""


Tier = Literal["A", "B", "C", "D"]
TIERS: dict[Tier, str] = {"A": "proven", "B": "proven", "C": "fits this hardware", "D": "template"}
"""What may be said of a recipe from elsewhere, by how far its source was tested."""


class Card(Section):
    """What people read about the recipe; it does not change the result."""

    title: Line = Field(default="", max_length=200)
    """A few words that tell the recipe from others."""
    summary: Text = Field(default="", max_length=4000)
    """What the recipe is for, and when to choose another."""
    tags: Lines = ()
    """Words that find it."""
    licence: Line = Field(default="", max_length=200)
    """The licence of the recipe, as an SPDX identifier."""
    sources: Lines = ()
    """Where its figures come from: `owner/repository@commit:path`, or a web address."""
    tier: Tier | None = None
    """How far its source was tested: `A` replicated, `B` published with its result, `C` run for time or memory, `D` never shown to be run."""
    evidence: Text = Field(default="", max_length=4000)
    """What its source says came of it, by whom; not what Tunewright measured."""
    hardware: Line = Field(default="", max_length=500)
    """What its source ran it on."""
    model_licence: Line = Field(default="", max_length=200)
    """The licence of the model; `unknown` where nobody said."""
    data_licence: Line = Field(default="", max_length=500)
    """The licence of the data; `unknown` where nobody said."""
    differs: Lines = ()
    """What its source does otherwise than this recipe can say."""
    unknown: Lines = ()
    """Keys that its source leaves open: their values here are ours."""


class Recipe(Section):
    """A whole recipe."""

    base: Base
    """The model that the run starts from."""
    data: Data
    """What it is trained on."""
    method: Method
    """Which of its weights are trained."""
    training: Training
    """How they are trained."""
    evaluation: Evaluation = Evaluation()
    """How the result is judged."""
    card: Card = Card()
    """What people read."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if self.base.adapter is not None and not isinstance(self.method, LoraMethod):
            raise ValueError("base.adapter is gone on from by lora or qlora; full fine-tuning has no adapter")
        validated = self.data.validation.kind != "none"
        if (self.training.early_stopping or self.training.finish_with == "best") and not validated:
            raise ValueError("early stopping and the best weights need validation rows; data.validation keeps none")
        return self

    @model_validator(mode="after")
    def _compares_whole_answers(self) -> Recipe:
        objective = self.training.objective
        if objective not in PREFERENCE_OBJECTIVES:
            return self
        if self.data.loss_on == "all":
            raise ValueError(
                f"{objective} compares answers: data.loss_on is not all, but assistant, completion or last"
            )
        if self.data.packing:
            raise ValueError(f"{objective} takes rows as they are; data.packing puts several together")
        if isinstance(self.method, LoraMethod) and self.method.dropout:
            raise ValueError(f"{objective} compares the model with itself, without chance: method.dropout is 0")
        if objective != "dpo" and self.training.preference and self.training.preference.loss != "sigmoid":
            raise ValueError(f"training.preference.loss belongs to dpo, not to {objective}")
        return self

    def canonical_json(self) -> bytes:
        """Return the RFC 8785 canonical JSON of the resolved fields that change the result."""
        meaning = self.model_dump(mode="json", exclude={"card", "evaluation"}, exclude_none=True)
        if isinstance(self.method, LoraMethod) and not isinstance(self.method.targets, str):
            meaning["method"]["targets"] = sorted(set(self.method.targets))
        if self.data.validation.kind == "none":
            del meaning["data"]["validation"]["value"]
        if not isinstance(self.data.loss_on, str):
            meaning["data"]["loss_on"] = sorted(set(self.data.loss_on))
        return rfc8785.dumps(meaning)

    def hash(self) -> str:
        """Return the recipe's identity: the SHA-256 of its canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.canonical_json()).hexdigest()

    def to_toml(self) -> str:
        """Return the recipe as TOML, every field resolved."""
        return tomlkit.dumps(self.model_dump(mode="json", exclude_none=True))


def parse_recipe(text: str, origin: str) -> Recipe:
    """Return the recipe in the TOML `text`; `origin` names the text in errors.

    Raises TunewrightError that lists every problem with its line, and the nearest known key for an unknown one.
    """
    if len(text.encode("utf-8", "replace")) > LARGEST_RECIPE_BYTES:
        raise TunewrightError(
            "Recipe too large", f"{origin} is larger than 256 KiB.", "A recipe is a few lines of TOML."
        )
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or a number that Python refuses
        raise TunewrightError(
            "Recipe is not TOML",
            f"{origin}: {clean(str(error), 300)}.",
            "Mend that line; https://toml.io shows the form.",
        ) from error
    return validate_recipe(tables, origin, text)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a recipe."""

    path: str
    """The key, such as `training.warmup.value`; a table's where its values contradict each other, empty for all of it."""
    fault: str
    line: int | None = None
    """Where it stands in the text, if that is known."""

    def __str__(self) -> str:
        said = f"{self.path} {self.fault}".strip()
        return f"line {self.line}: {said}" if self.line else said


def check_recipe(tables: dict[str, Any], text: str = "") -> Recipe | tuple[Problem, ...]:
    """Return the recipe in `tables`, or everything that is wrong with them; `text` is the TOML that they came from."""
    try:
        # Strictly: a number in quotation marks, or `true` for 1, is a mistake rather than a way of writing.
        return Recipe.model_validate(tables, strict=True)
    except ValidationError as error:
        return tuple(_problems(error, text))


def validate_recipe(tables: dict[str, Any], origin: str, text: str = "") -> Recipe:
    """Return the recipe in `tables`, which came from the TOML `text` if there is one; raises TunewrightError."""
    found = check_recipe(tables, text)
    if isinstance(found, tuple):
        problems = "\n".join(f"  {each}" for each in found)
        raise TunewrightError(
            "Recipe not valid",
            f"{origin}:\n{problems}",
            "`tunewright recipes show starter-lora --toml` prints a valid one.",
        )
    return found


SectionType = TypeVar("SectionType", bound=Section)


def validate_section(section: type[SectionType], values: dict[str, Any], origin: str) -> SectionType:
    """Return one section of a recipe from `values`, read as leniently as typed words are; raises TunewrightError."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {each}" for each in _problems(error, "", (section.__name__.lower(),)))
        raise TunewrightError(
            "Not a valid value", f"{origin}:\n{problems}", "docs/reference.md lists every key with its values."
        ) from error


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in the TOML file at `path`; raises TunewrightError."""
    return parse_recipe(read_text(path), origin=str(path))


def _problems(error: ValidationError, text: str, under: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Yield each thing that is wrong, in the order of the recipe; `under` is the section that was read."""
    told: set[str] = set()
    for problem in error.errors(include_url=False):
        names, kind = _split_location([*under, *(str(part) for part in problem["loc"])])
        if (either := ".".join(names[:2])) in _EITHER:
            if either in told:
                continue  # pydantic tells why each form of it does not match
            told.add(either)
            names = names[:2]
        fault = _fault(problem["type"], clean(problem["msg"], 300), names, kind, cast("object", problem["input"]))
        yield Problem(".".join(clean(name, 100) for name in names), fault, _line_of(text, names))


def _fault(type_: str, message: str, names: list[str], kind: str | None, value: object) -> str:
    """Say what is wrong with the key `names`; `kind` is the recipe's method where the key is one of a method."""
    match type_:
        case "extra_forbidden" if kind is not None and names[-1] in QloraMethod.model_fields:
            return f'is not a key of the method "{kind}"'
        case "extra_forbidden":
            suggestion = nearest(names[-1], _known_keys(names[:-1]))
            return "is not a known key" + (f"; did you mean {suggestion}?" if suggestion else "")
        case "missing":
            return "is missing"
        case "model_type" | "model_attributes_type":
            return "should be a table"
        case "union_tag_not_found":
            return "has no kind; it is full, lora or qlora"
        case "union_tag_invalid":
            written = cast("dict[str, object]", value)["kind"]
            suggestion = nearest(str(written), _METHODS)
            return "has an unknown kind; it is full, lora or qlora" + (
                f" (did you mean {suggestion}?)" if suggestion else ""
            )
        case "value_error":
            return f"is not valid: {message.removeprefix('Value error, ')}"
        case _ if (either := _EITHER.get(".".join(names))) is not None:
            return f"should be {either}"
        case _:
            return (
                f"{message[0].lower()}{message[1:]}".removeprefix("input ")
                .removeprefix("string ")
                .replace("a valid tuple", "a list")
            )


_METHODS = ("full", "lora", "qlora")
_EITHER = {
    "method.targets": '"all-linear", "attention", "qv", or a list of the names of projections',
    "data.loss_on": '"assistant", "completion", "last", "all", or a list of roles',
}
"""Keys that have several forms, and what these are."""


def _split_location(parts: list[str]) -> tuple[list[str], str | None]:
    """Return the keys in a location of pydantic's, and the method that it names as the branch of a union."""
    if len(parts) > 2 and parts[0] == "method" and parts[1] in _METHODS:
        return ["method", *parts[2:]], parts[1]
    return parts, None


def _known_keys(path: list[str]) -> list[str]:
    """Return the keys of the table at `path`; for `method`, those of every method."""
    section: Any = Recipe
    for name in path:
        if name == "method":
            return list(QloraMethod.model_fields)
        annotation = section.model_fields[name].annotation
        # An optional table is a union of the table and None.
        section = annotation if hasattr(annotation, "model_fields") else annotation.__args__[0]
    return list(section.model_fields)


def _line_of(text: str, names: list[str]) -> int | None:
    """Return the line on which the key `names` stands in the TOML `text`, or None when it cannot be told."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([\w.\-\"]+)\s*\]+", line):
            table = header[1].replace('"', "")
            if names == table.split("."):
                return number
        elif key := re.match(r"\s*([\w.\-\"]+)\s*=", line):
            path = [*table.split("."), *key[1].replace('"', "").split(".")] if table else key[1].split(".")
            if path == names or (len(path) < len(names) and path == names[: len(path)] and len(path) > 1):
                return number
    return None
