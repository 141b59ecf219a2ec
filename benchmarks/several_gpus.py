"""Several GPUs side by side: DDP LoRA at 8 billion parameters, and split weights (FSDP2) at 70 billion.

`python benchmarks/several_gpus.py [--gpus 4] [--budget 480] [--out rows.jsonl] [--only 8b|70b]`

Every case is a run as `tunewright train` starts it, of rows of 2,048 tokens, planned for 2,000 steps and ended once
enough of them are timed, in a process with a time limit of its own. A row of figures is written as soon as its case
ends; what is left of the budget decides which cases are still begun.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import weights
from shapes import SHAPES
from side_by_side import end

ROW_TOKENS, ROWS = 2048, 640
PLANNED_STEPS = 2000
WARM_STEPS = 2
WRITERS = 8
SMALLER_CARDS_GIB = (110.0, 90.0, 75.0, 60.0, 46.0, 32.0)
"""Of how much memory cards are taken to be, until the plan splits weights that would fit them whole."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    shape: str
    method: str
    gpus: int
    steps: int
    batch: int
    limit_seconds: float
    split: bool = False
    """Whether the weights are to be split among the GPUs, though they may fit each."""

    @property
    def name(self) -> str:
        return f"{self.shape} {self.method} × {self.gpus}"


def cases(gpus: int, only: str | None) -> list[Case]:
    """Return the runs on up to `gpus` GPUs, what matters most first."""
    counts = [count for count in (1, 2, 4, 8) if count <= gpus]
    found = [Case("llama-3.1-8b", "lora", count, 8, 32, 120) for count in counts]
    for count in reversed(counts[1:]):
        found += [Case("llama-3.1-70b", method, count, 4, 8, 130, split=True) for method in ("qlora", "lora")]
    return [each for each in found if only is None or each.shape.endswith(only)]


