"""The work: what a recipe and its data ask for, whatever the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..foundation.units import GIB
from ..recipes.model import PREFERENCE_OBJECTIVES, Recipe
from .anatomy import Anatomy
from .batches import Lengths, measure_lengths, pack, rows_seen, steps_of
from .setting import Tuning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .dealing import Dealt, How

LARGEST_MERGED_GIB = 2.0


@dataclass(frozen=True)
class Work:
    """What a recipe and its data ask for, whatever the machine."""

    recipe: Recipe
    anatomy: Anatomy
    training: tuple[int, ...]
    validation: tuple[int, ...]
    supervised: float
    """Tokens of a row on which a loss is taken, on average."""
    longest_answer: int
    judged: int
    """Rows that are answered before and after."""
    rows_ahead: int = 50_000
    """So many rows are dealt to micro-batches, as the run will, to find out what these hold."""

    @cached_property
    def tuning(self) -> Tuning:
        return Tuning.of(self.recipe.method)

    @cached_property
    def rows(self) -> Lengths:
        """The training rows, packed or not."""
        return measure_lengths(self.training)

    @cached_property
    def drawn(self) -> Lengths:
        """The rows that are drawn: packed ones with packing."""
        return measure_lengths(self.drawn_lengths) if self.recipe.data.packing else self.rows

    @cached_property
    def drawn_lengths(self) -> Sequence[int]:
        """The lengths of the rows that are drawn, in the trainer's order."""
        if self.recipe.data.packing:
            return pack(self.training, self.recipe.data.max_length, self.recipe.training.seed)
        return self.training

    def deal(self, micro_batch: int, gpus: int, how: How) -> Dealt:
        """Return what the run's micro-batches hold when its rows are dealt to them in this way."""
        key = (micro_batch, gpus, how)
        if key not in self._dealt:
            from .dealing import look_ahead

            training = self.recipe.training
            accumulation = training.global_batch // gpus // micro_batch
            shape = (self.steps, micro_batch, accumulation, gpus)
            self._dealt[key] = look_ahead(self._flat_lengths, training.seed, *shape, how, self.rows_ahead)
        return self._dealt[key]

    @cached_property
    def _flat_lengths(self) -> NDArray[np.int64]:
        import numpy as np  # only here: what reads a plan does without it

        return np.array(self.drawn_lengths, np.int64)

    @cached_property
    def _dealt(self) -> dict[tuple[int, int, str], Dealt]:
        return {}

    @cached_property
    def validation_rows(self) -> Lengths | None:
        return measure_lengths(self.validation) if self.validation else None

    @property
    def steps(self) -> int:
        plan = self.recipe.training
        return plan.extended(steps_of(self.drawn.rows, plan.global_batch, plan.epochs, plan.steps))

    @property
    def answers_a_row(self) -> int:
        """How many answers, each after its prompt, a row's length counts: both of a pair."""
        return 2 if self.recipe.training.objective in ("dpo", "orpo") else 1

    @property
    def is_compared(self) -> bool:
        """Whether whole answers are compared: their rows are padded, and neither strung together nor packed."""
        return self.recipe.training.objective in PREFERENCE_OBJECTIVES

    def takes_whole_logits(self, backend: str) -> bool:
        """Tell whether the objective's loss needs all logits of a micro-batch at once.

        ORPO's does; that of DPO and KTO does on Unsloth, and elsewhere takes answers in parts.
        """
        return self.recipe.training.objective == "orpo" or (self.is_compared and backend == "unsloth")

    @property
    def asks_before(self) -> bool:
        """Whether the reference is asked about every row before the first step, rather than in every step.

        Fresh adapters are switched off to ask it; nothing else is the model as it was.
        """
        return self.tuning.kind == "full" or self.recipe.base.adapter is not None

    @property
    def forward_passes(self) -> tuple[int, int]:
        """The forward passes that nothing is learned from: of every step, and over all rows before the first.

        DPO asks the reference; KTO asks it twice, and the model itself once more, for its estimate of the distance.
        """
        own, reference = {"dpo": (0, 1), "kto": (1, 2)}.get(self.recipe.training.objective, (0, 0))
        return (own, reference) if self.asks_before else (own + reference, 0)

    @property
    def merged_gib(self) -> float:
        """The whole model's files, in the checkpoint's type."""
        return self.anatomy.checkpoint_bytes * self.anatomy.total_parameters / GIB

    @property
    def merges(self) -> bool:
        """Whether the merged model is small enough to be written beside the adapter at the end."""
        return self.tuning.kind != "full" and self.merged_gib <= LARGEST_MERGED_GIB

    @property
    def tokens(self) -> int:
        """Useful tokens over the whole run."""
        return round(rows_seen(self.drawn.rows, self.recipe.training.global_batch, self.steps) * self.drawn.mean)
