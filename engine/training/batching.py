"""Batching: rows as TRL's trainers take them, drawn by the recipe's seed and dealt to micro-batches and GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ..data.examples import IGNORED
from ..data.preparing import Rows
from ..dealing import How, Indices, draw, micro_batches, pack_rows
from ..plan import Batching

WEIGHT = "_weight"
"""Of a micro-batch in its step: 1, but for a short step, whose micro-batches may differ by a row."""


def how_dealt(batching: Batching) -> How:
    """Return how rows are dealt to micro-batches: alike in length where they are padded, in their sum where not."""
    return "sorted" if batching == "padded" else "balanced"


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows put together to sequences."""

    sequences: Rows
    """Each of them as if it were one row."""
    seq_lengths: Any
    """The lengths of the rows in each, as a column: by them a collator keeps rows apart (`Stringing`, TRL's too)."""


def pack(rows: Rows, capacity: int, seed: int) -> Packed:
    """Return `rows` put together to sequences of at most `capacity` tokens, the same ones for the same seed."""
    lengths = np.diff(rows.ends, prepend=0)
    packs = pack_rows(lengths, capacity, seed)
    strung = rows.take(cast("Sequence[int]", packs.order))
    ends = np.cumsum(packs.lengths)
    offsets = pa.array(np.concatenate((np.zeros(1, np.int64), packs.ends)))
    documents = pa.LargeListArray.from_arrays(offsets, pa.array(lengths[packs.order]))
    return Packed(Rows(strung.tokens, strung.learned, ends, packs.lengths.astype(np.int32)), documents)


@dataclass(frozen=True, slots=True)
class Stringing:
    """Makes one row of a micro-batch's rows, without padding, and says where each of them begins and ends.

    transformers keeps apart what `position_ids` number anew, as long as there is no attention mask; implementations of
    attention for rows of different lengths ask for `cu_seq_lens_q`, where rows end, and `max_length_q`, the longest.
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the micro-batch of `examples`: each a row, or a pack of rows with the `seq_lengths` of these."""
        lengths = [length for each in examples for length in (each.get("seq_lengths") or [len(each["input_ids"])])]
        ends = np.cumsum([0, *lengths])
        labels = np.concatenate([each["labels"] for each in examples])
        labels[ends[:-1]] = IGNORED  # nothing before it could tell the first token of a row
        positions = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
        marks, longest = torch.tensor(ends, dtype=torch.int32), max(lengths)
        return {
            "input_ids": torch.tensor(np.concatenate([each["input_ids"] for each in examples]))[None],
            "labels": torch.tensor(labels)[None],
            "position_ids": torch.tensor(positions)[None],
            "cu_seq_lens_q": marks,
            "cu_seq_lens_k": marks,
            "max_length_q": longest,
            "max_length_k": longest,
        }


def row_lengths(rows: Dataset) -> NDArray[np.int64]:
    """Return the tokens of each row of a data set that is tokenised; of pairs, those of the longer answer."""
    longest = np.zeros(len(rows), np.int64)
    for name in rows.column_names:
        if name.endswith("input_ids"):
            column: Any = rows.select_columns(name).with_format("arrow")[:]
            lengths: Any = pc.list_value_length(column[name])  # pyright: ignore[reportUnknownMemberType,reportAttributeAccessIssue]
            longest = np.maximum(longest, np.asarray(lengths, np.int64))
    return longest


