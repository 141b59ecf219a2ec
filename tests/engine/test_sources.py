"""Models and data are found where they are said to be, and every other case is explained."""

from pathlib import Path

import pytest
from tunewright import starter
from tunewright.engine.sources import find_data, find_model
from tunewright.foundation.errors import TunewrightError


def test_what_is_built_in_is_found() -> None:
    assert find_model("tunewright/starter") == starter.MODEL
    assert find_data("tunewright/starter-held-out") == starter.HELD_OUT_DATA


@pytest.mark.parametrize(
    "name", ["[/nope]", "a/b/c", "../../etc", "owner/na me", "owner/..", "", "x\x1b[2J/y", "owner/name", "a//b", "-a/b"]
)
def test_a_name_that_leads_nowhere_is_explained(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(TunewrightError) as caught:
        find_model(name)
    assert "\x1b" not in str(caught.value)


def test_a_model_in_the_cache_of_the_hub_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(TunewrightError, match="Model without weights"):
        find_model("owner/name")
    (snapshot / "model.safetensors").touch()
    assert find_model("owner/name") == find_model("owner/name", "a" * 40) == snapshot


def test_folders_and_files_in_each_others_place_are_told(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.touch()
    with pytest.raises(TunewrightError, match="Not a model folder"):
        find_model(str(file))
    with pytest.raises(TunewrightError, match=r"no config\.json"):
        find_model(str(tmp_path))
    with pytest.raises(TunewrightError, match="A folder, not a file"):
        find_data(str(tmp_path))
    with pytest.raises(TunewrightError, match="Data not found"):
        find_data(str(tmp_path / "none"))
