"""Tunewright beside the libraries as they come: 8 billion parameters, rank 16 on all projections, the same rows.

`python benchmarks/side_by_side.py [--gpus 0,1,2,3] [--only NAME] [--out rows.jsonl]`, with TORCHINDUCTOR_CACHE_DIR for
runs that find kernels there which earlier ones compiled.

Ours are runs as `tunewright train` starts them, with the plan that is picked for 2,000 steps, ended once enough steps
are timed. The rivals' are TRL's SFTTrainer as it is when only model, rows, adapter and batch are given, on transformers and
on Unsloth. Every case has a GPU to itself; cases on several GPUs run beside one another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import weights
from measure import chat_lengths

SHAPE = "llama-3.1-8b"
FIXED_TOKENS, FIXED_ROWS = 2048, 128
BATCH = {"chat": 32, "fixed": 16}
"""Rows of an optimizer step."""
RIVALS_ROWS = 8
"""Rows of a micro-batch in TRL's own configuration."""
PLANNED_STEPS = 2000
WARM_STEPS, TIMED_STEPS = 3, 6
RIVALS_WARM, RIVALS_TIMED = 3, 3
LIMIT_SECONDS = 170.0
SEED = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    who: str
    """`ours`, `trl` or `unsloth`."""
    method: str
    rows: str
    """`chat` or `fixed`."""
    backend: str | None = None
    """Of ours: the one that is asked for instead of the plan's own choice."""
    micro_batch: int | None = None
    """Of ours: the same for the rows of a micro-batch."""

    @property
    def name(self) -> str:
        rows = f"m{self.micro_batch}" if self.micro_batch else None
        return "-".join(filter(None, (self.who, self.method, self.rows, self.backend, rows)))


CASES = (
    Case("ours", "lora", "chat"),
    Case("trl", "lora", "chat"),
    Case("unsloth", "lora", "chat"),
    Case("ours", "lora", "fixed"),
    Case("ours", "full", "fixed"),
    Case("unsloth", "full", "fixed"),
    Case("ours", "qlora", "chat"),
    Case("unsloth", "qlora", "chat"),
    Case("unsloth", "lora", "fixed"),
    Case("ours", "lora", "chat", "unsloth"),
    *(Case("ours", "lora", "fixed", micro_batch=rows) for rows in (2, 4, 8)),
    *(Case("ours", "full", "fixed", micro_batch=rows) for rows in (2, 4)),
)


def main(arguments: list[str]) -> int:
    """Run the cases, print a table, and return 0 when all of them ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--only", help="the cases whose name holds one of these words, separated by commas")
    parser.add_argument("--budget", type=float, default=600.0, metavar="SECONDS", help="after this nothing is begun")
    parser.add_argument("--out", type=Path, default=Path("side_by_side.jsonl"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        case = Case(**json.loads(options.case))
        row = ours(case, options.gpus) if case.who == "ours" else rival(case)
        print("ROW " + json.dumps(row))
        return 0
    began = time.monotonic()
    shutil.copy(weights.STARTER / "chat_template.jinja", weights.make_model(SHAPE))
    words = options.only.split(",") if options.only else [""]
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in CASES:
        if any(word in case.name for word in words):
            waiting.put(case)
    rows: list[dict[str, Any]] = []

    def work(gpu: str) -> None:
        while time.monotonic() - began < options.budget:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                return
            row = {"case": case.name, **asdict(case), **guarded(case, gpu)}
            rows.append(row)
            with options.out.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

    workers = [threading.Thread(target=work, args=(gpu,)) for gpu in options.gpus.split(",")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"\n{table(rows)}\n{time.monotonic() - began:.0f} s in all")
    return 1 if any("failure" in row for row in rows) else 0


def guarded(case: Case, gpu: str) -> dict[str, Any]:
    """Return the figures of a case that runs in a process of its own, or how it failed."""
    command = [sys.executable, __file__, "--gpus", gpu, "--case", json.dumps(asdict(case))]
    environment = dict(os.environ) if case.who == "ours" else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    try:
        printed, _ = child.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        child.communicate()
        return {"failure": f"not ended after {LIMIT_SECONDS:.0f} s"}
    found = [line for line in printed.splitlines() if line.startswith("ROW ")]
    return (
        json.loads(found[-1].removeprefix("ROW "))
        if found
        else {"failure": f"ended with {child.returncode}", "tail": printed[-2500:]}
    )


def lengths_of(case: Case) -> list[int]:
    """Return the tokens of each row."""
    return chat_lengths() if case.rows == "chat" else [FIXED_TOKENS] * FIXED_ROWS


def rows_file(case: Case, folder: Path) -> Path:
    """Write rows of plain text that the starter's tokenizer makes so many tokens of, and return their file.

    Each word is one token; the last token of a row is the end that rendering adds.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(weights.STARTER / "tokenizer.json"))
    words = [word.replace("Ġ", " ") for word in tokenizer.get_vocab() if word[0] == "Ġ" and word[1:].isalpha()]
    words = sorted(word for word in words if len(tokenizer.encode(word).ids) == 1)
    drawn = numpy.random.default_rng(SEED)
    file = folder / "rows.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for length in lengths_of(case):
            text = "".join(words[index] for index in drawn.integers(0, len(words), length - 1))
            out.write(json.dumps({"text": text}) + "\n")
    return file


