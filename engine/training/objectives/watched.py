"""Watched trainers: what all objectives share, whichever of TRL's trainers does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor

from ...data.examples import IGNORED
from ...data.preparing import Rows
from ..evaluation import Evaluating
from ..optimizer import SteadyTraining
from ..paging import PagedTraining


def watched(trainer: type[Any], telemetry: Any) -> type[Any]:
    """Return `trainer` as one that evaluates in our own way, and tells it where `telemetry` tells the rest."""

    class Watched(Evaluating, PagedTraining, SteadyTraining, trainer):
        events = telemetry.log

        def floating_point_ops(self, inputs: Any) -> int:
            """Return 0: transformers would count all parameters anew for every micro-batch, and the telemetry counts itself."""
            return 0

    return Watched


def columns_of(rows: Rows, prefix: str = "") -> dict[str, Any]:
    """Return the token ids and labels of `rows` as columns, without copying them row by row."""
    offsets = pa.array(np.concatenate((np.zeros(1, np.int64), rows.ends)))
    return {
        f"{prefix}input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(rows.tokens)),
        f"{prefix}labels": pa.LargeListArray.from_arrays(offsets, pa.array(rows.labels)),
    }


def dataset_of(columns: Mapping[str, Any]) -> Dataset:
    """Return columns as a data set."""
    return Dataset(pa.table(dict(columns)))


@dataclass(frozen=True, slots=True)
class Filling:
    """Fills rows up to the length of the longest, at their end."""

    pad_token: int

    def tensors(self, ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids, attention mask and labels, each (rows, longest)."""
        shape = (len(ids), max(map(len, ids)))
        tokens = torch.full(shape, self.pad_token, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.int64)
        learned = torch.full(shape, IGNORED, dtype=torch.int64)
        for place, (row, of_row) in enumerate(zip(ids, labels, strict=True)):
            tokens[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
            learned[place, : len(row)] = torch.tensor(of_row)
        return tokens, mask, learned

    @staticmethod
    def of(tokenizer: Any) -> Filling:
        """Return the filling with the tokenizer's own pad token, or else its end token: what is filled is masked."""
        pad = tokenizer.pad_token_id
        return Filling(tokenizer.eos_token_id if pad is None else pad)