class DealtBatches:
    """The micro-batches of one rank, epoch by epoch; a batch sampler for torch's DataLoader.

    The same for whoever counts them from the beginning, which is how transformers finds its place when it resumes.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        seed: int,
        micro_batch: int,
        accumulation: int,
        how: How,
        ranks: int = 1,
        rank: int = 0,
    ) -> None:
        self.batch_size = micro_batch
        self.drop_last = False
        self.epoch = 0
        self._lengths, self._seed, self._how = lengths, seed, how
        self._accumulation, self._ranks, self._rank = accumulation, ranks, rank

    def set_epoch(self, epoch: int) -> None:
        """Take the rows in the order of this epoch from the next beginning on."""
        self.epoch = epoch

    def __len__(self) -> int:
        step = self.batch_size * self._accumulation * self._ranks
        whole, rest = divmod(len(self._lengths), step)
        return whole * self._accumulation + -(-rest // (self.batch_size * self._ranks))

    def __iter__(self) -> Iterator[list[int]]:
        order = draw(len(self._lengths), self._seed, self.epoch)
        for rows in self.deal(order):
            own = rows[self._rank]
            yield own.tolist() if len(own) else [len(self._lengths)]  # that is the row that only fills up

    def deal(self, order: Indices) -> list[list[Indices]]:
        """Return the micro-batches of an epoch in this order, of each the rows of every rank."""
        return micro_batches(order, self._lengths, self.batch_size, self._accumulation, self._ranks, self._how)


def dealt(trainer: type[Any], batching: Batching) -> type[Any]:
    """Return `trainer`, one of transformers', as one whose micro-batches are dealt from the steps that the seed draws.

    Each rank takes its own part here, where accelerate would repeat rows until every rank has as many.
    """

    class Dealing(trainer):
        how = how_dealt(batching)

        def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list[dict[str, Any]], Any]:
            """Return the micro-batches of a step; where their losses are means over rows, each with its weight.

            Losses that are sums over tokens are divided by those of the whole step as it is.
            """
            samples, learned = super().get_batch_samples(*arguments, **options)
            if not self.model_accepts_loss_kwargs:
                rows = [len(next(iter(each.values()))) for each in samples]
                mean = self.accelerator.gather(torch.tensor(rows, device=self.accelerator.device)).float().mean()
                for each, own in zip(samples, rows, strict=True):
                    each[WEIGHT] = own / float(mean)
            return samples, learned

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            weight = inputs.pop(WEIGHT, 1.0)
            found = super().compute_loss(model, inputs, *arguments, **options)
            if weight == 1.0:
                return found
            return (found[0] * weight, *found[1:]) if isinstance(found, tuple) else found * weight

        def get_train_dataloader(self) -> Any:
            """Return the training rows in micro-batches, as transformers asks for them."""
            arguments, accelerator = self.args, self.accelerator
            rows = self._remove_unused_columns(self.train_dataset, description="Training")
            ranks = accelerator.num_processes
            batches = DealtBatches(
                row_lengths(rows),
                arguments.data_seed,
                arguments.per_device_train_batch_size,
                arguments.gradient_accumulation_steps,
                self.how,
                ranks,
                accelerator.process_index,
            )
            loader: Any = DataLoader(
                rows if ranks == 1 else _Filled(rows),
                batch_sampler=batches,  # pyright: ignore[reportArgumentType]
                collate_fn=self.data_collator,
                num_workers=arguments.dataloader_num_workers,
                pin_memory=arguments.dataloader_pin_memory,
            )
            # Of one process as far as accelerate is concerned: the rows are shared out already.
            prepared = prepare_data_loader(
                loader,
                accelerator.device,
                num_processes=1,
                process_index=0,
                put_on_device=accelerator.device_placement,
                rng_types=list(accelerator.rng_types),
                non_blocking=accelerator.non_blocking,
            )
            accelerator._dataloaders.append(prepared)
            return prepared

    return Dealing


class _Filled(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows, and behind them one on which no loss is taken, for a rank that is left without rows in a short step."""

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows) + 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < len(self._rows):
            return self._rows[index]
        row: dict[str, Any] = {}
        for name, value in self._rows[0].items():
            if name.endswith("labels"):
                row[name] = [IGNORED] * len(value[:2])
            elif name == "seq_lengths":
                row[name] = [len(self._rows[0]["input_ids"][:2])]
            else:  # tokens, and of judged answers their mark and what a reference says of them
                row[name] = value[:2] if isinstance(value, list) else type(value)(0)
        return row
