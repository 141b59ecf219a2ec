"""Fixed machines, models and recorded runs, so that every screen looks the same on every machine."""

from __future__ import annotations

import asyncio
import calendar
import json
import math
import os
import random
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tunewright.engine.advice import Advice, AdviceReason, MethodFigures
from tunewright.engine.installation import Finding, Installation
from tunewright.engine.machine import GpuDevice, GpuProcess, Machine
from tunewright.engine.plan import Alternative, Plan, Prediction, Reason, write_plan
from tunewright.engine.runs.directory import Processes, ProcessIdentity, RunDirectory, boot_id
from tunewright.engine.runs.events import (
    Checkpoint,
    Cpu,
    Eval,
    Event,
    EventLog,
    Gpu,
    Measured,
    Notice,
    Phase,
    Sample,
    Status,
    Step,
)
from tunewright.foundation.files import write_atomically
from tunewright.recipes.model import Recipe
from tunewright.tui.outlook import Outlook

NOON = float(calendar.timegm((2026, 11, 20, 12, 0, 0)))
"""When recorded runs begin."""
RECIPE = """\
[base]
# Comes with the tests.
model = "tunewright/starter"

[data]
source = "tunewright/starter-orders"
max_length = 256

[data.validation]
kind = "rows"
value = 4

[method]
kind = "lora"
# The task is narrow.
rank = 16
alpha = 32

[training]
# Small models bear a higher rate.
learning_rate = 3e-3
epochs = 6
global_batch = 16

[training.warmup]
kind = "ratio"
value = 0.05

[card]
title = "Starter: LoRA"
summary = "The first thing to try: low-rank adapters on the built-in model."
tags = ["starter", "cpu"]
licence = "Apache-2.0"
sources = ["arXiv 2106.09685"]
"""
QLORA_RECIPE = RECIPE.replace('kind = "lora"', 'kind = "qlora"').replace("Starter: LoRA", "Starter: QLoRA")
FULL_RECIPE = RECIPE.replace(
    '[method]\nkind = "lora"\n# The task is narrow.\nrank = 16\nalpha = 32\n', '[method]\nkind = "full"\n'
).replace("Starter: LoRA", "Starter: full")
CATALOGUE = {"starter-full": FULL_RECIPE, "starter-lora": RECIPE, "starter-qlora": QLORA_RECIPE}
TEMPLATE = """\
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- '<|assistant|>' }}{%- generation %}{{- message['content'] + '<|end|>' }}{%- endgeneration %}
    {%- else %}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""


def make_outlook(recipe: Recipe) -> Outlook:
    """Return what a recipe takes, more where its method keeps 4-bit weights."""
    factor = 1 + (recipe.method.kind == "qlora")
    return Outlook("fits", "For 512 rows of full length.", False, 0.88 * factor + 0.04, 0.12 * factor, 55.0 * factor)


def make_plan(steps: int = 360) -> Plan:
    """Return a plan with every part filled in."""
    return Plan(
        machine="2 cores",
        backend="transformers",
        device="cpu",
        precision="fp32",
        micro_batch=16,
        accumulation=1,
        gradient_checkpointing="off",
        batching="padded",
        attention="sdpa",
        threads=2,
        total_steps=steps,
        training_rows=950,
        validation_rows=50,
        evaluate_every_steps=45,
        checkpoint_every_steps=90,
        sample_every_steps=60,
        merge=True,
        prediction=Prediction(
            trainable_parameters=147_456,
            total_parameters=2_600_000,
            peak_gib=0.92,
            memory_terms={"weights": 0.01, "activations": 0.31, "libraries": 0.6},
            tokens=640_000,
            tokens_per_second=9_800,
            seconds_to_first_step=9.0,
            training_seconds=65.0,
            total_seconds=84.0,
            total_seconds_range=(70.0, 110.0),
            disk_gib=0.03,
        ),
        reasons=(Reason("micro-batch", "16 × 1", "the whole global batch fits, and larger products are faster"),),
        alternatives=(Alternative("8 × 2 rows", 0.78, 97.0, "13 s slower"),),
    )


def training_events(steps: int, start: float = NOON, total: int = 360, hostile: bool = False) -> list[Event]:
    """Return what a run writes up to a step, with curves that look like training."""
    rng = random.Random(7)
    bad = "\x1b]52;c;ZXZpbA==\x07\x1b[2J[/nope][@click=app.quit]press[/]" if hostile else ""
    events: list[Event] = [
        Status(time=start, state="starting"),
        Status(time=start + 1, state="running"),
        Phase(time=start + 2, name="loading"),
        Eval(time=start + 12, step=0, exact_match=0.0, rows=200),
        Phase(time=start + 13, name="training"),
    ]
    for step in range(1, steps + 1):
        now = start + 13 + step * 0.18
        progress = step / total
        loss = 0.09 + 2.3 * math.exp(-progress * 7) + rng.uniform(-0.05, 0.05) * (1.4 - progress)
        rate = 3e-3 * min(1.0, step / 18) * (0.5 + 0.5 * math.cos(math.pi * progress))
        events.append(
            Step(
                time=now,
                step=step,
                total_steps=total,
                epoch=step / 60,
                loss=loss,
                learning_rate=rate,
                grad_norm=0.4 + 1.5 * math.exp(-progress * 5) + rng.random() * 0.2,
                tokens=1_780 + rng.randint(-90, 90),
                seconds=0.18,
                peak_gib=0.88,
            )
        )
        if step % 45 == 0:
            events.append(Eval(time=now, step=step, loss=0.1 + 2.2 * math.exp(-progress * 6.5), rows=50, seconds=0.4))
        if step % 60 == 0:
            right = step > 200
            events.append(
                Sample(
                    time=now,
                    step=step,
                    prompt=f"Hello! This is Mira from Oslo. I would like two small blue mugs, please. {bad}",
                    completion='{"name":"Mira","city":"Oslo","items":[{"item":"mug","colour":"blue","size":"small",'
                    f'"quantity":{2 if right else 3}}}]}}{bad}',
                    reference='{"name":"Mira","city":"Oslo","items":[{"item":"mug","colour":"blue","size":"small",'
                    f'"quantity":2}}]}}{bad}',
                )
            )
        if step % 90 == 0:
            events.append(Checkpoint(time=now, step=step, name=f"step-{step:06d}", size_bytes=3_300_000, seconds=0.2))
        if step % 10 == 0:
            events.append(Cpu(time=now, utilisation_percent=187.0, memory_gib=0.86))
    if hostile:
        events.append(Notice(time=start, level="warning", title=bad, message=bad, remedy=bad))
    return events


def make_gpu_plan() -> Plan:
    """Return the plan of a model of eight billion parameters on one card."""
    return replace(
        make_plan(),
        machine="NVIDIA H200",
        device="cuda",
        precision="bf16",
        attention="flex_attention",
        batching="packed",
        compiled=True,
        micro_batch=4,
        accumulation=4,
        prediction=Prediction(
            trainable_parameters=41_943_040,
            total_parameters=8_030_261_248,
            peak_gib=58.3,
            memory_terms={"weights": 15.0, "activations": 41.2, "adapters": 2.1},
            tokens=9_400_000,
            tokens_per_second=14_300,
            seconds_to_first_step=29.0,
            training_seconds=660.0,
            total_seconds=700.0,
            total_seconds_range=(600.0, 840.0),
            disk_gib=0.9,
            reserved_gib=62.0,
            evaluation_gib=31.5,
            saving_gib=17.2,
            host_gib=6.4,
        ),
        reasons=(
            Reason("micro-batch", "4 × 4", "the whole global batch fits, and larger products are faster"),
            Reason(
                "compiled", "yes", "torch.compile fuses each layer's small operations; the first step takes 16 s more"
            ),
        ),
    )


START_SECONDS = {
    "seconds_planning": 1.9, "seconds_launching": 0.4, "seconds_starting": 0.8, "seconds_tokenising": 1.1,
    "seconds_importing": 8.7, "seconds_loading": 5.2, "seconds_compiling": 11.3, "seconds_to_first_step": 29.4,
}  # fmt: skip


def starting_events(start: float = NOON) -> list[Event]:
    """Return what a run on a card has written while its weights are loaded."""
    return [
        Status(time=start, state="starting"),
        Measured(time=start, values={"seconds_planning": 1.9}),
        Status(time=start + 0.4, state="running"),
        Phase(time=start + 1.2, name="tokenising", detail="tunewright/starter-orders"),
        Phase(time=start + 2.3, name="importing", detail="torch and transformers"),
        Phase(time=start + 11.0, name="loading", detail="tunewright/starter with transformers"),
        Phase(time=start + 58.0, name="loading", detail="tunewright/starter with transformers", done=212, total=291),
        Gpu(time=start + 58.0, index=0, utilisation_percent=3.0, memory_used_gib=11.4, memory_total_gib=139.8,
            temperature_celsius=36, power_watts=118.0, clock_mhz=1980.0),
    ]  # fmt: skip


def preference_events(steps: int) -> list[Event]:
    """Return what a run on a card writes up to a step while it learns from preferences."""
    found: list[Event] = []
    for event in training_events(steps):
        if isinstance(event, Step):
            part = event.step / 360
            rewards = {"rewards/accuracies": 0.5 + 0.4 * part, "rewards/margins": 1.6 * part}
            event = replace(
                event, tokens=26_000, seconds=1.8, peak_gib=57.9, reserved_gib=61.2, mfu=0.47, metrics=rewards
            )
        elif isinstance(event, Eval) and event.loss is not None:
            event = replace(event, metrics={"rewards/accuracies": 0.5 + 0.3 * event.step / 360, "rewards/margins": 0.9})
        elif isinstance(event, Cpu):
            event = Gpu(time=event.time, index=0, utilisation_percent=98.0, memory_used_gib=63.1, memory_total_gib=139.8,
                        temperature_celsius=71, power_watts=688.0, clock_mhz=1710.0, throttled_by="power")  # fmt: skip
        found.append(event)
    notice = Notice(
        time=NOON + 20,
        level="warning",
        title="Out of memory",
        message="Going on from the last checkpoint with micro-batches of 2 rows and 8 accumulation steps.",
    )
    return [*found, Measured(time=NOON + 14, values=START_SECONDS), notice]


def record_run(
    folder: Path,
    name: str,
    events: list[Event],
    state: str | None = None,
    alive: bool = False,
    error: dict[str, str] | None = None,
    recipe: str = RECIPE,
    plan: Plan | None = None,
) -> RunDirectory:
    """Make a run directory by hand: ended with `state`, or going on in this very process when `alive`."""
    run = RunDirectory(folder / name)
    run.path.mkdir(parents=True)
    run.checkpoints.mkdir()
    run.exports.mkdir()
    write_atomically(run.recipe_file, recipe)
    write_plan(plan or make_plan(), run.plan_file)
    log = EventLog(run.events_file)
    for event in events:
        log.append(event)
    log.close()
    run.console_file.write_text("loading the model\ntraining on 2 threads\n", encoding="utf-8")
    own = ProcessIdentity.of(os.getpid())
    assert own is not None
    gone = ProcessIdentity(own.pid, own.started - 1)
    processes = Processes(socket.gethostname(), boot_id(), own if alive else gone, None, "by hand")
    write_atomically(run.process_file, processes.to_json())
    if state is not None:
        steps = [event.step for event in events if isinstance(event, Step)]
        result = {"state": state, "reason": "", "step": max(steps, default=0), "total_steps": 360, "error": error}
        write_atomically(run.result_file, json.dumps(result))
        os.utime(run.result_file, (NOON + 90, NOON + 90))
    return run


def finished_events() -> list[Event]:
    """Return the events of a run that went well."""
    return [
        *training_events(360),
        Eval(time=NOON + 85, step=360, exact_match=0.935, rows=200),
        Measured(
            time=NOON + 86,
            values={"peak_gib": 0.88, "training_seconds": 66.0, "total_seconds": 86.0, "tokens_per_second": 9710.0},
        ),
        Phase(time=NOON + 87, name="done"),
        Status(time=NOON + 88, state="finished", reason="all steps were taken"),
    ]


def failed_events() -> list[Event]:
    """Return the events of a run that ended with an error."""
    return [
        *training_events(130),
        Notice(
            time=NOON + 40,
            level="error",
            title="Out of memory",
            message="Even one row at a time does not fit.",
            remedy="Use QLoRA, a shorter max_length, or a GPU with more memory.",
        ),
        Status(time=NOON + 41, state="failed", reason="Out of memory"),
    ]


CPU_MACHINE = Machine(
    system="Linux 6.8.0",
    cpu="AMD Ryzen 9 7950X 16-Core Processor",
    cores=8,
    memory_total_gib=62.8,
    memory_free_gib=51.2,
    disk_free_gib=214.0,
    gpus=(),
    driver=None,
    accelerator_note="No GPU was found: training runs on the processor, which suits small models only.",
)
GPU_MACHINE = Machine(
    system="Linux 6.8.0",
    cpu="AMD EPYC 7763 64-Core Processor",
    cores=32,
    memory_total_gib=256.0,
    memory_free_gib=240.3,
    disk_free_gib=812.0,
    gpus=(
        GpuDevice(0, "NVIDIA A100-SXM4-80GB", 79.3, 66.9, (8, 0), 34.0, 48.0, 210.0, 400.0,
                  (GpuProcess(4711, "amara", "python", 12.1),)),
        GpuDevice(1, "NVIDIA A100-SXM4-80GB", 79.3, 78.7, (8, 0), 0.0, 31.0, 62.0, 400.0),
    ),
    driver="580.65",
    accelerator_note="2 NVIDIA GPUs, driver 580.65.",
)  # fmt: skip


ADVICE = Advice(
    outcome="lora",
    headline="LoRA: about 0.6 GiB and 2 minutes on this processor, 0.3 million trained parameters.",
    reasons=(
        AdviceReason("lora", "LoRA learns most tasks as well as full tuning at a fraction of the memory.", 2.0),
        AdviceReason("full", "Few rows overfit when every weight is free.", -2.0),
    ),
    would_change=("How many good examples are there? “fewer than 20” would lead to a prompt.",),
    figures=(
        MethodFigures("full", 2_890_000, 0.68, 92.0, True, "4 × 4 rows"),
        MethodFigures("lora", 262_000, 0.66, 93.0, True, "4 × 4 rows"),
        MethodFigures("qlora", 262_000, 21.4, 139.0, False, "1 × 16 rows"),
    ),
    answers={},
)
INSTALLATION = Installation(
    python="3.11.7",
    packages={"torch": "2.13.0+cpu", "transformers": "5.17.0", "trl": "1.14.2", "peft": "0.21.2", "unsloth": None},
    unmet={},
    torch=None,
    torchvision=None,
    sqlite="3.40.1",
    sqlite_can_corrupt_wal=False,
    bytecode_missing=False,
    bytecode_forbidden=False,
    systemd_user=False,
    linger=False,
    home="/home/amara/.local/share/tunewright",
    home_writable=True,
)
FINDINGS = (
    Finding("warning", "GPU 0 is shared", "12.4 of 79.3 GiB are in use by python (amara, pid 4711)."),
    Finding("hint", "Starting a run takes three times as long as it could", "The training packages are not compiled.",
            "python -m compileall"),
    Finding("ok", "Everything that training needs is installed", "In versions tested together."),
)  # fmt: skip


def make_model(folder: Path) -> Path:
    """Make a model folder whose tokenizer knows every byte; its weights hold no tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 2048, "hidden_size": 256,
        "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 512, "tie_word_embeddings": True, "dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def make_data(path: Path, rows: int = 40) -> Path:
    """Make a file of conversations whose lengths differ."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": f"Hello! Please send {'very ' * (row % 7)}many mugs to Oslo, order {row}.",
                    },
                    {"role": "assistant", "content": f'{{"item":"mug","order":{row}}}'},
                ]
            }
        )
        for row in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_faulty_data(path: Path) -> Path:
    """Make a file of conversations with some of everything that goes wrong."""
    make_data(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    turns = [{"role": "user", "content": "Tell me more. " * 30}, {"role": "assistant", "content": "There is no more."}]
    lines[7] = json.dumps({"messages": turns})
    lines[11] = lines[10]
    lines[15] = json.dumps({"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}]})
    lines[20:22] = ['{"prompt": "no messages"}', "not JSON"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


async def settle(pilot: Pilot[None]) -> None:
    """Wait until every background method has ended and its messages are handled; a followed run never ends."""
    await pilot.pause()
    while working := [worker for worker in pilot.app.workers if worker.group != "follow" and not worker.is_finished]:
        await pilot.app.workers.wait_for_complete(working)
        await pilot.pause()
    await pilot.pause()


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for what another thread brings about."""
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.01)


def shown(pilot: Pilot[None]) -> str:
    """Return the text on the screen."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)
