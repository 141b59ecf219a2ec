"""The trainer: the child process that loads, judges, trains, saves and exports. Read it from `main` downwards.

`python -m tunewright.engine.training.trainer RUN_DIRECTORY [--rung N] [--checkpoint FOLDER]`
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.files import replaced_whole, write_atomically
from ...recipes.model import LoraMethod, QloraMethod, Recipe
from .. import preflight
from ..anatomy import read_anatomy
from ..calibration import outcome_of, record
from ..data.cache import prepare_once
from ..data.examples import Example
from ..data.preparing import Prepared, read_examples
from ..data.reading import open_source
from ..data.rendering import Renderer
from ..plan import Plan
from ..runs import outcome
from ..runs.checkpoint import step_of, sweep
from ..runs.console import print_without_fail
from ..runs.directory import InsistentLog, RunDirectory
from ..runs.events import Eval, EventLog, Measured, Notice, Phase, Sample
from ..runs.ladder import ladder
from ..runs.pinned import pinned_recipe
from ..runs.shortage import Shortage, leave_shortage
from ..setting import Tuning
from . import parallel
from .devices import device_samples
from .importing import Imports, read_ahead
from .memory import free_cached_memory, ran_out_of_memory, shortage_text
from .parallel import end_with_parent
from .stages import TimedLog, loading_told

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
    end_with_parent(signal.SIGTERM if parallel.is_alone() else parallel.STOP_SIGNAL)
    print_without_fail()
    run = RunDirectory(options.run)
    log = TimedLog(parallel.log_file(run))
    return parallel.take_part(run, lambda: guard(run, log, lambda: train(run, log, options.rung, options.checkpoint)))


def guard(run: RunDirectory, log: EventLog, work: Callable[[], int]) -> int:
    """Return how `work` on `run` ended; an expected failure is told as an error notice, and any other raised."""
    try:
        return work()
    except TunewrightError as error:
        return refuse(run, error)
    except Exception as error:  # whatever it is, memory and disk are asked about first
        if ran_out_of_memory(error):
            leave_shortage(run, Shortage(shortage_text(error)))
            return outcome.OUT_OF_MEMORY
        if ran_out_of_disk(error, run.path):
            error = OSError(errno.ENOSPC, "No space left on device", str(run.path))
        if isinstance(error, OSError):
            return refuse(run, explain_os_error(error, Path(error.filename or run.path), "Writing"))
        raise


def train(run: RunDirectory, log: TimedLog, rung: int, checkpoint: Path | None) -> int:
    """Take the run from where it stands to its end, in as much memory as this rung of the ladder takes."""
    started = time.perf_counter()
    recipe, plan = pinned_recipe(run), ladder(run.plan())[rung].plan
    folder = preflight.require_ready(recipe)

    read_ahead(folder)
    imports = Imports(plan)
    imports.start(recipe)
    log.append(Phase(name="tokenising", detail=recipe.data.source, total=plan.training_rows + plan.validation_rows))
    renderer = Renderer(folder, recipe.data)
    kept = prepare_once(recipe, folder, log.progress)
    prepared = kept.prepared
    if kept.from_cache:
        rows = len(prepared.training) + len(prepared.validation)
        log.append(Phase(name="tokenising", detail=f"{recipe.data.source}, from the cache", done=rows, total=rows))
    if parallel.is_first():
        write_split(run, recipe, prepared)
    judged = held_out(recipe, prepared)

    log.append(Phase(name="importing", detail=f"torch and {plan.backend}"))
    with device_samples(log, plan) as power:
        imports.wait()
        require_device(plan)
        parallel.join(plan)

        from ..results.evaluate import answer, judge
        from .continuity import ContinuityProof, losses_after
        from .guard import Guard, require_trainable
        from .telemetry import Card, Telemetry, fixed_prompts, peak_memory_gib, reset_peak_memory
        from .utilisation import matrix_tflops
        from .validation import Keeping, Validation, take_up

        card = Card(read_anatomy(folder), Tuning.of(recipe.method), matrix_tflops(plan))
        quantising = isinstance(recipe.method, QloraMethod)
        log.append(
            Phase(name="quantising" if quantising else "loading", detail=f"{recipe.base.model} with {plan.backend}")
        )
        with loading_told(log):
            model, tokenizer = load(recipe, plan, folder)
        require_trainable(model)

        def generate(prompts: list[str]) -> list[str]:
            return answer(
                model, tokenizer, prompts, recipe.evaluation.max_new_tokens, renderer.end_tokens, log.progress
            )

        def judge_at(step: int) -> None:
            share, seconds, samples = judge(generate, renderer, judged)
            log.append(Eval(step=step, exact_match=share, rows=len(judged), seconds=seconds))
            _append_samples(log, step, samples)

        if recipe.evaluation.source and checkpoint is None:
            log.append(Phase(name="judging before", total=len(judged)))
            judge_at(0)

        prompts = fixed_prompts(recipe, renderer, judged)
        telemetry = Telemetry(run, log, plan, prompts, generate, card)
        telemetry.listen_for_stop()
        validation = Validation(run, log, recipe)
        trainer = build_trainer(run, recipe, plan, model, tokenizer, prepared, telemetry)
        trainer.callback_handler.callbacks.insert(0, validation)  # it asks for saves, which the telemetry times
        trainer.add_callback(Keeping(run, validation))
        if checkpoint is not None and parallel.is_first():
            trainer.add_callback(ContinuityProof(log, losses_after(run, step_of(checkpoint))))
        trainer.add_callback(Guard(log, recipe, plan, prepared.training))
        log.append(Phase(name="compiling" if plan.device == "cuda" or plan.compiled else "training"))
        reset_peak_memory(plan.device)
        power.reset()
        began = time.perf_counter()
        if checkpoint is not None and validation.is_over(
            checkpoint, plan.total_steps
        ):  # memory ran out after the last step
            take_up(trainer, checkpoint)
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        telemetry.training_seconds = time.perf_counter() - began
        drawn = power.watts
        if telemetry.stop_asked and not validation.has_finished(trainer.state):
            return outcome.STOPPED

        log.append(Phase(name="saving"))
        ending = validation.conclude(trainer)
        let_go(trainer)
        save_tuned(run, recipe, model, tokenizer)
        log.append(ending)
        if recipe.evaluation.source:
            log.append(Phase(name="judging after", total=len(judged)))
            judge_at(ending.step)
        if plan.merge and isinstance(recipe.method, LoraMethod) and parallel.is_first():
            from ..results.export import merge

            log.append(Phase(name="exporting", detail="merged model"))
            merge(run, recipe, replace(plan, parallelism="one"), folder)
    measured = {
        "trainable_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "peak_gib": telemetry.peak_gib or peak_memory_gib(plan.device),
        "total_seconds": time.perf_counter() - started,
    }
    if telemetry.tokens:  # this process has trained
        measured["training_seconds"] = telemetry.training_seconds
        measured["tokens_per_second"] = telemetry.tokens / telemetry.training_seconds
    if drawn is not None:
        measured["mean_watts"] = drawn
    log.append(Measured(values=measured))
    went_as_planned = checkpoint is None and rung == 0 and ending.step == plan.total_steps
    if went_as_planned and parallel.is_alone():
        learn_from(recipe, plan, folder, measured)
    log.append(Phase(name="done"))
    return outcome.FINISHED


def load(recipe: Recipe, plan: Plan, folder: Path) -> tuple[Any, Any]:
    """Return the model that the plan's backend loads, with the recipe's adapters, and its tokenizer."""
    backend = importlib.import_module(f".{plan.backend}", __package__)  # Unsloth has to come before trl
    from transformers import set_seed

    from .randomness import compute_alike
    from .tokenizer import load_tokenizer

    require_device(plan)
    compute_alike(recipe, plan)
    set_seed(recipe.training.seed)  # trl does not seed the adapters
    model = backend.load_model(recipe, plan, folder)
    return model, load_tokenizer(folder)


def build_trainer(
    run: RunDirectory, recipe: Recipe, plan: Plan, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return the objective's trainer over the rows that our own rendering made; it tells `telemetry` all it does."""
    from transformers import PrinterCallback

    from .objectives import trainer_of

    if parallel.is_first():
        sweep(run.checkpoints)
    parallel.wait()
    writing = run.checkpoints / f".writing-{os.getpid() if parallel.is_alone() else os.getppid()}"
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    quantised = isinstance(recipe.method, QloraMethod)
    exact = {name: each.detach().clone() for name, each in trained.items()} if quantised else {}
    trainer = trainer_of(recipe, plan, writing, model, tokenizer, prepared, telemetry)
    telemetry.trainer = trainer
    if plan.backend == "transformers":  # Unsloth turns modules one by one
        keep_mode(trainer.model)
    trainer.remove_callback(PrinterCallback)  # the events tell every step, and the console is for what nobody expected
    trainer.mean_over_tokens = recipe.training.objective in ("sft", "cpt")
    for name, values in exact.items():  # TRL rounds what is trained beside 4-bit weights to bf16
        trained[name].data = values
    if not parallel.is_alone():
        from .parallel.split_training import share_out

        share_out(trainer, plan)
    return trainer


