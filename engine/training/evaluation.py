"""Evaluation: the loss on the rows kept out, in batches that hold no more than training's, each token counted once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..data.examples import IGNORED
from ..runs.events import EventLog, Notice, Phase
from .memory import free_cached_memory, ran_out_of_memory
from .randomness import undisturbed_randomness

ROWS_READ_AT_ONCE = 10_000


class Evaluating:
    """What every objective's trainer does to evaluate; it stands before TRL's trainer among the bases.

    transformers' own loop gives each batch the same weight, whatever is in it, so that its loss would change with the
    memory that there is; here it is the mean over all tokens that are learned, or over all rows where the objective takes that.
    """

    events: EventLog | None = None
    """Where evaluations are told."""
    mean_over_tokens = True
    """Whether the loss is a mean over the tokens that are learned, rather than over rows."""
    evaluated_tokens: int | None = None
    """The most tokens in a batch, padding counted; None until the first evaluation."""

    def evaluate(self, *arguments: Any, metric_key_prefix: str = "eval", **options: Any) -> dict[str, float]:
        """Return the loss on the evaluation rows and the seconds that it took; random states stay as they were."""
        trainer: Any = self
        started = time.perf_counter()
        self._tell(0, trainer.eval_dataset)
        free_cached_memory()
        with undisturbed_randomness():
            trainer.model.eval()
            loss = self._mean_loss(trainer)
            metrics = {
                f"{metric_key_prefix}_loss": loss,
                f"{metric_key_prefix}_runtime": time.perf_counter() - started,
            }
            trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        if self.events is not None and not trainer.control.should_save:
            self.events.append(Phase(name="training"))
        return metrics

    def _mean_loss(self, trainer: Any) -> float:
        """Return the mean loss over the evaluation rows of all processes."""
        dataset = trainer._remove_unused_columns(trainer.eval_dataset, description="evaluation")
        lengths = row_tokens(trainer.eval_dataset)
        if self.evaluated_tokens is None:
            self.evaluated_tokens = training_tokens(
                row_tokens(trainer.train_dataset), trainer.args.per_device_train_batch_size, _padded(trainer)
            )
        waiting = batches_of(lengths, self.evaluated_tokens, _padded(trainer))
        world, rank = trainer.args.world_size, trainer.args.process_index
        shares = -(-len(waiting) // world) * world
        # Sharded weights are gathered by all processes together, so that each takes as many batches.
        waiting = [(batch, 1.0) for batch in waiting] + [(waiting[-1], 0.0)] * (shares - len(waiting))
        waiting = waiting[rank::world]
        total = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
        done = 0
        while waiting:
            batch, counted = waiting.pop(0)
            found = self._measured(trainer, dataset, batch, may_halve=world == 1)
            if found is None:
                free_cached_memory()  # only now: the error held on to what was computed
                waiting = self._halved([(batch, counted), *waiting], lengths, _padded(trainer))
                continue
            total += counted * found.to(total.device)
            done += len(batch)
            self._tell(done * world, trainer.eval_dataset)
        if world > 1:
            total = trainer.accelerator.reduce(total, reduction="sum")
        summed, weight = total.tolist()
        return summed / weight if weight else float("nan")

    def _measured(self, trainer: Any, dataset: Any, batch: Sequence[int], may_halve: bool) -> torch.Tensor | None:
        """Return the summed loss of a batch and over how much it was summed, None when it did not fit."""
        try:
            inputs = trainer.data_collator([dataset[index] for index in batch])
            weight = int((inputs["labels"][..., 1:] != IGNORED).sum()) if self.mean_over_tokens else len(batch)
            loss, _, _ = trainer.prediction_step(trainer.model, inputs, True)
            mean = float(loss) if weight else 0.0  # the mean over nothing is no number
            return torch.tensor([mean * weight, weight], dtype=torch.float64)
        except Exception as error:
            if len(batch) == 1 or not may_halve or not ran_out_of_memory(error):
                raise
        return None

    def _halved(
        self, waiting: Sequence[tuple[list[int], float]], lengths: Sequence[int], padded: bool
    ) -> list[tuple[list[int], float]]:
        """Return the batches that are left with half of what the first of them holds; later evaluations keep to that."""
        first, _ = waiting[0]
        held = [lengths[index] for index in first]
        self.evaluated_tokens = (len(held) * max(held) if padded else sum(held)) // 2
        if self.events is not None:
            self.events.append(
                Notice(
                    level="info",
                    title="Evaluation in smaller batches",
                    message=f"A batch of {len(first)} rows did not fit into memory beside the training; "
                    f"from now on a batch holds {self.evaluated_tokens:,} tokens at most. The loss stays the same.",
                )
            )
        halves: list[tuple[list[int], float]] = []
        for batch, counted in waiting:
            parts = batches_of([lengths[index] for index in batch], self.evaluated_tokens, padded)
            halves += [([batch[place] for place in part], counted) for part in parts]
        return halves

    def _tell(self, done: int, dataset: Any) -> None:
        if self.events is None:
            return
        progress = getattr(self.events, "progress", None)
        if done == 0:
            self.events.append(Phase(name="evaluating", done=0, total=len(dataset)))
        elif progress is not None:
            progress(min(done, len(dataset)), len(dataset))


def training_tokens(lengths: Sequence[int], rows: int, padded: bool) -> int:
    """Return the tokens of a training micro-batch that the run meets for certain, of `rows` rows of these lengths.

    Padded, the longest row makes its batch as long as itself; side by side, some batch holds as much as the average.
    """
    longest, rows = max(lengths), min(rows, len(lengths))
    return rows * longest if padded else max(longest, rows * sum(lengths) // len(lengths))


def batches_of(lengths: Sequence[int], tokens: int, padded: bool) -> list[list[int]]:
    """Return the rows' indexes in batches of at most `tokens`, longest rows first; a longer row is alone.

    What does not fit is met at once that way, and rows of like length are padded least.
    """
    batches: list[list[int]] = []
    held = 0
    for index in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        first = lengths[batches[-1][0]] if batches else 0
        grown = (len(batches[-1]) + 1) * first if batches and padded else held + lengths[index]
        if batches and grown <= tokens:
            batches[-1].append(index)
            held += lengths[index]
        else:
            batches.append([index])
            held = lengths[index]
    return batches


def row_tokens(dataset: Any) -> list[int]:
    """Return how many tokens each row of a tokenised data set has, over all its columns of token ids."""
    lengths = getattr(dataset, "lengths", None)
    if lengths is not None:
        return list(lengths)
    names = [name for name in dataset.column_names if name.endswith("ids") and name != "position_ids"]
    counts = np.zeros(len(dataset), np.int64)
    view = dataset.with_format("arrow")
    for start in range(0, len(dataset), ROWS_READ_AT_ONCE):
        table: pa.Table = view[start : start + ROWS_READ_AT_ONCE]
        for name in names:
            counts[start : start + len(table)] += pc.list_value_length(table[name]).to_numpy()
    return counts.tolist()


def _padded(trainer: Any) -> bool:
    return not (getattr(trainer.args, "padding_free", False) or getattr(trainer.args, "packing", False))
