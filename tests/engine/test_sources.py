"""Models and data are found where they are said to be, and every other case is explained."""

import os
from pathlib import Path

import pytest
from tunewright import starter
from tunewright.engine.sources import find_data, find_model, find_weights
from tunewright.foundation.errors import TunewrightError


def test_what_is_built_in_is_found() -> None:
    assert find_model("tunewright/starter") == starter.MODEL
    assert find_data("tunewright/starter-held-out") == (starter.HELD_OUT_DATA,)


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
    assert find_model("owner/name") == snapshot
    with pytest.raises(TunewrightError, match="Model without weights"):
        find_weights("owner/name")
    (snapshot / "model.safetensors").touch()
    assert find_weights("owner/name") == find_weights("owner/name", "a" * 40) == snapshot
    assert find_weights(f"owner/name@{'a' * 40}") == snapshot


def test_folders_and_files_in_each_others_place_are_told(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.touch()
    with pytest.raises(TunewrightError, match="Not a model folder"):
        find_model(str(file))
    with pytest.raises(TunewrightError, match=r"no config\.json"):
        find_model(str(tmp_path))
    with pytest.raises(TunewrightError, match="Data not found"):
        find_data(str(tmp_path / "none"))


def names(source: object, split: str = "train") -> list[str]:
    return [path.name for path in find_data(str(source), split)]


def lay(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"a": 1}\n')
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def cache(hub: Path, *files: str) -> None:
    """Lay a data set into the cache as the Hub's client does: links in a snapshot that lead to blobs."""
    repository = hub / "datasets--owner--name"
    snapshot = repository / "snapshots" / ("b" * 40)
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    for number, name in enumerate(files):
        (repository / "blobs" / str(number)).write_text('{"a": 1}\n')
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(repository / "blobs" / str(number))


def test_data_that_is_built_in_or_a_file_is_one_file(tmp_path: Path) -> None:
    assert find_data("tunewright/starter-orders") == (starter.TRAINING_DATA,)
    lay(tmp_path, "a.weird")
    assert find_data(str(tmp_path / "a.weird")) == (tmp_path / "a.weird",)


def test_a_folder_is_all_data_files_below_it_and_nothing_else(tmp_path: Path) -> None:
    lay(tmp_path, "b.jsonl", "a.CSV", "sub/c.parquet", "sub/deep/d.json.gz", "e.txt.zst")
    lay(tmp_path, "README.md", "LICENSE", "dataset_info.json", "dataset_infos.json", "state.json", "notes.md", "x.png")
    lay(tmp_path, ".hidden.jsonl", ".cache/f.jsonl", "g.jsonl.lock", "h.incomplete", "script.py", "README.txt")
    assert names(tmp_path) == ["a.CSV", "b.jsonl", "e.txt.zst", "c.parquet", "d.json.gz"]


def test_a_folder_of_files_without_endings_is_read(tmp_path: Path) -> None:
    assert names(lay(tmp_path, "part-00001", "part-00000", "LICENSE")) == ["part-00000", "part-00001"]


def test_links_that_go_in_circles_end(tmp_path: Path) -> None:
    lay(tmp_path / "data", "a.jsonl")
    lay(tmp_path / "other", "b.jsonl")
    for name in ("one", "two", "three"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "data")
    (tmp_path / "data" / "to").symlink_to(tmp_path / "other")
    (tmp_path / "data" / "broken.jsonl").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path / "data") == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path / "data" / "**" / "*.jsonl") == ["a.jsonl"]


def test_other_splits_in_a_folder_are_left_out(tmp_path: Path) -> None:
    lay(tmp_path, "train.jsonl", "more.jsonl", "test.jsonl", "sub/validation/a.jsonl")
    assert names(tmp_path) == ["more.jsonl", "train.jsonl"]
    assert names(tmp_path, "test") == ["more.jsonl", "test.jsonl"]
    assert names(tmp_path, "other") == ["more.jsonl", "a.jsonl", "test.jsonl", "train.jsonl"]


def test_a_glob_is_sorted(tmp_path: Path) -> None:
    lay(tmp_path, "b.jsonl", "a.jsonl", "c.csv", "sub/d.jsonl", ".e.jsonl", "notes.md")
    assert names(tmp_path / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path / "*") == ["a.jsonl", "b.jsonl", "c.csv"]
    assert names(tmp_path / "**" / "*.jsonl") == ["a.jsonl", "b.jsonl", "d.jsonl"]
    assert names(tmp_path / "[ac].*") == ["a.jsonl", "c.csv"]
    assert names(tmp_path / "*.md") == ["notes.md"]
    with pytest.raises(TunewrightError, match="No file matches"):
        find_data(str(tmp_path / "*.parquet"))
    with pytest.raises(TunewrightError, match="Not a pattern"):
        find_data(str(tmp_path / "a**"))


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    lay(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert names(tmp_path / "a[1].jsonl") == ["a[1].jsonl"]


@pytest.mark.parametrize(
    ("files", "split", "found"),
    [
        (("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
            "train", ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]),
        (("train.jsonl", "validation.jsonl", "README.md"), "validation", ["validation.jsonl"]),
        (("train.jsonl", "dev.jsonl.gz"), "validation", ["dev.jsonl.gz"]),
        (("data/train/0.parquet", "data/test/0.parquet"), "test", ["0.parquet"]),
        (("data/train_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet"),
            "train_sft", ["train_sft-00000-of-00001.parquet"]),
        (("orders_train.csv", "orders_test.csv"), "train", ["orders_train.csv"]),
        (("part1.jsonl", "part2.jsonl"), "train", ["part1.jsonl", "part2.jsonl"]),
        (("restraint.jsonl", "trains.jsonl"), "train", ["restraint.jsonl", "trains.jsonl"]),
    ],
)  # fmt: skip
def test_the_split_of_a_data_set_in_the_cache_is_found(
    hub: Path, files: tuple[str, ...], split: str, found: list[str]
) -> None:
    cache(hub, *files)
    assert names("owner/name", split) == found


def test_a_data_set_that_is_not_there_is_explained_with_how_to_fetch_it(hub: Path) -> None:
    with pytest.raises(TunewrightError, match="tunewright fetch owner/name --dataset"):
        find_data("owner/name")
    cache(hub, "README.md")
    with pytest.raises(TunewrightError, match="no file of a kind that is read"):
        find_data("owner/name")


@pytest.mark.parametrize(
    "name", ["", "nope", "x\x1b[2J/y", "x\0y", "a" * 5000, "../../nope", "[", "*/\0", "~nobody-here/x"]
)
def test_data_that_is_not_there_is_explained(hub: Path, name: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        find_data(name)
    assert "\x1b" not in str(caught.value) and "\0" not in str(caught.value)


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("/dev/zero", "/dev/null", str(tmp_path / "pipe.jsonl")):
        with pytest.raises(TunewrightError, match="pipe or a device"):
            find_data(name)
    lay(tmp_path, "a.jsonl")
    assert names(tmp_path) == names(tmp_path / "*.jsonl") == ["a.jsonl"]
