"""Measures one configuration on this machine's GPU with the trainer's own backends; prints one line of JSON.

`python benchmarks/measure.py '{"model": "llama-3.2-1b", "backend": "unsloth", "method": "lora", ...}'`

Weights are random, of the true shape, and loaded from disk like any model's; every row has exactly `sequence` tokens
with labels on all of them. Field meanings are those of `benchmarks/README.md`. Imports and loading overlap with other
processes' work; the steps themselves run under a lock, one process at a time on a GPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import shutil
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy
from cases import DEFAULTS, Case
from shapes import SHAPES
from weights import PLACE, make_model, make_quantised_model

GIB = 2**30
GPU = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
LOADED = 2
"""Models that may be on a GPU at once: one is measured while the next one loads and compiles."""
WARM_STEPS = 3
WARM_ROWS = 64
"""Rows of changing lengths that are seen before timing, so that kernels for each length are there."""
TIMED_SECONDS = 5.0
LEAST_TIMED, MOST_TIMED = 3, 8
RECORDED_STEPS = 1
RECORDED_EVENTS = 2_000_000
LARGEST_GROUPS = 28
"""Groups of allocations that a row's `composition` names one by one."""
CHAT_ROWS, CHAT_MEDIAN, CHAT_SIGMA, CHAT_LEAST, CHAT_MOST = 320, 250, 0.9, 16, 2048
OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw": "paged_adamw_32bit"}
"""What Hugging Face's trainer calls those that it does not call by our names."""
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_OFFLOAD_PARAMS": "false", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}  # fmt: skip


class Stop(Exception):
    """Ends the training loop once everything is measured."""


def hold(name: str, places: int, needed: int = 1) -> contextlib.ExitStack:
    """Return `needed` of the `places` that the processes of this GPU share under this name, held until closed.

    Either one place is needed or all of them.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    held = contextlib.ExitStack()
    files = [held.enter_context((PLACE / f"{name}-{GPU}-{place}.lock").open("w")) for place in range(places)]
    if needed == places:
        for file in files:  # all in the same order, so that nobody waits for one who waits
            fcntl.flock(file, fcntl.LOCK_EX)
        return held
    while True:
        for file in files:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return held
        time.sleep(0.02)


def recipe_and_plan(case: Case, folder: Path) -> tuple[Any, Any]:
    """Return the recipe and the plan that mean `case` to the trainer's backends."""
    from tunewright.engine.plan import Plan
    from tunewright.recipes.model import Base, Data, Recipe, Training

    method: dict[str, Any] = {"kind": case["method"]}
    if case["method"] != "full":
        method |= {"rank": case["rank"], "alpha": 32.0, "dropout": 0.0, "targets": case["targets"]}
    steps = warm_steps(case) + (case.get("steps") or MOST_TIMED) + RECORDED_STEPS
    recipe = Recipe(
        base=Base(model=str(folder)),
        data=Data(source="random", max_length=longest(case), packing=case["batching"] == "packed"),
        method=method,  # pyright: ignore[reportArgumentType]
        training=Training(global_batch=case["micro_batch"], learning_rate=1e-5, steps=steps),
    )
    plan = Plan(
        machine="", backend=case["backend"], device="cuda", precision="bf16", micro_batch=case["micro_batch"],
        accumulation=1, gradient_checkpointing=checkpointing(case), batching="padded", attention=case["attention"],
        threads=4, total_steps=steps, training_rows=1, validation_rows=0, evaluate_every_steps=99,
        checkpoint_every_steps=99, sample_every_steps=99, merge=False, recompute_every=case["recompute_every"],
        liger=case["liger"],
    )  # fmt: skip
    return recipe, plan


def checkpointing(case: Case) -> Any:
    """Return how layers are recomputed; a backend does it in its own way unless the case names one."""
    if isinstance(case["checkpointing"], str):
        return case["checkpointing"]
    return "off" if not case["checkpointing"] else "offloaded" if case["backend"] == "unsloth" else "on"


def longest(case: Case) -> int:
    """Return the tokens of the longest row that the case may have."""
    return CHAT_MOST if case["lengths"] else case["sequence"]


