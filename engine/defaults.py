"""Defaults: the recipe to start from, every value with its reason, its evidence, and what common tables say instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from ..recipes.model import (
    Base,
    Data,
    FullMethod,
    LoraMethod,
    Method,
    QloraMethod,
    Recipe,
    Training,
    Validation,
    Warmup,
)
from .anatomy import Anatomy
from .plan import Reason

MethodName = Literal["full", "lora", "qlora"]
Purpose = Literal["examples", "text"]
"""What the rows are: prompts with answers, or plain text to go on pre-training with."""
Value = TypeVar("Value")
Because = Callable[[str, object, str], None]

# Below so many parameters (or rows), the value, and why.
LORA_RATES: tuple[tuple[float, float, str], ...] = (
    (
        1e9,
        5e-4,
        "Between the two best rates of Tinker's sweep of 27 models (3e-4 for 14, 1e-3 for 10; 72 of 80 diverged runs had "
        "3e-3). Tables say 2e-4 for every size.",
    ),
    (
        13.5e9,
        2e-4,
        "Replicated: Zephyr 7B QLoRA, Guanaco 7B and 13B, LoRA Land; PEFT's comparison used 1e-4. Tables agree on 2e-4; "
        "Tinker's sweep of 27 models found 3e-4 (14) or 1e-3 (10) best, so try 3e-4 when the loss falls slowly.",
    ),
    (
        float("inf"),
        1e-4,
        "Guanaco halved the rate from 2e-4 at 13 billion parameters to 1e-4 at 33 and 65 (arXiv 2305.14314). Tables say "
        "2e-4 for every size.",
    ),
)
FULL_RATES: tuple[tuple[float, float, str], ...] = (
    (
        1e9,
        3e-4,
        "SmolLM2 360M was tuned with 1e-3 in batches of 128, and 1.7B with 3e-4; smaller batches bear less. Tables say "
        "2e-5 for every size.",
    ),
    (
        3.5e9,
        5e-5,
        "Between SmolLM2 1.7B (3e-4 in batches of 128) and PEFT's comparison on Llama-3.2-3B (1e-5 in batches of 4). "
        "Tables say 2e-5.",
    ),
    (
        13.5e9,
        1e-5,
        "Published full tunings at 7 to 9 billion parameters used 5e-6 (Tulu 3) to 4e-5 (OpenR1), mostly up to 2e-5; "
        "Olmo 2 7B used 1e-5. Tables say 2e-5, as Alpaca and Zephyr did in batches of 128.",
    ),
    (50e9, 5e-6, "s1 used 1e-5 and LIMO 5e-6 at 32 billion parameters. Tables say 2e-5, as StarChat2 15B did."),
    (float("inf"), 2e-6, "Tulu 3 used 2e-6 at 70 billion parameters. Tables say 1e-5 to 2e-5."),
)
TEXT_ADAPTER_RATE = 5e-5
TEXT_ADAPTER_RATE_SOURCES = (
    "Unsloth's text notebooks use 5e-5 (they publish time and memory, no score); arXiv 2405.09673 used 1e-5, but with "
    "another optimizer, Lion. Tables say 2e-4, as for instructions."
)
EPOCHS: tuple[tuple[float, float], ...] = ((500, 5.0), (2000, 3.0), (20_000, 2.0), (float("inf"), 1.0))
RANKS: tuple[tuple[float, int], ...] = ((200, 8), (20_000, 16), (float("inf"), 32))
TEXT_RANK = 256
FULL_BATCHES: tuple[tuple[float, int], ...] = ((200, 8), (2000, 16), (20_000, 32), (float("inf"), 128))
EPOCH_SOURCES = (
    "Published recipes see 800 to 1,000 rows 5 to 15 times (s1, LIMO), 52,000 three times (Alpaca) and 208,000 once "
    "(Zephyr). Tables say 1 to 3 for every size; the validation loss tells when to stop."
)
ADAPTER_BATCH = (
    "LoRA Without Regret finds adapters best below 32; Zephyr's QLoRA gave the same loss for batches of 16 to 64. Most "
    "tables copy the 64 to 128 of full tuning."
)
FULL_BATCH = (
    "Published full tunings use 128 for 50,000 rows and more (Alpaca, Zephyr, Tulu 3) and 16 for 1,000 (s1); fewer rows "
    "need smaller batches to make enough steps. Tables often say 128 for every size."
)
RANK_SOURCES = (
    "LoRA Land learned 310 narrow tasks at rank 8 (arXiv 2405.00732), Zephyr chat at 16; more rows fill more. Tables say 8 "
    "to 64; LoRA Without Regret takes 256 and finds no harm but the memory."
)
ALPHA_SOURCES = (
    "A scale of alpha/r = 2, as in PEFT's comparison (64/32, 20/10) and arXiv 2405.09673. Zephyr took alpha = r, Guanaco 16 "
    "at rank 64; defaults differ too: TRL 32, Unsloth 16, PEFT 8. A smaller alpha acts like a lower learning rate."
)
TARGET_SOURCES = (
    "The MLP matters: in PEFT's comparison rank 10 on it reached 0.494 on GSM8K, rank 32 on q and v 0.478. The original "
    "LoRA paper and PEFT's own default take q and v only."
)


def default_recipe(
    method: MethodName,
    model: str,
    data: str,
    rows: int,
    anatomy: Anatomy,
    lengths: Sequence[int] | None = None,
    purpose: Purpose = "examples",
) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return the recipe to start from for `rows` rows of `data`, and the reason for each of its values.

    `lengths` are the rows' tokens when they are known; the maximum length is then the longest of them.
    """
    total = anatomy.total_parameters
    reasons: list[Reason] = []

    def because(choice: str, value: object, text: str) -> None:
        reasons.append(Reason(choice, f"{value:g}" if isinstance(value, float) else str(value), text))

    settings = _method(method, rows, purpose, because)
    if purpose == "text" and method != "full":
        rate, why = TEXT_ADAPTER_RATE, TEXT_ADAPTER_RATE_SOURCES
    else:
        _, rate, why = next(row for row in (FULL_RATES if method == "full" else LORA_RATES) if total < row[0])
    because("learning_rate", rate, why)
    epochs = 1.0 if purpose == "text" else _below(EPOCHS, rows)
    because(
        "epochs",
        epochs,
        "Text is read once, as in pre-training." if purpose == "text" else f"For {rows:,} rows. {EPOCH_SOURCES}",
    )
    batch = _below(FULL_BATCHES, rows) if method == "full" else 8 if rows < 200 else 16
    because("global_batch", batch, FULL_BATCH if method == "full" else ADAPTER_BATCH)
    warmup = 0.03 if rows >= 2000 else 0.1
    because(
        "warmup",
        warmup,
        "Tulu 3, Alpaca and LoRA Land warm up over 3 % of the steps, Zephyr and SmolLM2 over 10 %; a short run needs the "
        "larger share to get beyond its first steps. Guanaco warmed up not at all, with a constant rate.",
    )
    because(
        "schedule",
        "cosine",
        "Most recipes with published results use it (Zephyr, Alpaca, PEFT's comparison); Tulu 3 is linear, Guanaco "
        "constant, and none was shown to be better.",
    )
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    if method == "full" and total > 1e9:
        optimizer = "adamw_8bit"
        because("optimizer", optimizer, "8-bit states save 6 of 8 bytes a parameter, with the same results "
                "(arXiv 2110.02861). Published full tunings mostly had room for 32 bits.")  # fmt: skip
    else:
        because("optimizer", optimizer, "32-bit states: so few trained parameters leave nothing to save. Unsloth's "
                "notebooks take 8-bit ones all the same.")  # fmt: skip
    longest = min(anatomy.context, max(8, max(lengths)) if lengths else 2048)
    because("max_length", longest, "The longest row." if lengths else "The usual length; rows beyond it are cut.")
    kept_out = 0.1 if rows < 1000 else 0.05
    because("validation", kept_out if rows >= 20 else 0, "Enough rows to see overfitting, few enough to spare.")
    recipe = Recipe(
        base=Base(model=model),
        data=Data(
            source=data,
            max_length=longest,
            validation=Validation(kind="fraction", value=kept_out) if rows >= 20 else Validation(kind="none", value=0),
        ),
        method=settings,
        training=Training(
            learning_rate=rate,
            epochs=epochs,
            global_batch=batch,
            optimizer=optimizer,
            warmup=Warmup(kind="ratio", value=warmup),
        ),
    )
    return recipe, tuple(reasons)