def main(arguments: list[str]) -> int:
    """Run the cases, print a table, and return 0 when all of them ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--budget", type=float, default=480.0, metavar="SECONDS", help="after this nothing is begun")
    parser.add_argument("--out", type=Path, default=Path("several_gpus.jsonl"))
    parser.add_argument("--only", choices=("8b", "70b"))
    parser.add_argument("--layers", type=int, help="make the large model shallower")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        print("ROW " + json.dumps(run_case(Case(**json.loads(options.case)), options.layers)))
        return 0
    began = time.monotonic()
    wanted = cases(options.gpus, options.only)
    large = None
    if any("70b" in each.shape for each in wanted):  # written while the small model trains
        place, options.layers = room_for("llama-3.1-70b", options.layers)
        os.environ["LARGE_PLACE"] = str(place)
        print(f"{options.layers or 80} layers of the large model in {place}", flush=True)
        large = multiprocessing.Process(target=make_large, args=("llama-3.1-70b", options.layers))
        large.start()
    if any("8b" in each.shape for each in wanted):
        weights.make_model("llama-3.1-8b")
    rows: list[dict[str, Any]] = []
    for case in wanted:
        if "70b" in case.shape and large is not None:
            large.join()
            large = None
        left = options.budget - (time.monotonic() - began)
        if left < 40:
            row: dict[str, Any] = {"case": case.name, "failure": "no time was left to begin"}
        else:
            row = guarded(case, options.layers, min(case.limit_seconds, left))
        rows.append(row)
        with options.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    print(f"\n{table(rows)}\n{time.monotonic() - began:.0f} s in all")
    return 1 if any(row.get("failure") for row in rows) else 0


def guarded(case: Case, layers: int | None, limit_seconds: float) -> dict[str, Any]:
    """Return the figures of a case that runs in a process of its own, or how it failed."""
    fields = {name: getattr(case, name) for name in Case.__slots__}
    command = [sys.executable, __file__, "--case", json.dumps(fields)] + (["--layers", str(layers)] if layers else [])
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        printed, _ = started.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        stop_all(case)
        started.kill()
        printed, _ = started.communicate()
        return {
            "case": case.name,
            "failure": f"not ended after {limit_seconds:.0f} s",
            "tail": tail_of(case) or printed[-1500:],
        }
    found = [line for line in printed.splitlines() if line.startswith("ROW ")]
    if found:
        return json.loads(found[-1].removeprefix("ROW "))
    return {"case": case.name, "failure": f"ended with {started.returncode}", "tail": printed[-3000:]}


def home_of(case: Case) -> Path:
    return weights.PLACE / "homes" / case.name.replace(" ", "-")


def run_case(case: Case, layers: int | None) -> dict[str, Any]:
    """Train one case to its end and return its figures."""
    home = home_of(case)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    os.environ["TUNEWRIGHT_HOME"] = str(home)
    from tunewright.engine.machine import inspect_machine
    from tunewright.engine.planner import plan_recipe
    from tunewright.engine.runs.directory import is_live
    from tunewright.engine.runs.events import Gpu, Step, follow
    from tunewright.engine.runs.launch import launch
    from tunewright.engine.runs.supervise import read_history
    from tunewright.foundation.errors import TunewrightError
    from tunewright.recipes.model import Base, Data, LoraMethod, QloraMethod, Recipe, Training, Validation

    folder = model_folder(case.shape, layers if "70b" in case.shape else None)
    method = QloraMethod(kind="qlora") if case.method == "qlora" else LoraMethod(kind="lora")
    recipe = Recipe(
        base=Base(model=str(folder)),
        data=Data(
            source=str(rows_file(home)), format="messages", loss_on="all", max_length=ROW_TOKENS,
            validation=Validation(kind="none"),
        ),
        method=method,
        training=Training(
            learning_rate=1e-4, steps=PLANNED_STEPS, epochs=None, global_batch=case.batch, optimizer="adamw_8bit"
        ),
    )  # fmt: skip
    machine = inspect_machine(home)
    plan = plan_recipe(recipe, machine, backend="transformers", wish=case.gpus)
    for gib in SMALLER_CARDS_GIB if case.split else ():
        if plan.parallelism == "fsdp2":
            break
        small = tuple(replace(gpu, memory_total_gib=gib, memory_free_gib=gib) for gpu in machine.gpus)
        try:
            plan = plan_recipe(recipe, replace(machine, gpus=small), backend="transformers", wish=case.gpus)
        except TunewrightError:
            break
    launched = time.time()
    run = launch(recipe, plan, case.name)
    held: dict[int, float] = {}
    steps: list[Step] = []
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.1):
        if isinstance(event, Gpu):
            held[event.index] = max(held.get(event.index, 0.0), event.memory_used_gib)
        elif isinstance(event, Step):
            steps.append(event)
            if len(steps) == case.steps:
                end(run)
    history = read_history(run)
    timed = steps[WARM_STEPS : case.steps]
    row: dict[str, Any] = {
        "case": case.name,
        "shape": case.shape,
        "layers": layers if "70b" in case.shape else None,
        "method": case.method,
        "gpus": plan.gpus,
        "parallelism": plan.parallelism,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "checkpointing": plan.gradient_checkpointing,
        "compiled": plan.compiled,
        "attention": plan.attention,
        "steps": len(steps),
        "first_step_seconds": steps[0].time - launched if steps else None,
        "peak_gib": max((each.peak_gib for each in steps), default=None),
        "held_gib": {str(index): round(gib, 2) for index, gib in sorted(held.items())},
        "predicted_peak_gib": plan.prediction.peak_gib if plan.prediction else None,
        "predicted_step_seconds": plan.prediction.step_seconds if plan.prediction else None,
        "losses": [round(each.loss, 5) for each in steps],
        "measured": history.measured,
    }
    if timed:
        seconds = statistics.median(each.seconds for each in timed)
        row |= {
            "step_seconds": seconds,
            "tokens_per_second": statistics.median(each.tokens / each.seconds for each in timed),
        }
    if len(steps) < case.steps:
        error = (run.result() or {}).get("error")
        row |= {"failure": json.dumps(error), "tail": run.console_tail(40)[-4000:]}
    shutil.rmtree(run.exports, ignore_errors=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return row


def rows_file(home: Path) -> Path:
    """Write rows that are longer than what is trained of each, and return their file."""
    file = home / "rows.jsonl"
    words = " ".join(f"order {number} mugs" for number in range(2200))
    with file.open("w", encoding="utf-8") as out:
        for number in range(ROWS):
            turns = [
                {"role": "user", "content": f"Row {number}."},
                {"role": "assistant", "content": f"{number} {words}"},
            ]
            out.write(json.dumps({"messages": turns}) + "\n")
    return file


def model_folder(shape: str, layers: int | None) -> Path:
    """Return where the model of this shape is, with the chat template that its tokenizer goes with."""
    folder = folder_of(shape, layers)
    shutil.copy(weights.STARTER / "chat_template.jinja", folder)
    return folder


def folder_of(name: str, layers: int | None) -> Path:
    """Return the folder of a model; large ones may have a place of their own."""
    place = Path(os.environ.get("LARGE_PLACE", weights.PLACE)) if "70b" in name else weights.PLACE
    return place / "models" / (name if layers is None else f"{name}-{layers}")


def room_for(name: str, layers: int | None) -> tuple[Path, int | None]:
    """Return where a large model is or has room, in memory if possible, and with how many layers where it has not all."""
    places = [weights.PLACE, Path("/tmp/tunewright"), Path.cwd() / "large"]
    for place in places:
        if (place / "models" / (name if layers is None else f"{name}-{layers}") / "model.safetensors").exists():
            return place, layers
        place.mkdir(parents=True, exist_ok=True)
    config = SHAPES[name]
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * (hidden // config["num_attention_heads"])
    layer = 2 * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * ffn)
    ends = 4 * hidden * config["vocab_size"]
    wanted = layers or config["num_hidden_layers"]
    spare = 24 * 2**30  # what the small model, runs and processes need of the same place
    free = {place: shutil.disk_usage(place).free - spare - ends for place in places}
    for place in places:
        if free[place] > wanted * layer:
            return place, layers
    roomiest = max(places, key=lambda each: free[each])
    return roomiest, max(4, int(free[roomiest] // layer))


def make_large(name: str, layers: int | None) -> None:
    """Write random bf16 weights of a large shape with several processes at once; once made they are kept."""
    config = SHAPES[name] | ({"num_hidden_layers": layers} if layers else {})
    folder = folder_of(name, layers)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    if file.exists():
        return
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    sizes: list[int] = []
    for key, shape in weights._parameters(config):
        start = sum(sizes)
        sizes.append(2 * math.prod(shape))
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, start + sizes[-1]]}
    total = sum(sizes)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    writing = folder / "writing"
    with writing.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        begin = out.tell()
        out.truncate(begin + total)
    part = -(-total // WRITERS // 2**21) * 2**21
    parts = [(str(writing), begin + start, min(part, total - start)) for start in range(0, total, part)]
    writers = [multiprocessing.Process(target=write_part, args=each) for each in parts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for token_file in weights.STARTER.glob("*token*"):
        shutil.copy(token_file, folder)
    (folder / "config.json").write_text(json.dumps(config))
    writing.rename(file)


def write_part(path: str, start: int, size: int) -> None:
    """Fill a part of a file with small random bf16 numbers."""
    import numpy

    content = weights._normal_bf16(numpy.random.default_rng(start))
    with open(path, "r+b") as file:
        file.seek(start)
        while size:
            size -= file.write(memoryview(content)[:size])


def stop_all(case: Case) -> None:
    """End what a case that took too long left running."""
    from tunewright.engine.runs.directory import RunDirectory

    for folder in home_of(case).glob("runs/*"):
        end(RunDirectory(folder))


def tail_of(case: Case) -> str:
    """Return the end of what the case's trainer printed."""
    return "\n".join(file.read_text(errors="replace")[-3000:] for file in home_of(case).glob("runs/*/console.log"))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures side by side, each beside what one GPU does where that was measured."""
    lines = [
        f"{'case':28}{'how':8}{'batch':>9}{'tokens/s':>10}{'scaling':>9}{'step s':>8}{'first s':>9}{'peak GiB':>10}"
    ]
    alone = {
        (row.get("shape"), row.get("method")): row.get("tokens_per_second") for row in rows if row.get("gpus") == 1
    }
    for row in rows:
        if "tokens_per_second" not in row:
            lines.append(f"{row['case']:28}{str(row.get('failure'))[:90]}")
            continue
        base = alone.get((row["shape"], row["method"]))
        scaling = f"{row['tokens_per_second'] / base:.2f}" if base else ""
        batch = f"{row['micro_batch']}×{row['accumulation']}×{row['gpus']}"
        lines.append(
            f"{row['case']:28}{row['parallelism']:8}{batch:>9}{row['tokens_per_second']:>10,.0f}{scaling:>9}"
            f"{row['step_seconds']:>8.2f}{row['first_step_seconds']:>9.1f}{row['peak_gib']:>10.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