def warm_steps(case: Case) -> int:
    """Return the steps before any is timed."""
    return max(WARM_STEPS, WARM_ROWS // case["micro_batch"]) if case["lengths"] else WARM_STEPS


def chat_lengths() -> list[int]:
    """Return 320 lengths as chats have them: log-normal, median 250 tokens, sigma 0.9, cut to 16..2,048."""
    drawn = numpy.random.default_rng(7).lognormal(numpy.log(CHAT_MEDIAN), CHAT_SIGMA, CHAT_ROWS)
    return [int(min(CHAT_MOST, max(CHAT_LEAST, each))) for each in drawn]


def arguments(case: Case, recipe: Any, plan: Any, folder: Path) -> dict[str, Any]:
    """Return the arguments of TRL's trainer: those of a run, but for what the case asks of the libraries.

    Rows are cut, packed and laid out by TRL here, and not by us.
    """
    from tunewright.engine.training.arguments import training_arguments

    values = training_arguments(recipe, plan, folder)
    values |= {"max_length": recipe.data.max_length, "packing": recipe.data.packing}
    values |= {"padding_free": plan.batching == "padding-free", "dataset_kwargs": {"skip_prepare_dataset": False}}
    values["optim"] = OPTIMIZERS.get(case["optimizer"], case["optimizer"])
    values["use_liger_kernel"] = case["liger"]
    values["dataset_num_proc"] = None
    match case["batching"]:
        case "default":
            del values["padding_free"]  # Unsloth then decides, and takes padding-free on most cards
        case "padding-free":
            values["padding_free"] = True
        case _:
            pass
    return values


def load(case: Case, backend: Any, recipe: Any, plan: Any, folder: Path) -> Any:
    """Return the model, loaded as a run loads it."""
    from tunewright.engine.anatomy import parse_anatomy

    if case["quantised"]:  # the product refuses such a checkpoint; here it stands for weights quantised while loading
        plain = parse_anatomy(SHAPES[case["model"]], case["model"])
        for module in {backend, sys.modules["tunewright.engine.training.transformers"]}:
            module.read_anatomy = lambda folder: plain
    return backend.load_model(recipe, plan, folder)


def used_gib(torch: Any) -> float:
    """Return what all processes hold of the GPU."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


def measure(case: Case, backend: Any, folder: Path) -> dict[str, Any]:
    """Return the measured figures of `case`."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    recipe, plan = recipe_and_plan(case, folder)
    row: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    set_seed(0)
    started = time.perf_counter()
    row["context_before_gib"] = used_gib(torch)
    model = load(case, backend, recipe, plan, folder)
    torch.cuda.synchronize()
    row["load_seconds"] = time.perf_counter() - started
    generator = numpy.random.default_rng(0)
    lengths = chat_lengths() if case["lengths"] == "chat" else [case["sequence"]] * (case["micro_batch"] * 4)
    tokens = [generator.integers(0, 4000, length).tolist() for length in lengths]
    warm = warm_steps(case)
    marks: dict[str, float] = {}

    def mark(moment: str) -> None:
        marks[f"peak_{moment}_gib"] = torch.cuda.max_memory_allocated() / GIB
        marks[f"after_{moment}_gib"] = torch.cuda.memory_allocated() / GIB

    class Trainer(SFTTrainer):
        def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
            watch.shape = {key: tuple(value.shape) for key, value in inputs.items() if hasattr(value, "shape")}
            mask = inputs.get("attention_mask")
            watch.useful += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
            loss = super().compute_loss(model, inputs, *rest, **options)
            if watch.recording:
                mark("forward")
            return loss

    class Watch(TrainerCallback):
        """Times steps, then records one of them."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.recording = False
            self.shape: dict[str, Any] = {}
            self.useful = 0
            self.tokens: list[int] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:  # the first step compiles, and may do so beside others
                self.lock = hold("measure", 1)
            torch.cuda.synchronize()
            self.useful = 0
            self.began = time.perf_counter()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.recording:
                mark("backward")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            taken = time.perf_counter() - self.began
            if self.recording:
                mark("step")
                row["composition"] = composition(torch, self.base)
                raise Stop
            self.seconds.append(taken)
            self.tokens.append(self.useful)
            if not self.is_timed():
                return
            row["peak_allocated_gib"] = torch.cuda.max_memory_allocated() / GIB
            row["peak_reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
            row["peak_process_gib"] = used_gib(torch)
            row["retries"] = torch.cuda.memory_stats().get("num_alloc_retries", 0)
            if not case.get("composition", True):
                raise Stop
            torch.cuda.memory._record_memory_history(
                enabled="all", context="alloc", stacks="python", max_entries=RECORDED_EVENTS
            )
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
            marks["before_step_gib"] = self.base / GIB
            self.recording = True

        def is_timed(self) -> bool:
            """Tell whether enough steps were timed."""
            timed = self.seconds[warm:]
            if case.get("steps"):
                return len(timed) >= case["steps"]
            return len(timed) >= MOST_TIMED or (len(timed) >= LEAST_TIMED and sum(timed) > TIMED_SECONDS)

    class Thin(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if case["recompute_every"] > 1:
                own = sys.modules["tunewright.engine.training.transformers"]
                own.thin_checkpointing(model, case["recompute_every"])

    watch = Watch()
    trainer = Trainer(
        model=model,
        args=SFTConfig(**arguments(case, recipe, plan, PLACE / f"out-{os.getpid()}")),
        train_dataset=Dataset.from_dict({"input_ids": tokens, "labels": tokens}),
        processing_class=AutoTokenizer.from_pretrained(folder, local_files_only=True),
        callbacks=[Thin(), watch],
    )
    trained = [each for each in model.parameters() if each.requires_grad]
    if case["adapters"] == "fp32":
        for parameter in trained:
            parameter.data = parameter.data.float()
    gc.collect()
    row["trainable"] = sum(each.numel() for each in trained)
    row["trained_dtype"] = ", ".join(sorted({str(each.dtype) for each in trained}))
    row["start_allocated_gib"] = torch.cuda.memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    try:
        trainer.train()
    except Stop:
        pass
    except torch.OutOfMemoryError as error:
        return row | {"out_of_memory": str(error)[:300], "peak_allocated_gib": torch.cuda.max_memory_allocated() / GIB}
    timed = watch.seconds[warm:]
    row["step_seconds"] = statistics.median(timed)
    per_second = sum(watch.tokens[warm:]) / sum(timed) if case["lengths"] else watch.tokens[-1] / row["step_seconds"]
    row["tokens_per_second"] = per_second
    row["all_step_seconds"] = [round(each, 4) for each in watch.seconds]
    row["batch_shape"] = str(watch.shape)
    return row | marks


def composition(torch: Any, base: int) -> dict[str, Any]:
    """Return what was allocated at the peak of the recorded step: bytes by size and by the line that asked for them."""
    snapshot = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history(enabled=None)
    trace = [each for each in snapshot["device_traces"][0] if each["action"] in ("alloc", "free_requested")]
    now = most = base
    peak_at = -1
    for position, each in enumerate(trace):
        now += each["size"] if each["action"] == "alloc" else -each["size"]
        if now > most:
            most, peak_at = now, position
    live: dict[int, tuple[int, str]] = {}
    earlier = base
    for each in trace[: peak_at + 1]:
        if each["action"] == "alloc":
            live[each["addr"]] = (each["size"], line_of(each["frames"]))
        elif live.pop(each["addr"], None) is None:
            earlier -= each["size"]
    groups: dict[tuple[int, str], int] = {}
    for group in live.values():
        groups[group] = groups.get(group, 0) + 1
    descending = sorted(groups.items(), key=lambda item: -item[0][0] * item[1])
    return {
        "peak_gib": most / GIB,
        "standing_gib": earlier / GIB,
        "blocks": [[size, count, line] for (size, line), count in descending[:LARGEST_GROUPS]],
        "rest_gib": sum(size * count for (size, _), count in descending[LARGEST_GROUPS:]) / GIB,
    }


def line_of(frames: list[dict[str, Any]]) -> str:
    """Return the three innermost lines outside torch's own plumbing."""
    found: list[str] = []
    for frame in frames:
        name = frame["filename"]
        plumbing = "/torch/" in name and "checkpoint" not in name and "optim" not in name
        if plumbing or name.startswith("??") or name == "":
            continue
        found.append(f"{Path(name).name}:{frame['line']}:{frame['name']}"[:70])
    return " < ".join(found[:3])


def main() -> None:
    """Measure the case of the command line, and print its row whatever happens."""
    case = DEFAULTS | json.loads(sys.argv[1])
    started = time.perf_counter()
    row: dict[str, Any] = {}
    if case["parallelism"] == "fsdp2":
        os.environ |= FSDP2
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", f"/tmp/unsloth-{os.getpid()}")
    stdout = os.dup(1)
    os.dup2(2, 1)  # libraries greet
    try:
        backend = importlib.import_module(f"tunewright.engine.training.{case['backend']}")
        import trl  # noqa: F401
        from trl import SFTTrainer  # noqa: F401

        row["import_seconds"] = time.perf_counter() - started
        folder = make_quantised_model(case["model"]) if case["quantised"] else make_model(case["model"], case["layers"])
        with hold("load", LOADED, LOADED if case.get("alone") else 1):
            row |= measure(case, backend, folder)
    except Exception as error:  # noqa: BLE001 - a row that failed is a row
        row |= {"error": f"{type(error).__name__}: {error}"[:600], "traceback": traceback.format_exc()[-2500:]}
    measured = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    asked = {key: value for key, value in case.items() if key not in ("composition", "alone")}
    with os.fdopen(stdout, "w") as out:
        print(json.dumps(asked | measured), file=out, flush=True)
    shutil.rmtree(PLACE / f"out-{os.getpid()}", ignore_errors=True)
    os._exit(0)  # torch's and Unsloth's own shutdown takes seconds


if __name__ == "__main__":
    main()