def recipe_of(case: Case, folder: Path) -> Any:
    """Return the recipe of a case, whose rows lie in `folder`."""
    from tunewright.recipes.model import (
        Base,
        Data,
        Evaluation,
        FullMethod,
        LoraMethod,
        QloraMethod,
        Recipe,
        Training,
        Validation,
    )

    methods: dict[str, Any] = {
        "lora": LoraMethod(kind="lora", rank=16, alpha=16),
        "qlora": QloraMethod(kind="qlora", rank=16, alpha=16),
        "full": FullMethod(kind="full"),
    }
    return Recipe(
        base=Base(model=str(weights.PLACE / "models" / SHAPE)),
        data=Data(
            source=str(rows_file(case, folder)), format="text", loss_on="all", max_length=FIXED_TOKENS,
            validation=Validation(kind="none"),
        ),
        method=methods[case.method],
        training=Training(
            learning_rate=1e-5, steps=PLANNED_STEPS, global_batch=BATCH[case.rows], optimizer="adamw_8bit"
        ),
        evaluation=Evaluation(),
    )  # fmt: skip


def ours(case: Case, gpu: str) -> dict[str, Any]:
    """Return the figures of a run that `tunewright train` starts, ended after the steps that are timed."""
    home = weights.PLACE / "homes" / case.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    os.environ["TUNEWRIGHT_HOME"] = str(home)
    from tunewright.recipes.registry import Registry  # noqa: F401  the registry is made while nothing is timed

    (home / "recipe.toml").write_text(recipe_of(case, home).to_toml(), encoding="utf-8")
    kernels = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", home / "cache" / "compiled"))
    kept = kernels.is_dir() and any(kernels.iterdir())
    launched = time.time()
    if case.micro_batch:
        launch_with(case, home, gpu)
    else:
        command = [
            sys.executable,
            "-m",
            "tunewright",
            "train",
            str(home / "recipe.toml"),
            "--gpus",
            f"{gpu},",
            "--json",
        ]
        subprocess.run(command + (["--backend", case.backend] if case.backend else []), check=True)
    (folder,) = (home / "runs").iterdir()
    from tunewright.engine.runs.directory import RunDirectory, is_live
    from tunewright.engine.runs.events import Measured, Step, follow

    run, steps, measured = RunDirectory(folder), list[Step](), dict[str, float]()
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.05):
        if isinstance(event, Measured):
            measured |= event.values
        if isinstance(event, Step):
            steps.append(event)
            if len(steps) == WARM_STEPS + TIMED_STEPS:
                end(run)
    plan, timed = run.plan(), steps[WARM_STEPS : WARM_STEPS + TIMED_STEPS]
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if len(timed) < TIMED_STEPS:
        return {"failure": json.dumps((run.result() or {}).get("error")), "tail": run.console_tail(40)[-2500:]}
    return {
        "backend_used": plan.backend,
        "compiled": plan.compiled,
        "kernels_kept": kept,
        "batching": plan.batching,
        "checkpointing": plan.gradient_checkpointing,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "useful_tokens_per_second": sum(each.tokens for each in timed) / sum(each.seconds for each in timed),
        "median_step_seconds": statistics.median(each.seconds for each in timed),
        "peak_gib": timed[-1].peak_gib,
        "mfu": timed[-1].mfu,
        "first_step_seconds": steps[0].time - launched,
        "losses": [each.loss for each in steps],
        "measured": measured,
        "predicted": asdict(plan.prediction) if plan.prediction else None,
    }