def keep_mode(model: Any) -> None:
    """Have `model` turned to training or evaluating only when it is in the other mode.

    transformers turns all of its modules, thousands with adapters, before every micro-batch, while the GPU waits.
    """
    turn = model.train
    turn()  # all of them: adapters come in another mode than the model that they were put into

    def train(mode: bool = True) -> Any:
        return model if model.training == mode else turn(mode)

    model.train = train


def let_go(trainer: Any) -> None:
    """Give the memory back that only training takes: what is left to do, saving, judging and merging, needs its own."""
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
    trainer.accelerator.free_memory()
    trainer.model.zero_grad(set_to_none=True)
    free_cached_memory()


def save_tuned(run: RunDirectory, recipe: Recipe, model: Any, tokenizer: Any) -> None:
    """Write the adapter, or the whole model after full fine-tuning, in one step."""
    weights = parallel.whole_weights(model)
    if not parallel.is_first():
        return
    with replaced_whole(run.adapter if isinstance(recipe.method, LoraMethod) else run.model) as aside:
        model.save_pretrained(aside, **weights)
        tokenizer.save_pretrained(aside)


def held_out(recipe: Recipe, prepared: Prepared) -> tuple[Example, ...]:
    """Return the examples on whose last answer the model is judged, or from which it is sampled."""
    examples = prepared.kept_out
    if recipe.evaluation.source is not None:
        data = recipe.data.model_copy(update={"format": "auto", "columns": {}})
        examples = read_examples(recipe.evaluation.source, data, limit=recipe.evaluation.rows)
    answered = (each for each in examples if len(each.messages) > 1 and each.messages[-1].role == "assistant")
    return tuple(each for each in answered if each.label is not False)  # what is marked as bad is no reference


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
        "divided": prepared.divided,
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


def refuse(run: RunDirectory, error: TunewrightError) -> int:
    """Tell an expected failure, on a full disk in the space that was held back for it."""
    if parallel.is_first_to_tell(run):
        with contextlib.suppress(OSError):
            InsistentLog(run).append(
                Notice(level="error", title=error.title, message=error.message, remedy=error.remedy)
            )
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
    if plan.device == "cuda" and plan.precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        raise TunewrightError(
            "No bfloat16 on this card",
            f"The plan computes in bfloat16, which {torch.cuda.get_device_name()} does not have.",
            "Plan anew on this machine: `tunewright train` takes float16 here.",
        )


def ran_out_of_disk(error: Exception, folder: Path) -> bool:
    """Tell whether `error` means a full disk; torch and safetensors say so in types and words of their own."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left" in str(error) or shutil.disk_usage(folder).free < FULL_DISK_BYTES


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