def _method(method: MethodName, rows: int, purpose: Purpose, because: Because) -> Method:
    if method == "full":
        return FullMethod(kind="full")
    if purpose == "text":
        rank = TEXT_RANK
        because("rank", rank, "The highest rank of arXiv 2405.09673, still below full tuning on text (HumanEval 0.224 "
                "against 0.263). Unsloth's text notebooks take 128; tables for instructions 8 to 64.")  # fmt: skip
    else:
        rank = _below(RANKS, rows)
        because("rank", rank, RANK_SOURCES)
    because("alpha", 2 * rank, ALPHA_SOURCES)
    because("targets", "all-linear", TARGET_SOURCES)
    dropout = 0.05 if rows < 2000 else 0.0
    because(
        "dropout",
        dropout,
        "Few rows are seen often: Guanaco 13B and Zephyr used 0.05, Guanaco 7B 0.1. PEFT's comparison and Unsloth use 0, and "
        "with many rows it only costs time.",
    )
    cls = QloraMethod if method == "qlora" else LoraMethod
    return cls(kind=method, rank=rank, alpha=float(2 * rank), dropout=dropout)  # pyright: ignore[reportArgumentType]


def _below(table: Sequence[tuple[float, Value]], rows: int) -> Value:
    """Return the value of the first entry whose limit is above `rows`."""
    return next(value for limit, value in table if rows < limit)