def launch_with(case: Case, home: Path, gpu: str) -> None:
    """Start a run whose plan is the machine's own but for the rows of a micro-batch."""
    from tunewright.engine.machine import inspect_machine
    from tunewright.engine.planner import plan_recipe
    from tunewright.engine.runs.launch import launch
    from tunewright.engine.several import read_wish

    recipe, machine, rows = recipe_of(case, home), inspect_machine(home), case.micro_batch or 1
    plan = plan_recipe(recipe, machine, wish=read_wish(f"{gpu},", machine))
    launch(recipe, replace(plan, micro_batch=rows, accumulation=BATCH[case.rows] // rows), case.name)


def end(run: Any) -> None:
    """End the run's processes where they stand: saving a whole model takes longer than what is measured."""
    import psutil

    processes = run.processes()
    identities = (processes.supervisor, processes.trainer) if processes else ()
    for identity in filter(None, identities):
        with contextlib.suppress(psutil.Error):
            for each in [psutil.Process(identity.pid), *psutil.Process(identity.pid).children(recursive=True)]:
                each.kill()


def rival(case: Case) -> dict[str, Any]:
    """Return the figures of the libraries' own defaults."""
    folder = weights.PLACE / "homes" / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    if case.who == "unsloth":
        import unsloth
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    place = weights.PLACE / "models" / SHAPE
    rows = Dataset.from_json(str(rows_file(case, folder)))
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": RIVALS_ROWS,
        "gradient_accumulation_steps": BATCH[case.rows] // RIVALS_ROWS, "max_steps": RIVALS_WARM + RIVALS_TIMED,
        "max_length": FIXED_TOKENS, "optim": "adamw_8bit", "learning_rate": 1e-5, "report_to": "none",
        "save_strategy": "no", "logging_steps": 1,
    }  # fmt: skip
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    options: dict[str, Any] = {}
    if case.who == "unsloth":
        model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
            str(place), max_seq_length=FIXED_TOKENS, load_in_4bit=case.method == "qlora",
            full_finetuning=case.method == "full", dtype=torch.bfloat16,
        )  # fmt: skip
        if case.method != "full":
            model = unsloth.FastLanguageModel.get_peft_model(
                model, r=16, lora_alpha=16, lora_dropout=0, target_modules=projections,
                use_gradient_checkpointing="unsloth",
            )  # fmt: skip
    else:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16, device_map={"": 0})
        options["peft_config"] = LoraConfig(r=16, lora_alpha=16, target_modules=projections, task_type="CAUSAL_LM")
        tokenizer = AutoTokenizer.from_pretrained(place)
    taken: list[tuple[int, float]] = []

    class Watch(TrainerCallback):
        useful, began = 0, 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.useful, self.began = 0, time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            taken.append((self.useful, time.perf_counter() - self.began))
            if len(taken) == 1:
                first.append(time.perf_counter() - started)

    watch, first = Watch(), list[float]()

    class Counting(SFTTrainer):
        """TRL's trainer, whose useful tokens are counted as its batches come."""

        def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
            mask = inputs.get("attention_mask")
            watch.useful += int(mask.sum()) if mask is not None and mask.dim() == 2 else inputs["input_ids"].numel()
            return super().training_step(model, inputs, *arguments, **more)

    torch.cuda.reset_peak_memory_stats()
    trainer = Counting(
        model=model, args=SFTConfig(**settings), train_dataset=rows, processing_class=tokenizer, callbacks=[watch], **options
    )  # fmt: skip
    trainer.train()
    timed = taken[RIVALS_WARM:]
    return {
        "useful_tokens_per_second": sum(tokens for tokens, _ in timed) / sum(seconds for _, seconds in timed),
        "median_step_seconds": statistics.median(seconds for _, seconds in timed),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "first_step_seconds": first[0],
        "checkpointing": trainer.args.gradient_checkpointing,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures side by side."""
    lines = [f"{'case':28}{'useful tokens/s':>16}{'step s':>9}{'peak GiB':>10}{'first step s':>14}"]
    for row in sorted(rows, key=lambda row: (row["rows"], row["method"], row["who"])):
        if "useful_tokens_per_second" in row:
            lines.append(
                f"{row['case']:28}{row['useful_tokens_per_second']:>16,.0f}{row['median_step_seconds']:>9.3f}"
                f"{row['peak_gib']:>10.1f}{row['first_step_seconds']:>14.1f}"
            )
        else:
            lines.append(f"{row['case']:28}{row['failure'][:90]:>16}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
