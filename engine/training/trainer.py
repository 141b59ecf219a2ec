"""The trainer: the child process that loads, judges, trains, saves and exports. Read it from `main` downwards.

`python -m tunewright.engine.training.trainer RUN_DIRECTORY [--rung N] [--checkpoint FOLDER]`
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.files import write_atomically
from ...recipes.model import LoraMethod, Recipe
from ..anatomy import read_anatomy
from ..calibration import outcome_of, record
from ..data.examples import Example
from ..data.preparing import Prepared, prepare, read_examples
from ..data.reading import open_source
from ..data.rendering import Renderer
from ..plan import Plan
from ..runs import outcome
from ..runs.checkpoint import sweep
from ..runs.directory import RunDirectory, release_reserve
from ..runs.events import Eval, EventLog, Measured, Notice, Phase, Sample
from ..runs.ladder import ladder
from ..sources import find_model

SAMPLED_PROMPTS = 3
FULL_DISK_BYTES = 2**20
"""With less than this left, an error while saving is put down to the disk."""


def main(arguments: list[str]) -> int:
    """Train the run in the first argument and return how it ended (see `outcome`)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--rung", type=int, default=0, help="of the memory ladder; 0 is the plan as it was made")
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args(arguments)
    end_with_parent()
    run = RunDirectory(options.run)
    log = EventLog(run.events_file)
    return guard(run, log, lambda: train(run, log, options.rung, options.checkpoint))


def guard(run: RunDirectory, log: EventLog, work: Callable[[], int]) -> int:
    """Return how `work` on `run` ended; an expected failure is told as an error notice, and any other raised."""
    try:
        return work()
    except TunewrightError as error:
        return refuse(log, error)
    except Exception as error:  # whatever it is, memory and disk are asked about first
        if ran_out_of_memory(error):
            return outcome.OUT_OF_MEMORY
        if ran_out_of_disk(error, run.path):
            release_reserve(run)
            error = OSError(errno.ENOSPC, "No space left on device", str(run.path))
        if isinstance(error, OSError):
            return refuse(log, explain_os_error(error, Path(error.filename or run.path), "Writing"))
        raise


def train(run: RunDirectory, log: EventLog, rung: int, checkpoint: Path | None) -> int:
    """Take the run from where it stands to its end, in as much memory as this rung of the ladder takes."""
    started = time.perf_counter()
    recipe, plan = run.recipe(), ladder(run.plan())[rung].plan
    folder = find_model(recipe.base.model, recipe.base.revision)

    log.append(Phase(name="tokenising", detail=recipe.data.source))
    renderer = Renderer(folder, recipe.data)
    prepared = prepare(recipe, folder)
    write_split(run, recipe, prepared)
    judged = held_out(recipe, prepared)

    log.append(Phase(name="loading", detail=f"{recipe.base.model} with {plan.backend}"))
    model, tokenizer = load(recipe, plan, folder)

    from ..results.evaluate import answer, judge
    from .telemetry import FixedPrompt, Telemetry, device_samples, peak_memory_gib, reset_peak_memory

    def generate(prompts: list[str]) -> list[str]:
        return answer(model, tokenizer, prompts, recipe.evaluation.max_new_tokens, renderer.end_tokens)

    with device_samples(log, plan.device) as power:
        if recipe.evaluation.source and checkpoint is None:
            log.append(Phase(name="judging before", total=len(judged)))
            share, seconds, samples = judge(generate, renderer, judged)
            log.append(Eval(step=0, exact_match=share, rows=len(judged), seconds=seconds))
            _append_samples(log, 0, samples)

        prompts = [
            FixedPrompt(
                shown=each.messages[-2].content,
                text=renderer.prompt(each.messages[:-1], each.tools),
                reference=each.messages[-1].content,
            )
            for each in judged[:SAMPLED_PROMPTS]
        ]
        telemetry = Telemetry(run, log, plan, prompts, generate)
        telemetry.listen_for_stop()
        trainer = build_trainer(run, recipe, plan, model, tokenizer, prepared, telemetry)
        log.append(Phase(name="training"))
        reset_peak_memory(plan.device)
        power.reset()
        began = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        telemetry.training_seconds = time.perf_counter() - began
        drawn = power.watts
        if telemetry.stop_asked and trainer.state.global_step < trainer.state.max_steps:
            return outcome.STOPPED

        log.append(Phase(name="saving"))
        save_tuned(run, recipe, model, tokenizer)
        if recipe.evaluation.source:
            log.append(Phase(name="judging after", total=len(judged)))
            share, seconds, samples = judge(generate, renderer, judged)
            log.append(Eval(step=plan.total_steps, exact_match=share, rows=len(judged), seconds=seconds))
            _append_samples(log, plan.total_steps, samples)
        if plan.merge and isinstance(recipe.method, LoraMethod):
            from ..results.export import merge

            log.append(Phase(name="exporting", detail="merged model"))
            merge(run, recipe, plan, folder)
    measured = {
        "trainable_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "peak_gib": telemetry.peak_gib or peak_memory_gib(plan.device),
        "training_seconds": telemetry.training_seconds,
        "total_seconds": time.perf_counter() - started,
        "tokens_per_second": telemetry.tokens / telemetry.training_seconds,
    }
    if drawn is not None:
        measured["mean_watts"] = drawn
    log.append(Measured(values=measured))
    if checkpoint is None:
        learn_from(recipe, plan, folder, measured)
    log.append(Phase(name="done"))
    return outcome.FINISHED


