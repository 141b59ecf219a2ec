"""What a run tells while it trains: steps, evaluations, samples and checkpoints, as events."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from ...foundation.units import GIB
from ...recipes.model import Recipe
from ..anatomy import Anatomy
from ..data.examples import Example, Message
from ..data.rendering import Renderer
from ..plan import Plan
from ..runs.checkpoint import commit_checkpoint, require_space
from ..runs.directory import RunDirectory
from ..runs.events import Checkpoint, Eval, EventLog, Notice, Phase, Sample, Step
from ..setting import Tuning
from ..timing import SAMPLED_PROMPTS
from . import parallel
from .randomness import undisturbed_randomness
from .stages import TimedLog
from .utilisation import Tally, useful_flop, utilisation

SLOW_SAMPLES_SHARE, SLOW_SAMPLES_SECONDS = 0.2, 5.0
"""Samples that take a larger share of the time than this, and longer each time, are told to be slow."""
NOT_METRICS = {
    "loss",
    "learning_rate",
    "grad_norm",
    "epoch",
    "eval_loss",
    "num_tokens",
    "mean_token_accuracy",
    "entropy",
}
"""What trainers log that has a field of its own, or that supervised fine-tuning logs of every model."""
TIMES_OF_LIBRARIES = ("_runtime", "_per_second", "_time", "_memory")


@dataclass(frozen=True, slots=True)
class FixedPrompt:
    """A prompt that the model answers again and again while it learns."""

    shown: str
    text: str
    reference: str


def fixed_prompts(recipe: Recipe, renderer: Renderer, held_out: Sequence[Example]) -> list[FixedPrompt]:
    """Return the recipe's own prompts, or else those of the first held-out rows with the answers that these have.

    Plain text is gone on from as it is; all else is asked as the chat template has it.
    """
    own = recipe.evaluation.prompts
    if not own:
        return [
            FixedPrompt(
                shown=each.messages[-2].content,
                text=renderer.prompt(each.messages[:-1], each.tools),
                reference=each.messages[-1].content,
            )
            for each in held_out[:SAMPLED_PROMPTS]
        ]
    plain = recipe.training.objective == "cpt"
    return [
        FixedPrompt(shown=text, text=text if plain else renderer.prompt([Message("user", text)]), reference="")
        for text in own
    ]


@dataclass(frozen=True, slots=True)
class Card:
    """What a step's arithmetic is held against."""

    anatomy: Anatomy
    tuning: Tuning
    matrix_tflops: float | None
    """Of large products on one of the run's GPUs, measured; None where it was not."""


