"""Isolation on a GPU: rows that share a micro-batch do not see each other, by any kernel of attention and either backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..engine.training.test_isolation import assert_isolated, pairs, tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

ATTENTIONS = ("sdpa", "flex_attention", "varlen")

TRAINER = """
import json, sys
from dataclasses import replace
from pathlib import Path
backend, attention, batching, folder = sys.argv[1:]
if backend == "unsloth":
    import unsloth
import torch
from transformers import TrainerCallback
from tunewright import starter
from tunewright.engine.data.preparing import Prepared, prepare
from tunewright.engine.plan import Plan
from tunewright.engine.training.acceleration import attention as known  # makes `varlen` known to transformers
from tunewright.engine.training.trainer import load
from tunewright.recipes.model import validate_recipe

recipe = validate_recipe({
    "base": {"model": "tunewright/starter"},
    "data": {"source": "tunewright/starter-orders", "validation": {"kind": "none"}, "packing": batching == "packed"},
    "method": {"kind": "lora", "rank": 8, "alpha": 16},
    "training": {"learning_rate": 1e-3, "steps": 1, "global_batch": 4},
}, "test")
plan = Plan(
    machine="test", backend=backend, device="cuda", precision="bf16", micro_batch=4, accumulation=1,
    gradient_checkpointing="off", batching=batching, attention=attention, threads=1, total_steps=1, training_rows=4,
    validation_rows=0, evaluate_every_steps=1, checkpoint_every_steps=1, sample_every_steps=1, merge=False,
)

class Watching(TrainerCallback):
    log = []

model, tokenizer = load(recipe, plan, starter.MODEL)
from tunewright.engine.training.objectives.supervised import trainer_of
rows = prepare(recipe).training.take(range(4))
trainer = trainer_of(recipe, plan, Path(folder), model, tokenizer, Prepared(rows, rows.take([]), (), 0, 0, 0), Watching())
batch = next(iter(trainer.get_train_dataloader()))
assert batch["input_ids"].shape[0] == 1, "rows are strung together"
starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
ends = [*starts[1:], batch["input_ids"].shape[1]]
trainer.model.train()

def loss(tokens, document):
    labels = torch.full_like(batch["labels"], -100)
    labels[0, starts[document] + 1 : ends[document]] = tokens[0, starts[document] + 1 : ends[document]]
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, {**batch, "input_ids": tokens.clone(), "labels": labels}))

def changed(document):
    tokens = batch["input_ids"].clone()
    tokens[0, starts[document] : ends[document]] = tokens[0, starts[document] : ends[document]].flip(0)
    return tokens

own = [abs(loss(batch["input_ids"], at) - loss(changed(at), at)) for at in range(len(starts))]
others = [
    abs(loss(batch["input_ids"], at) - loss(changed(other), at))
    for at in range(len(starts)) for other in range(len(starts)) if at != other
]
print(json.dumps({"documents": len(starts), "own": min(own), "others": max(others)}))
"""


@pytest.mark.parametrize(("shape", "attention"), pairs(ATTENTIONS))
def test_documents_are_blind_to_each_other(shape: str, attention: str) -> None:
    import torch

    model = tiny_model(shape, attention).to("cuda", torch.bfloat16)
    for packs in ([[0, 1, 2, 3]], [[2], [0], [3], [1]], [[1, 2], [3, 0]]):
        assert_isolated(model, packs, 1e-6, 0.1)


@pytest.mark.parametrize("batching", ["padding-free", "packed"])
@pytest.mark.parametrize(
    ("backend", "attention"), [*(("transformers", name) for name in ATTENTIONS), ("unsloth", "sdpa")]
)
def test_documents_of_a_trainers_micro_batch_are_blind_to_each_other(
    tmp_path: Path, backend: str, attention: str, batching: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TRAINER, backend, attention, batching, str(tmp_path / "run")],
        env={**os.environ, "TUNEWRIGHT_HOME": str(tmp_path)}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    found = json.loads(ended.stdout.splitlines()[-1])
    print(json.dumps({"backend": backend, "attention": attention, "batching": batching, **found}))
    assert found["documents"] == 4
    assert found["own"] > 0.01
    assert found["others"] <= 1e-6
