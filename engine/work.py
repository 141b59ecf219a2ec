"""The work: what a recipe and its data ask for, whatever the machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..recipes.model import Recipe
from .anatomy import Anatomy
from .batches import Lengths, measure_lengths, pack, rows_seen, steps_of
from .setting import GIB, Tuning

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
        if self.recipe.data.packing:
            return measure_lengths(pack(self.training, self.recipe.data.max_length))
        return self.rows

    @cached_property
    def validation_rows(self) -> Lengths | None:
        return measure_lengths(self.validation) if self.validation else None

    @property
    def steps(self) -> int:
        plan = self.recipe.training
        return steps_of(self.drawn.rows, plan.global_batch, plan.epochs, plan.steps)

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
