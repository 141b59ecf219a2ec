"""What a run tells while it trains: steps, evaluations, samples and checkpoints, as events."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from ..machine import GIB, sample_gpus
from ..plan import Plan
from ..runs.checkpoint import commit_checkpoint, prune
from ..runs.directory import RunDirectory
from ..runs.events import Checkpoint, Cpu, Eval, EventLog, Gpu, Notice, Sample, Step

DEVICE_SAMPLES_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FixedPrompt:
    """A prompt that the model answers again and again while it learns."""

    shown: str
    text: str
    reference: str


class Telemetry(TrainerCallback):
    """Writes the events of one training, and asks the trainer to evaluate, save and stop."""

    def __init__(
        self,
        run: RunDirectory,
        log: EventLog,
        plan: Plan,
        prompts: Sequence[FixedPrompt],
        generate: Callable[[list[str]], list[str]],
    ) -> None:
        self.run = run
        self.log = log
        self.plan = plan
        self.prompts = prompts
        self.generate = generate
        self.trainer: Any = None
        """Set once the trainer is built, which needs this callback first."""
        self.stop_asked = False
        self.training_seconds = 0.0
        self.tokens = 0
        self.peak_gib = 0.0
        self._step_started = 0.0
        self._step_seconds = 0.0
        self._writing_started = 0.0

    def listen_for_stop(self) -> None:
        """Take TERM, INT and USR1 as the wish to save at the next step and stop."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.stop_asked = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, ask)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.plan.recompute_every > 1:  # transformers has just turned recomputing on in all layers
            from .transformers import thin_checkpointing

            thin_checkpointing(model, self.plan.recompute_every)

    # The order of one step in transformers: on_step_begin, on_step_end, on_log, on_evaluate, on_save.

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.plan.device == "cuda":
            torch.cuda.synchronize()
        self._step_seconds = time.perf_counter() - self._step_started
        step, last = state.global_step, state.global_step >= state.max_steps
        control.should_evaluate = self.plan.validation_rows > 0 and (step % self.plan.evaluate_every_steps == 0 or last)
        control.should_save = step % self.plan.checkpoint_every_steps == 0 or last
        if self.stop_asked and not last:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        tokens = self.trainer.take_tokens()
        self.tokens += tokens
        self.peak_gib = peak_memory_gib(self.plan.device)
        self.log.append(
            Step(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0),
                loss=float(logs["loss"]),
                learning_rate=float(logs["learning_rate"]),
                grad_norm=float(logs.get("grad_norm", math.nan)),
                tokens=tokens,
                seconds=self._step_seconds,
                peak_gib=self.peak_gib,
            )
        )
        if not math.isfinite(logs["loss"]):
            self.log.append(
                Notice(
                    level="warning",
                    title="Loss is not a number",
                    message=f"At step {state.global_step} the loss is {logs['loss']}.",
                    remedy="Stop, and start again with a lower learning rate.",
                )
            )
        if state.global_step % self.plan.sample_every_steps == 0:
            self._sample(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self.log.append(
            Eval(
                step=state.global_step,
                loss=metrics.get("eval_loss"),
                rows=self.plan.validation_rows,
                seconds=metrics.get("eval_runtime", 0.0),
            )
        )
        self._writing_started = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move what the trainer just wrote into place."""
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        saved = commit_checkpoint(written, self.run.checkpoints, state.global_step)
        self.log.append(
            Checkpoint(
                step=state.global_step,
                name=saved.path.name,
                size_bytes=saved.size_bytes,
                seconds=time.perf_counter() - max(self._writing_started, self._step_started),
            )
        )
        prune(self.run.checkpoints, saved)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        shutil.rmtree(args.output_dir, ignore_errors=True)

    def _sample(self, step: int) -> None:
        """Let the model answer the fixed prompts; greedy, so no random state is touched."""
        if not self.prompts:
            return
        answers = self.generate([prompt.text for prompt in self.prompts])
        for prompt, answer in zip(self.prompts, answers, strict=True):
            self.log.append(Sample(step=step, prompt=prompt.shown, completion=answer, reference=prompt.reference))


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


class PowerMean:
    """The mean power of the run's GPU over the samples since the last reset."""

    def __init__(self) -> None:
        self._drawn: list[float] = []

    def add(self, watts: float) -> None:
        self._drawn.append(watts)

    def reset(self) -> None:
        """Begin anew."""
        self._drawn = []

    @property
    def watts(self) -> float | None:
        """The mean, None while nothing was sampled."""
        drawn = self._drawn
        return sum(drawn) / len(drawn) if drawn else None


@contextlib.contextmanager
def device_samples(log: EventLog, device: str) -> Generator[PowerMean]:
    """Write a sample of the GPUs, or of this process without one, twice a second while the block runs.

    Yields the power that was sampled; the trainer sees the GPU of its plan alone.
    """
    ended = threading.Event()
    power = PowerMean()

    def watch() -> None:
        process = psutil.Process()
        process.cpu_percent()
        while not ended.wait(DEVICE_SAMPLES_SECONDS):
            with contextlib.suppress(OSError):  # a full disk is told by the trainer itself
                if device == "cpu":
                    used = process.memory_info().rss / GIB
                    log.append(Cpu(utilisation_percent=process.cpu_percent(), memory_gib=used))
                    continue
                for gpu in sample_gpus():
                    if gpu.power_watts is not None:
                        power.add(gpu.power_watts)
                    log.append(
                        Gpu(
                            index=gpu.index,
                            utilisation_percent=gpu.utilisation_percent,
                            memory_used_gib=gpu.memory_total_gib - gpu.memory_free_gib,
                            memory_total_gib=gpu.memory_total_gib,
                            temperature_celsius=gpu.temperature_celsius,
                            power_watts=gpu.power_watts,
                        )
                    )

    thread = threading.Thread(target=watch, name="device-samples", daemon=True)
    thread.start()
    try:
        yield power
    finally:
        ended.set()
        thread.join()