class Telemetry(TrainerCallback):
    """Writes the events of one training, and asks the trainer to evaluate, save and stop.

    The time of a step goes from the end of the one before, evaluating, saving and sampling left out, to when its loss
    is known on the host: the trainer waits for that anyway, and the device has then done all of the step. Nothing else
    here waits for the device.
    """

    def __init__(
        self,
        run: RunDirectory,
        log: EventLog,
        plan: Plan,
        prompts: Sequence[FixedPrompt],
        generate: Callable[[list[str]], list[str]],
        card: Card | None = None,
    ) -> None:
        self.run = run
        self.log = log
        self.plan = plan
        self.prompts = prompts
        self.generate = generate
        self.card = card
        self._own_prompts = bool(prompts) and not any(each.reference for each in prompts)
        """Whether people named the prompts; then they are answered before and after the training, too."""
        self.trainer: Any = None
        """Set once the trainer is built, which needs this callback first."""
        self.tally = Tally(card.anatomy.sliding_window if card else None)
        self.stop_asked = False
        self.training_seconds = 0.0
        self.tokens = 0
        self.peak_gib = 0.0
        self.step_seconds = 0.0
        self._ended = 0.0
        """When the last step, or what came after it, had ended."""
        self._writing_started = 0.0
        self._saved_bytes = 0
        """What the last checkpoint took, 0 before the first."""
        self._stepping = 0.0
        self._sampling = 0.0
        self._slow_told = False
        self._judged = 0

    def listen_for_stop(self) -> None:
        """Take TERM, INT and USR1 as the wish to save at the next step and stop."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.stop_asked = True

        for number in (
            (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) if parallel.is_alone() else (parallel.STOP_SIGNAL,)
        ):
            signal.signal(number, ask)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.plan.recompute_every > 1:  # transformers has just turned recomputing on in all layers
            from .transformers import thin_checkpointing

            thin_checkpointing(model, self.plan.recompute_every)
        self.tally.watch(model)
        if self._own_prompts and state.global_step == 0:
            phase = self.log.phase if isinstance(self.log, TimedLog) else None
            self.log.append(Phase(name="judging before", total=len(self.prompts)))
            self._sample(0)
            self.log.append(Phase(name=phase.name if phase else "training"))
        self._ended = 0.0

    # The order of one step in transformers: on_step_begin, on_step_end, on_log, on_evaluate, on_save.

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._ended:  # the first step of this process
            self._ended = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, last = state.global_step, state.global_step >= state.max_steps
        self.stop_asked = parallel.any_rank(self.stop_asked)
        control.should_evaluate = self.plan.validation_rows > 0 and (step % self.plan.evaluate_every_steps == 0 or last)
        control.should_save = step % self.plan.checkpoint_every_steps == 0 or last
        if self.stop_asked and not last:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        now = time.perf_counter()
        self.step_seconds, self._ended = now - self._ended, now
        self._stepping += self.step_seconds
        counted = self.tally.take()
        each_tokens, peaks, reserved = parallel.of_all_ranks(
            counted.tokens, peak_memory_gib(self.plan.device), reserved_peak_gib(self.plan.device)
        )
        tokens = round(sum(each_tokens))
        self.tokens += tokens
        self.peak_gib = max(peaks)
        card, mfu = self.card, None
        if card is not None and card.matrix_tflops:
            mfu = utilisation(useful_flop(card.anatomy, card.tuning, counted), self.step_seconds, card.matrix_tflops)
        self.log.append(
            Step(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0),
                loss=float(logs["loss"]),
                learning_rate=float(logs["learning_rate"]),
                grad_norm=float(logs.get("grad_norm", math.nan)),
                tokens=tokens,
                seconds=self.step_seconds,
                peak_gib=self.peak_gib,
                reserved_gib=max(reserved),
                mfu=mfu,
                metrics=metrics_of(logs),
            )
        )
        if isinstance(self.log, TimedLog):
            self.log.first_step()
            if self.log.phase is not None and self.log.phase.name == "compiling":
                self.log.append(Phase(name="training"))
        last = self._own_prompts and state.global_step >= state.max_steps
        if state.global_step % self.plan.sample_every_steps == 0 or last:
            self._sample(state.global_step)
        if control.should_save and not control.should_evaluate:
            self._begin_saving(state.global_step)
        self._ended = time.perf_counter()

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        self._judged += 1
        if isinstance(self.log, TimedLog):
            with contextlib.suppress(TypeError):  # a loader without a length
                self.log.progress(self._judged, len(eval_dataloader))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self.log.append(
            Eval(
                step=state.global_step,
                loss=metrics.get("eval_loss"),
                rows=self.plan.validation_rows,
                seconds=metrics.get("eval_runtime", 0.0),
                metrics=metrics_of(metrics),
            )
        )
        self._judged = 0
        if control.should_save:
            self._begin_saving(state.global_step)
        else:
            self.log.append(Phase(name="training"))
        self._ended = time.perf_counter()

    def _begin_saving(self, step: int) -> None:
        if parallel.is_first():
            require_space(self.run.checkpoints, step, max(self._saved_bytes, bytes_to_save(self.trainer)))
        self._writing_started = time.perf_counter()
        self.log.append(Phase(name="saving", detail=f"step {step:,}"))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move what the trainer just wrote into place."""
        parallel.wait()  # until every rank has written its part
        if parallel.is_first():
            self._commit(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
        parallel.wait()
        self.log.append(Phase(name="training"))
        self._ended = time.perf_counter()

    def _commit(self, written: Path, step: int) -> None:
        saved = commit_checkpoint(written, self.run.checkpoints, step)
        self._saved_bytes = saved.size_bytes
        self.log.append(
            Checkpoint(
                step=step,
                name=saved.path.name,
                size_bytes=saved.size_bytes,
                seconds=time.perf_counter() - self._writing_started,
            )
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if parallel.is_first():
            shutil.rmtree(args.output_dir, ignore_errors=True)

    def _sample(self, step: int) -> None:
        """Let the model answer the fixed prompts, greedily; the training goes on as if it had not been asked."""
        if not self.prompts:
            return
        started = time.perf_counter()
        with undisturbed_randomness():
            answers = self.generate([prompt.text for prompt in self.prompts])
        seconds = time.perf_counter() - started
        self._sampling += seconds
        for prompt, answer in zip(self.prompts, answers, strict=True):
            self.log.append(
                Sample(step=step, prompt=prompt.shown, completion=answer, reference=prompt.reference, seconds=seconds)
            )
        if (
            not self._slow_told
            and seconds > SLOW_SAMPLES_SECONDS
            and self._sampling > SLOW_SAMPLES_SHARE * self._stepping
        ):
            self._slow_told = True
            self.log.append(
                Notice(
                    level="info",
                    title="Samples are slow",
                    message=f"{len(self.prompts)} answers at step {step:,} took {seconds:.1f} s; samples have taken "
                    f"{self._sampling / max(self._stepping, 1e-9):.0%} of the steps' time so far.",
                    remedy="A lower evaluation.max_new_tokens or fewer evaluation.prompts make them shorter.",
                )
            )


def metrics_of(logs: dict[str, Any]) -> dict[str, float]:
    """Return what an objective measures beside the loss, such as `rewards/margins`, from what its trainer logs."""
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in logs.items()
        if isinstance(value, int | float)
        and name.removeprefix("eval_") not in NOT_METRICS
        and not name.endswith(TIMES_OF_LIBRARIES)
    }


def bytes_to_save(trainer: Any) -> int:
    """Return about what a checkpoint takes on the disk: what is trained, and the optimizer's state of it."""
    states = [value for each in trainer.optimizer.state.values() for value in each.values()]
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    return sum(each.numel() * each.element_size() for each in (*trained, *states) if isinstance(each, torch.Tensor))


def peak_memory_gib(device: str) -> float:
    """Return the most memory so far in GiB: allocated on the GPU, or resident in this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    return resident_peak_gib()


def reserved_peak_gib(device: str) -> float:
    """Return the most memory that torch's allocator took from the GPU, in GiB; on a processor the same as the peak."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() / GIB
    return resident_peak_gib()


def reset_peak_memory(device: str) -> None:
    """Forget the peak that loading and judging reached on the GPU; the resident set of a process stays as it was."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def resident_peak_gib() -> float:
    """Return the largest resident set of this process so far, in GiB (VmHWM)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    return psutil.Process().memory_info().rss / GIB
