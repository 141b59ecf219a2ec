"""Of a data set the files of one configuration and split are taken, as its card names them, whatever the card holds."""

import pytest
from tunewright.engine.hub.data_files import files_of_data_set, read_configurations
from tunewright.foundation.errors import TunewrightError

PATHS = (
    "README.md", ".gitattributes", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
    "data/validation-00000-of-00001.parquet", "en/train.jsonl", "en/test.jsonl", "en/deep/more.jsonl", "de/train.jsonl",
    "train.csv", "load.py",
)  # fmt: skip


def card(block: str) -> str:
    return f"---\nlicense: mit\n{block}\ndataset_info:\n  features: []\n---\n# A set\nconfigs:\n- not these\n"


def taken(block: str, configuration: str | None = None, split: str = "train") -> list[str]:
    return list(files_of_data_set(PATHS, card(block), configuration, split, "owner/name"))


@pytest.mark.parametrize(
    ("block", "split", "found"),
    [
        ("configs:\n- config_name: a\n  data_files: en/train.jsonl", "train", ["en/train.jsonl"]),
        ("configs:\n  - config_name: a\n    data_files: en/*.jsonl", "train", ["en/test.jsonl", "en/train.jsonl"]),
        ("configs:\n- data_files:\n  - 'en/t*n.jsonl'\n  - de/train.jsonl", "train", ["de/train.jsonl", "en/train.jsonl"]),
        ("configs:\n- data_files:\n  - split: train\n    path: data/train-*", "train", list(PATHS[2:4])),
        ("configs:\n- data_files:\n  - split: val\n    path: data/val*", "validation", [PATHS[4]]),
        ("configs:\n- data_files:\n  - split: train_sft\n    path: ['en/**']", "train_sft",
            ["en/deep/more.jsonl", "en/test.jsonl", "en/train.jsonl"]),
        ("configs:\n- data_files: {train: '**/train.jsonl', test: en/test.jsonl}", "train", ["de/train.jsonl", "en/train.jsonl"]),
        ("configs:\n- data_files: '[!d]*/train.jsonl'", "train", ["en/train.jsonl"]),
        ("configs:\n- data_files: ./de/train.jsonl", "train", ["de/train.jsonl"]),
        ("configs:\n- data_dir: en", "train", ["en/train.jsonl"]),
        ("configs:\n- data_dir: en\n  data_files: t?st.jsonl", "train", ["en/test.jsonl"]),
        ("", "test", ["en/test.jsonl"]),
    ],
)  # fmt: skip
def test_patterns_mean_what_they_mean_to_datasets(block: str, split: str, found: list[str]) -> None:
    assert taken(block, split=split) == found


TWO = "configs:\n- config_name: en\n  data_files: en/train.jsonl\n- config_name: de{}\n  data_files: de/*"


def test_configurations_are_never_mixed() -> None:
    assert taken(TWO.format(""), "de") == ["de/train.jsonl"]
    assert taken(TWO.format("\n  default: true")) == ["de/train.jsonl"]
    assert taken(TWO.format("fault")) == ["de/train.jsonl"]
    with pytest.raises(TunewrightError, match=r"2 data sets in one: en, de\."):
        taken(TWO.format(""))
    with pytest.raises(TunewrightError, match=r"has no configuration 'dee'. Did you mean owner/name:de\?"):
        taken(TWO.format(""), "dee")
    with pytest.raises(TunewrightError, match="no split 'test' in its configuration 'en'; it has train"):
        taken(TWO.format(""), "en", "test")
    with pytest.raises(TunewrightError, match="names no configurations, and has no folder 'fr'"):
        taken("", "fr")
    assert taken("", "de") == ["de/train.jsonl"]


@pytest.mark.parametrize(
    "block",
    [
        "configs:\n- !!python/object/apply:os.system ['true']",
        "configs:\n- {",
        "configs:\n- &a {x: 1}\n- &b {<<: [*a, *a]}\n- {<<: [*b, *b]}",
        "configs:\n  config_name: a",
        "configs:\n- data_files: 'a*a*a*a*a*a*a*a*a*a*a*a*a*a'",
        "configs:\n- " + "[" * 5000,
    ],
    ids=["tag", "torn", "merges", "mapping", "stars", "deep"],
)  # fmt: skip
def test_a_card_that_is_not_understood_is_refused(block: str) -> None:
    with pytest.raises(TunewrightError, match="Card not understood"):
        taken(block)


def test_a_card_without_a_head_names_nothing() -> None:
    for text in ("", "# configs:\n", "---\nconfigs:\n- a", "\ufeff---\r\nlicense: mit\r\n---\r\n"):
        assert read_configurations(text, "owner/name") == ()
    windows = "---\r\nconfigs:\r\n- config_name: a\r\n  data_files: x\r\n---\r\n"
    assert [each.name for each in read_configurations(windows, "owner/name")] == ["a"]
