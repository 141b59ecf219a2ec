"""Defaults: the recipe to start from, every value with its reason and the evidence behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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

_LORA_RATES: tuple[tuple[float, float, str], ...] = (
    (1e9, 1e-3, "Best for 10 of 27 models in Tinker's sweep; smaller models bear more."),
    (13.5e9, 2e-4, "Replicated with Zephyr 7B QLoRA, Guanaco 7B and 13B and LoRA Land."),
    (float("inf"), 1e-4, "Guanaco halves the rate at 33 and 65 billion parameters."),
)
_FULL_RATES: tuple[tuple[float, float, str], ...] = (
    (1e9, 3e-4, "SmolLM2 was tuned with 3e-4 to 1e-3 at 1.7 and 0.36 billion parameters."),
    (3.5e9, 5e-5, "Between SmolLM2 1.7B (3e-4) and PEFT's comparison on Llama-3.2-3B (1e-5)."),
    (13.5e9, 1e-5, "Published full tunings at 7 to 9 billion parameters used 5e-6 to 4e-5, mostly up to 2e-5."),
    (float("inf"), 5e-6, "Tulu 3 used 5e-6 at 8 and 2e-6 at 70 billion parameters."),
)
_EPOCHS: tuple[tuple[int, float], ...] = ((500, 5.0), (2000, 3.0), (20_000, 2.0))


def default_recipe(
    method: MethodName,
    model: str,
    data: str,
    rows: int,
    anatomy: Anatomy,
    lengths: Sequence[int] | None = None,
) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return the recipe to start from for `rows` rows of `data`, and the reason for each of its values.

    `lengths` are the rows' tokens when they are known; the maximum length is then the longest of them.
    """
    total = anatomy.total_parameters
    reasons: list[Reason] = []

    def because(choice: str, value: object, text: str) -> None:
        reasons.append(Reason(choice, f"{value:g}" if isinstance(value, float) else str(value), text))

    settings = _method(method, rows, because)
    _, rate, why = next(row for row in (_FULL_RATES if method == "full" else _LORA_RATES) if total < row[0])
    because("learning_rate", rate, why)
    epochs = next((times for limit, times in _EPOCHS if rows < limit), 1.0)
    because("epochs", epochs, f"{rows:,} rows: published recipes see 800 to 1,000 rows 5 to 15 times, 200,000 once.")
    batch = 8 if rows < 200 else 16
    because("global_batch", batch, "LoRA does best below 32; QLoRA results held for batches of 12 to 64 (Zephyr).")
    because("warmup", 0.03 if rows >= 2000 else 0.1, "Published recipes warm up over 3 to 10 % of the steps.")
    because("schedule", "cosine", "Used by most recipes with published results.")
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    if method == "full" and total > 1e9:
        optimizer = "adamw_8bit"
        because("optimizer", optimizer, "8-bit states save 6 of 8 bytes a parameter, with the same results "
                "(arXiv 2110.02861).")  # fmt: skip
    else:
        because("optimizer", optimizer, "32-bit states: so few trained parameters leave nothing to save.")
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
            warmup=Warmup(kind="ratio", value=0.03 if rows >= 2000 else 0.1),
        ),
    )
    return recipe, tuple(reasons)


def _method(method: MethodName, rows: int, because: object) -> Method:
    assert callable(because)
    if method == "full":
        return FullMethod(kind="full")
    rank = 8 if rows < 200 else 16 if rows < 20_000 else 32
    because(
        "rank", rank, "310 narrow tasks were learned at rank 8 (LoRA Land), chat at 16 (Zephyr); more rows fill more."
    )
    because("alpha", 2 * rank, "A scale of 2, as in PEFT's comparison (32/64, 10/20) and arXiv 2405.09673.")
    because("targets", "all-linear", "The MLP matters: rank 10 there reached 0.494, rank 32 on q and v 0.478 (PEFT).")
    dropout = 0.05 if rows < 2000 else 0.0
    because("dropout", dropout, "Guanaco and Zephyr used 0.05; with many rows it only costs time.")
    cls = QloraMethod if method == "qlora" else LoraMethod
    return cls(kind=method, rank=rank, alpha=float(2 * rank), dropout=dropout)  # pyright: ignore[reportArgumentType]