def load(recipe: Recipe, plan: Plan, folder: Path) -> tuple[Any, Any]:
    """Return the model that the plan's backend loads, with the recipe's adapters, and its tokenizer."""
    backend = importlib.import_module(f".{plan.backend}", __package__)  # Unsloth has to come before trl
    from transformers import AutoTokenizer, set_seed

    require_device(plan)
    set_seed(recipe.training.seed)  # trl does not seed the adapters
    model = backend.load_model(recipe, plan, folder)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def build_trainer(
    run: RunDirectory, recipe: Recipe, plan: Plan, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return the objective's trainer over the rows that our own rendering made; it tells `telemetry` all it does."""
    from .objectives import trainer_of

    sweep(run.checkpoints)
    writing = run.checkpoints / f".writing-{os.getpid()}"
    trainer = trainer_of(recipe, plan, writing, model, tokenizer, prepared, telemetry)
    telemetry.trainer = trainer
    if isinstance(recipe.method, LoraMethod):
        # TRL casts the adapters of a quantised model to bf16, and a resume would load them as float32.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer


def save_tuned(run: RunDirectory, recipe: Recipe, model: Any, tokenizer: Any) -> None:
    """Write the adapter, or the whole model after full fine-tuning, in one step."""
    place = run.adapter if isinstance(recipe.method, LoraMethod) else run.model
    aside = place.with_name(f".writing-{place.name}")
    model.save_pretrained(aside, safe_serialization=True)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)


def held_out(recipe: Recipe, prepared: Prepared) -> tuple[Example, ...]:
    """Return the examples on whose last answer the model is judged, or from which it is sampled."""
    examples = prepared.kept_out
    if recipe.evaluation.source is not None:
        data = recipe.data.model_copy(update={"format": "auto", "columns": {}})
        examples = read_examples(recipe.evaluation.source, data, limit=recipe.evaluation.rows)
    return tuple(each for each in examples if len(each.messages) > 1 and each.messages[-1].role == "assistant")


def write_split(run: RunDirectory, recipe: Recipe, prepared: Prepared) -> None:
    """Write into the run which rows are trained on and which are kept out, by their numbers among those that are used."""
    rule = recipe.data.validation
    split = {
        "rule": rule.model_dump(mode="json", exclude_none=True),
        "seed": recipe.training.seed,
        "data": open_source(recipe.data.source, recipe.data.split).fingerprint(),
        "training_rows": len(prepared.training),
        "validation_rows": len(prepared.validation),
        "cut": prepared.cut,
        "dropped": prepared.dropped,
        "faulty": prepared.faulty,
        "validation": list(prepared.chosen),
    }
    write_atomically(run.path / "split.json", json.dumps(split))


def learn_from(recipe: Recipe, plan: Plan, folder: Path, measured: dict[str, float]) -> None:
    """Keep what this run took beside what was predicted, for later predictions on this machine."""
    taken = outcome_of(
        plan,
        read_anatomy(folder),
        recipe.method.kind,
        measured["peak_gib"],
        measured["training_seconds"],
        measured.get("mean_watts"),
    )
    if taken is not None:
        with contextlib.suppress(TunewrightError):  # the run itself is complete
            record(taken)


def _append_samples(log: EventLog, step: int, answers: list[tuple[Example, str]]) -> None:
    for example, completion in answers[:SAMPLED_PROMPTS]:
        prompt, reference = example.messages[-2].content, example.messages[-1].content
        log.append(Sample(step=step, prompt=prompt, completion=completion, reference=reference))


def refuse(log: EventLog, error: TunewrightError) -> int:
    """Tell an expected failure; nothing more can be told when the disk is full."""
    with contextlib.suppress(OSError):
        log.append(Notice(level="error", title=error.title, message=error.message, remedy=error.remedy))
    print(error, file=sys.stderr)
    return outcome.REFUSED


def require_device(plan: Plan) -> None:
    """Refuse to go on when the plan wants a GPU that torch cannot use; raises TunewrightError."""
    import torch

    if plan.device == "cuda" and not torch.cuda.is_available():
        raise TunewrightError(
            "torch cannot use the GPU",
            f"The plan is for {plan.machine}, and torch {torch.__version__} finds no GPU that it can use.",
            "`tunewright doctor` shows why, and the command that fixes it.",
        )


def ran_out_of_memory(error: Exception) -> bool:
    """Tell whether `error` means that the GPU, or the machine, has no more memory to give."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def ran_out_of_disk(error: Exception, folder: Path) -> bool:
    """Tell whether `error` means a full disk; torch and safetensors say so in types and words of their own."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left" in str(error) or shutil.disk_usage(folder).free < FULL_DISK_BYTES


def end_with_parent() -> None:
    """Have the kernel send TERM when the supervisor dies, so that no trainer is left alone (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
