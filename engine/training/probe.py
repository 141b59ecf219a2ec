"""The probe's child process: a few real steps on the longest rows, one evaluation and one checkpoint, measured.

`python -m tunewright.engine.training.probe DIRECTORY`

The directory is laid out like a run's. What was found is in its `probe.json`: first the rows, then the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...foundation.files import write_atomically
from ...foundation.text import one_line
from ...recipes.model import Recipe
from ..data.cache import prepare_once
from ..data.preparing import Prepared
from ..plan import Plan
from ..probe import FINDINGS, STEPS, WARM_STEPS, longest_rows
from ..runs import outcome
from ..runs.directory import RunDirectory
from ..runs.events import EventLog
from ..sources import find_weights
from .trainer import build_trainer, end_with_parent, guard, load, ran_out_of_memory


def main(arguments: list[str]) -> int:
    """Probe the plan in the directory that is the first argument, and return how that ended (see `outcome`)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    directory = RunDirectory(parser.parse_args(arguments).directory)
    end_with_parent()
    log = EventLog(directory.events_file)
    return guard(directory, log, lambda: probe(directory, log))


def probe(directory: RunDirectory, log: EventLog) -> int:
    """Write down the rows and what they took; memory that runs out is written down as well."""
    recipe, plan = directory.recipe(), directory.plan()
    folder = find_weights(recipe.base.model, recipe.base.revision)
    rows = longest_rows(prepare_once(recipe, folder).prepared, recipe, plan.micro_batch)
    found: dict[str, Any] = {
        "training": rows.training.lengths,
        "validation": rows.validation.lengths,
    }
    write_atomically(directory.path / FINDINGS, json.dumps(found))
    try:
        found["measured"] = measure(directory, log, recipe, plan, folder, rows)
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        found["failure"] = one_line(str(error), 300)
        write_atomically(directory.path / FINDINGS, json.dumps(found))
        return outcome.OUT_OF_MEMORY
    write_atomically(directory.path / FINDINGS, json.dumps(found))
    return outcome.FINISHED


def measure(
    directory: RunDirectory, log: EventLog, recipe: Recipe, plan: Plan, folder: Path, rows: Prepared
) -> dict[str, float]:
    """Return what the steps, the evaluation and the checkpoint took, in GiB, seconds, bytes and watts by name."""
    short = replace(
        plan,
        total_steps=STEPS,
        validation_rows=len(rows.validation),
        evaluate_every_steps=STEPS,
        checkpoint_every_steps=STEPS,
        sample_every_steps=STEPS + 1,
    )
    model, tokenizer = load(recipe, short, folder)

    from .devices import device_samples
    from .telemetry import Telemetry, peak_memory_gib, reserved_peak_gib, reset_peak_memory

    figures: dict[str, float] = {}
    seconds: list[float] = []

    class Watch(Telemetry):
        """The trainer's own telemetry, which also takes the peaks of each part."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            super().on_log(args, state, control, logs, **kwargs)
            if "loss" in logs:
                seconds.append(self.step_seconds)
                if len(seconds) == WARM_STEPS:
                    power.reset()
            if "loss" in logs and state.global_step == STEPS:
                if power.watts is not None:
                    figures["watts"] = power.watts
                figures["peak_gib"] = self.peak_gib
                figures["reserved_gib"] = reserved_peak_gib(plan.device)
                reset_peak_memory(plan.device)
                self._writing_started = time.perf_counter()

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
            super().on_evaluate(args, state, control, metrics, **kwargs)
            figures["evaluation_gib"] = peak_memory_gib(plan.device)
            figures["evaluation_seconds"] = metrics["eval_runtime"]
            reset_peak_memory(plan.device)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_save(args, state, control, **kwargs)
            figures["saving_seconds"] = time.perf_counter() - self._writing_started
            saved = (file.stat().st_size for file in self.run.checkpoints.rglob("*") if file.is_file())
            figures["checkpoint_bytes"] = sum(saved)

    def no_answers(prompts: Sequence[str]) -> list[str]:
        return []

    with device_samples(log, plan) as power:
        watch = Watch(directory, log, short, (), no_answers)
        trainer = build_trainer(directory, recipe, short, model, tokenizer, rows, watch)
        trainer.args.train_sampling_strategy = "sequential"  # the longest rows together, in every step
        reset_peak_memory(plan.device)
        trainer.train()
    timed = statistics.median(seconds[WARM_STEPS:])
    return figures | {"step_seconds": timed, "first_step_seconds": max(0.0, seconds[0] - timed)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
