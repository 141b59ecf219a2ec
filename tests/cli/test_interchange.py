"""`tunewright recipes import` and `export`: the contract that programs read, what people see, and scripts that run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tunewright import starter
from tunewright.__main__ import main
from tunewright.recipes.interchange import TARGETS
from tunewright.recipes.model import read_recipe
from tunewright.recipes.registry import open_registry

AXOLOTL = """
base_model: owner/model
datasets:
  - path: owner/data
    type: alpaca
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_linear: true
learning_rate: 2e-4
micro_batch_size: 2
gradient_accumulation_steps: 4
neftune_noise_alpha: 5
wandb_project: mine
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "mine.yml"
    path.write_text(AXOLOTL, encoding="utf-8")
    return path


def test_import_prints_the_account(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "import", str(own_home), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {"recipe", "mapped", "defaulted", "dropped", "warnings"}
    assert said["recipe"]["method"]["rank"] == 8
    assert said["recipe"]["training"]["global_batch"] == 8
    assert {"key": "wandb_project", "value": "mine", "reason": "logging: every run keeps its events"} in said["dropped"]
    assert [each["field"] for each in said["mapped"] if each["key"] == "lora_r"] == ["method.rank"]
    assert [each["value"] for each in said["defaulted"] if each["field"] == "data.max_length"] == [512]
    assert any("NEFTune" in each for each in said["warnings"])


def test_import_is_read_by_people(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "import", str(own_home)]) == 0
    said = capsys.readouterr().out
    assert "! neftune_noise_alpha" in said
    assert "DEFAULTED" in said
    assert "Kept nowhere" in said


def test_import_keeps_the_recipe_under_a_name_and_in_a_file(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = own_home.parent / "mine.toml"
    assert main(["recipes", "import", str(own_home), "--from", "axolotl", "--as", "mine", "--out", str(file)]) == 0
    assert "under the name mine" in capsys.readouterr().out
    with open_registry() as registry:
        entry = registry.get("mine")
    assert entry.origin == "import"
    assert entry.hash == read_recipe(file).hash()
    assert any("mine.yml of Axolotl, sha256" in each for each in entry.recipe.card.sources)


def test_the_batch_model_and_data_can_be_said(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpus", "4", "--model", "other/model", "--data", "rows.jsonl", "--json"]
    assert main(["recipes", "import", str(own_home), *words]) == 0
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert (recipe["training"]["global_batch"], recipe["base"]["model"]) == (32, "other/model")
    assert recipe["data"]["source"] == "rows.jsonl"


@pytest.mark.parametrize(
    "text",
    ["a: 1", "base_model: !!python/object/apply:os.system ['true']", "base_model: m\nlearning_rate: 1e-4\nrl: grpo"],
)
def test_what_cannot_be_imported_is_refused(own_home: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    own_home.write_text(text, encoding="utf-8")
    assert main(["recipes", "import", str(own_home), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("target", TARGETS)
def test_export_writes_a_file_that_comes_back(own_home: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = own_home.parent / "there"
    assert main(["recipes", "export", "starter-lora", "--to", target, "--out", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == target
    assert any("Tunewright's own" in each for each in said["warnings"])
    if target.startswith("python-"):
        compile(file.read_text(encoding="utf-8"), target, "exec")
    else:
        assert main(["recipes", "import", str(file), "--from", target, "--json"]) == 0


def test_an_export_that_would_be_another_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recipes", "export", "starter-lora", "--to", "oumi", "--set", "method.dora=true"]
    assert main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["title"] == "Meaning would be lost"
    assert main([*words, "--allow-loss"]) == 0
    assert "! method.dora = true is not carried" in capsys.readouterr().err


CONSTRUCTS = """
import runpy, sys
for path in sys.argv[3:]:
    names = runpy.run_path(path, run_name="read")
    configuration = next(value for name, value in names.items() if name.endswith("Config") and name not in ("LoraConfig", "BitsAndBytesConfig"))
    made = configuration(**names["ARGUMENTS"], output_dir=sys.argv[1], use_cpu=True, bf16=False)
    assert made.learning_rate == names["ARGUMENTS"]["learning_rate"]
    if names["LORA"]:
        assert names["peft_config"]().r == names["LORA"]["r"]
sys.argv = [sys.argv[3], "--model", sys.argv[2], "--data", "rows.jsonl", "--steps", "1", "--output", sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_scripts_configure_trl_and_train_without_tunewright(own_home: Path) -> None:
    folder = own_home.parent
    none = 'data.validation={"kind": "none", "value": 0}'
    pairs = ["method.dropout=0", "data.format=preference", none]
    changes = {
        "starter-lora": [none],
        "starter-dpo": [none],
        "orpo": [*pairs, "training.objective=orpo"],
        "kto": [*pairs[:1], "data.format=kto", none, "training.objective=kto"],
        "starter-full": ["training.floor=0.1", "training.beta2=0.95", none],
    }  # fmt: skip
    for name, values in changes.items():
        source = name if name.startswith("starter") else "starter-lora"
        sets = [word for each in values for word in ("--set", each)]
        assert (
            main(["recipes", "export", source, *sets, "--to", "python-trl", "--out", str(folder / f"{name}.py")]) == 0
        )
    rows = starter.TRAINING_DATA.read_text(encoding="utf-8").splitlines()[:4]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CONSTRUCTS, str(folder / "out"), str(starter.MODEL), *(f"{name}.py" for name in changes)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "out" / "adapter_model.safetensors").exists()
