"""The guard: stops or warns when the loss, the gradient or the weights show that a training has gone wrong."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ...foundation.errors import TunewrightError
from ...recipes.model import Recipe
from ..data.examples import IGNORED
from ..data.preparing import Rows
from ..plan import Plan
from ..runs.events import EventLog, Notice
from . import parallel

REMEMBERED_STEPS = 50
"""Over so many steps the gradient's usual norm is taken, and it is known after FIRST_STEPS."""
FIRST_STEPS = 8
STEPS_IN_A_ROW = 3
"""A gradient that is large in fewer steps than this is a hard batch; the clipping deals with it."""
LEARNING_STEPS = 5
"""After so many steps with a learning rate above zero the weights must have changed, and the loss not be 0 in all."""
WORSE_BY = 0.5
"""A loss that is this much above that of guessing is no longer a beginning from nothing."""
SKIPPED_STEPS = 20
"""So many steps in a row that fp16's loss scale skips are no longer its search for a scale."""
SHOWN_ROWS = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch as the model saw it; the tensors stay where they are until they are asked for."""

    tokens: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor | None
    supervised: torch.Tensor | None
    """How many tokens are learned; None where the objective has no labels."""


class Guard(TrainerCallback):
    """Looks at every step after it is told, and before its weights are saved.

    Stopping is an error like any other that a user can cause: it ends the trainer, and the newest checkpoint is the last
    one from before.
    """

    def __init__(self, log: EventLog, recipe: Recipe, plan: Plan, rows: Rows) -> None:
        self.log = log
        self.recipe = recipe
        self.settings = recipe.training.guard
        self.plan = plan
        self.rows = rows
        self._norms: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._large = self._skipped = self._learning = self._silent = 0
        self._told: set[str] = set()
        self._guessing = math.inf
        """The loss of guessing every token of the vocabulary alike, where the objective's loss can be compared with it."""
        self._worse = 0
        self._before: int | None = None
        """What the trained weights' bits summed to at the beginning; None once they were seen to change."""
        self._step: list[Batch] = []
        self._losses: list[torch.Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        for entry in state.log_history[-REMEMBERED_STEPS:]:  # a resumed run knows what is usual
            self._remember(entry.get("grad_norm", math.nan))
        vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
        if vocabulary and self.recipe.training.objective in ("sft", "cpt"):
            self._guessing = math.log(vocabulary)
        self._before = None if self.settings.unchanged == "off" else sum_of_bits(model)
        model.register_forward_pre_hook(self._see, with_kwargs=True)
        model.register_forward_hook(self._see_loss)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: dict[str, float],
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", math.nan))
        if getattr(optimizer, "step_was_skipped", False):
            self._check_scale(state)
        else:
            self._skipped = 0
            self._check_numbers(state, loss, norm, "grad_norm" in logs)
            self._check_norm(state, norm)
            self._check_loss(state, loss)
            self._check_learning(state, loss, float(logs.get("learning_rate", 0.0)), model)
        self._check_supervision(state)
        if control.should_save or control.should_evaluate:  # the best weights are saved after they are evaluated
            self._check_weights(state, model)
        self._step, self._losses = [], []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self._step, self._losses = [], []
        if not math.isfinite(metrics["eval_loss"]):
            self._judge("warn", "validation", lambda: self._no_validation(state, metrics["eval_loss"]))

    def _check_numbers(self, state: Any, loss: float, norm: float, normed: bool) -> None:
        if math.isfinite(loss) and (math.isfinite(norm) or not normed):
            return
        what = "the loss" if not math.isfinite(loss) else "the gradient's norm"
        self._judge(self.settings.not_a_number, "number", lambda: self._not_a_number(state, what))

    def _check_weights(self, state: Any, model: Any) -> None:
        if parallel.any_rank(not is_finite(model)):
            self._judge(self.settings.not_a_number, "weights", lambda: self._not_a_number(state, "a weight"))

    def _check_scale(self, state: Any) -> None:
        """Let fp16 look for the largest scale that does not overflow; the steps in which one does are not taken."""
        self._skipped += 1
        if self._skipped >= SKIPPED_STEPS:
            self._judge(self.settings.not_a_number, "scale", lambda: self._no_scale(state))

    def _check_norm(self, state: Any, norm: float) -> None:
        usual = median(self._norms) if len(self._norms) >= FIRST_STEPS else math.inf
        if norm <= self.settings.explosion_factor * max(usual, 1e-30) or not math.isfinite(norm):
            self._large = 0
            self._told.discard("explosion")
            self._remember(norm)
            return
        self._large += 1
        if self._large >= STEPS_IN_A_ROW:
            self._judge(self.settings.explosion, "explosion", lambda: self._explosion(state, norm, usual))

    def _check_loss(self, state: Any, loss: float) -> None:
        self._worse = self._worse + 1 if loss > self._guessing + WORSE_BY else 0
        if self._worse >= LEARNING_STEPS:
            self._judge(self.settings.explosion, "worse", lambda: self._worse_than_guessing(state, loss))

    def _check_learning(self, state: Any, loss: float, learning_rate: float, model: Any) -> None:
        self._silent = self._silent + 1 if loss == 0 else 0
        if self._silent >= LEARNING_STEPS:
            self._judge(self.settings.unchanged, "silent", lambda: self._nothing_to_learn(state))
        self._learning += learning_rate > 0
        if self._before is None or self._learning < LEARNING_STEPS:
            return
        before, self._before = self._before, None
        if not parallel.any_rank(sum_of_bits(model) != before):
            self._judge(self.settings.unchanged, "unchanged", lambda: self._unchanged(state, learning_rate))

    def _check_supervision(self, state: Any) -> None:
        counts = [batch.supervised for batch in self._step if batch.supervised is not None]
        if counts and len(counts) == len(self._step) and not parallel.total(int(torch.stack(counts).sum())):
            self._judge("warn", "supervision", lambda: self._unsupervised(state))

    def _judge(self, setting: str, kind: str, error: Callable[[], TunewrightError]) -> None:
        """Stop, or warn once, or do nothing, as the recipe says."""
        if setting == "stop":
            raise error()
        if setting == "warn" and kind not in self._told:
            self._told.add(kind)
            found = error()
            self.log.append(Notice(level="warning", title=found.title, message=found.message, remedy=found.remedy))

    def _remember(self, norm: float) -> None:
        if math.isfinite(norm):
            self._norms.append(norm)

    @torch.compiler.disable
    def _see(self, model: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Keep what passes forward with gradients until the step is judged."""
        tokens = named.get("input_ids", arguments[0] if arguments else None)
        if not (model.training and torch.is_grad_enabled() and isinstance(tokens, torch.Tensor)):
            return
        labels = named.get("labels")
        supervised = (labels[..., 1:] != IGNORED).sum() if isinstance(labels, torch.Tensor) else None
        self._step.append(Batch(tokens, named.get("attention_mask"), named.get("position_ids"), supervised))

    @torch.compiler.disable
    def _see_loss(self, model: Any, arguments: tuple[Any, ...], output: Any) -> None:
        loss = getattr(output, "loss", None)
        if model.training and torch.is_grad_enabled() and isinstance(loss, torch.Tensor):
            self._losses.append(loss.detach())

    def _not_a_number(self, state: Any, what: str) -> TunewrightError:
        rate = self.recipe.training.learning_rate
        advice = f"Start anew with a lower learning rate, such as training.learning_rate = {rate / 5:.1g}"
        if self.plan.precision == "fp16":
            advice += ", or on a card with bf16, which has a wider range than fp16"
        if state.global_step == 1:
            advice = f"Look at these rows and at the model's files first: no step had been taken before. {advice}"
        return TunewrightError(
            "Not a number",
            f"At step {state.global_step} of {state.max_steps} {what} is NaN or infinite, and nothing learned after it "
            f"would be worth anything. {self._rows_text()}The checkpoints from before are whole.",
            advice + ". `tunewright recipes` shows how to change a recipe.",
        )

    def _no_scale(self, state: Any) -> TunewrightError:
        return TunewrightError(
            "fp16 overflows",
            f"The last {self._skipped} steps up to step {state.global_step} overflowed the range of fp16, however small "
            "the loss was scaled, and were not taken.",
            f"Train on a card with bf16, or with a lower learning rate than {self.recipe.training.learning_rate:g}.",
        )

    def _explosion(self, state: Any, norm: float, usual: float) -> TunewrightError:
        return TunewrightError(
            "The gradient explodes",
            f"Up to step {state.global_step} its norm has been over {self.settings.explosion_factor:g} times what is usual "
            f"in {self._large} steps in a row: {norm:.3g}, where the median was {usual:.3g}. {self._rows_text()}".rstrip(),
            f"Start anew with a lower learning rate than {self.recipe.training.learning_rate:g}, or a longer warm-up.",
        )

    def _worse_than_guessing(self, state: Any, loss: float) -> TunewrightError:
        return TunewrightError(
            "The training has diverged",
            f"The loss, {loss:.2f} at step {state.global_step}, has been above {self._guessing:.2f} in {self._worse} steps in "
            "a row: that is what guessing among all tokens alike would give.",
            f"Start anew with a lower learning rate than {self.recipe.training.learning_rate:g}, or a longer warm-up.",
        )

    def _unchanged(self, state: Any, learning_rate: float) -> TunewrightError:
        nothing = not any(self._norms)
        return TunewrightError(
            "Nothing is learned",
            f"After {self._learning} steps with a learning rate above zero (now {learning_rate:.3g}) every trained weight "
            f"is bit for bit what it was{', for the gradient was 0 in all of them' if nothing else ''}.",
            "What is trained has no part in the model's answer: try other method.targets, or another base model."
            if nothing
            else "Raise the learning rate: its updates are smaller than the weights can show.",
        )

    def _nothing_to_learn(self, state: Any) -> TunewrightError:
        return TunewrightError(
            "Nothing is learned",
            f"The loss was exactly 0 in {self._silent} steps up to step {state.global_step}.",
            "Look at which tokens are learned: `tunewright data preview` marks them, and data.loss_on chooses them.",
        )

    def _unsupervised(self, state: Any) -> TunewrightError:
        return TunewrightError(
            "A step without a token to learn",
            f"No row of step {state.global_step} has a token on which the loss is taken. {self._rows_text()}".rstrip(),
            "Look at which tokens are learned: `tunewright data preview` marks them, and data.loss_on chooses them.",
        )

    def _no_validation(self, state: Any, loss: float) -> TunewrightError:
        return TunewrightError(
            "The validation loss is not a number",
            f"At step {state.global_step} the loss on the validation rows is {loss}.",
            "Look at these rows: `tunewright data preview` marks which of their tokens are learned.",
        )

    def _rows_text(self) -> str:
        """Return which training rows the step trained on, those of the micro-batches without a finite loss if there are any."""
        batches = self._step
        if len(self._losses) == len(batches):
            losses = [bool(torch.isfinite(loss).all()) for loss in self._losses]
            batches = [batch for batch, good in zip(batches, losses, strict=True) if not good] or batches
        numbers = find_rows(self.rows, [row for batch in batches for row in rows_in(batch)])
        if not numbers:
            return ""
        shown = ", ".join(f"{number + 1:,}" for number in numbers[:SHOWN_ROWS])
        more = f" and {len(numbers) - SHOWN_ROWS} more" if len(numbers) > SHOWN_ROWS else ""
        return (
            f"It was in the training rows {shown}{more}. " if len(numbers) > 1 else f"It was in training row {shown}. "
        )


def require_trainable(model: Any) -> None:
    """Refuse to train a model without a trainable weight; raises TunewrightError."""
    if not any(each.requires_grad and each.numel() for each in model.parameters()):
        raise TunewrightError(
            "Nothing to train",
            "None of the model's weights is trainable: no adapter was put anywhere.",
            "Choose other method.targets; `tunewright plan` names the modules that this model has.",
        )


def sum_of_bits(model: Any) -> int:
    """Return a figure that changes when any trained weight of this process does: the sum of their bits as integers."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [each.view(integers[each.element_size()]).sum(dtype=torch.int64) for each in _trained(model)]
    return sum(int(each) for each in torch.stack([each.to(sums[0].device) for each in sums])) if sums else 0


def is_finite(model: Any) -> bool:
    """Tell whether every trained weight of this process is a finite number; one wait for the device, and no copy."""
    sums = [each.sum(dtype=torch.float32) for each in _trained(model)]
    return not sums or bool(torch.isfinite(torch.stack([each.to(sums[0].device) for each in sums])).all())


def _trained(model: Any) -> Iterator[torch.Tensor]:
    """Yield the trained weights, of sharded ones this process's part."""
    for each in model.parameters():
        if each.requires_grad and each.numel():
            local = each.detach()
            yield local.to_local() if hasattr(local, "to_local") else local


def rows_in(batch: Batch) -> Iterator[list[int]]:
    """Yield the token ids of each row in a micro-batch, without padding; rows side by side are told apart by position."""
    for place, line in enumerate(batch.tokens.tolist()):
        if isinstance(batch.positions, torch.Tensor) and batch.positions.shape == batch.tokens.shape:
            begins = [at for at, position in enumerate(batch.positions[place].tolist()) if position == 0]
            for begin, end in zip(begins, [*begins[1:], len(line)], strict=True):
                yield line[begin:end]
        elif isinstance(batch.mask, torch.Tensor) and batch.mask.shape == batch.tokens.shape:
            yield [token for token, real in zip(line, batch.mask[place].tolist(), strict=True) if real]
        else:
            yield line


def find_rows(rows: Rows, wanted: Sequence[Sequence[int]]) -> list[int]:
    """Return the indexes of the rows that have exactly these tokens; the first of equal ones."""
    by_length: dict[int, set[bytes]] = {}
    for each in wanted:
        by_length.setdefault(len(each), set()).add(np.asarray(each, rows.tokens.dtype).tobytes())
    found: list[int] = []
    lengths = np.diff(rows.ends, prepend=0)
    for index in np.flatnonzero(np.isin(lengths, list(by_length))).tolist():
        left, end = by_length[int(lengths[index])], int(rows.ends[index])
        key = rows.tokens[end - int(lengths[index]) : end].tobytes()
        if key in left:
            left.discard(key)
            found.append(index)
    return found
