"""Models and data sets come from a real server over real lines that break, stall and refuse."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tunewright import starter
from tunewright.engine.hub import errors as hub_errors
from tunewright.engine.hub import fetching
from tunewright.engine.hub.cache import Repository
from tunewright.engine.hub.fetching import FetchProgress, fetch, plan_fetch, plan_from_cache
from tunewright.engine.hub.needs import needs_of
from tunewright.engine.sources import find_data, find_model, find_weights
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.model import parse_recipe

from ..hub_server import Fault, HubServer

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
WEIGHTS = random.Random(7).randbytes(3_000_000)
ROWS = b'{"text": "a"}\n' * 100


def small_model() -> dict[str, bytes]:
    """Return a model's files: what is used, and much that is not."""
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    return {
        "config.json": b'{"model_type": "llama"}',
        "generation_config.json": b"{ }",
        "tokenizer.json": b'{"a": 1}' * 400,
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "additional_chat_templates/tools.jinja": b"{{ tools }}",
        "model.safetensors.index.json": index.encode(),
        "model-00001-of-00002.safetensors": WEIGHTS,
        "model-00002-of-00002.safetensors": WEIGHTS[:1_000_000],
        "README.md": b"# A model",
        "LICENSE": b"Apache",
        "pytorch_model.bin": b"pickle" * 1000,
        "training_args.bin": b"pickle",
        "optimizer.pt": b"pickle",
        "modeling_llama.py": b"import os",
        "consolidated.safetensors": WEIGHTS,
        "original/consolidated.00.pth": b"pickle" * 1000,
        "original/params.json": b"{  }",
        "onnx/model.onnx": b"x" * 2000,
        "model-q4.gguf": b"x" * 2000,
        "fp32/model.safetensors": WEIGHTS,
    }


USED = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "additional_chat_templates/tools.jinja", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors", "README.md", "LICENSE",
}  # fmt: skip
FIRST = "model-00001-of-00002.safetensors"


def test_a_model_is_planned_fetched_and_found(hub_server: HubServer) -> None:
    repo = hub_server.model("owner/name", small_model())
    hub_server.page_size = 5
    plan = plan_fetch("owner/name")
    assert {each.path for each in plan.files} == USED
    assert (plan.commit, plan.missing_bytes) == (repo.commit, sum(len(repo.files[path]) for path in USED))
    told: list[FetchProgress] = []
    folder = fetch(plan, told.append)
    assert folder == find_weights("owner/name") == find_weights("owner/name", repo.commit)
    assert {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()} == USED
    assert all((folder / path).read_bytes() == repo.files[path] for path in USED)
    assert (told[-1].done_bytes, told[-1].done_files) == (plan.total_bytes, len(USED))
    assert told[-1].seconds_left == 0
    fetched = {
        each.path.partition("/resolve/")[2].partition("/")[2] for each in hub_server.seen if "/resolve/" in each.path
    }
    assert fetched == USED, "nothing else was so much as asked for"
    hub_server.seen.clear()
    again = plan_fetch("owner/name")
    assert (again.missing_bytes, again.missing_files) == (0, 0)
    assert fetch(again) == folder
    assert [each.path for each in hub_server.seen] == ["/api/models/owner/name/revision/main"]


def test_the_cache_is_huggingface_hubs_own(hub_server: HubServer) -> None:
    import huggingface_hub

    repo = hub_server.model("owner/name", small_model())
    theirs = huggingface_hub.hf_hub_download(
        "owner/name", FIRST, endpoint=hub_server.url, cache_dir=os.environ["HF_HUB_CACHE"]
    )
    plan = plan_fetch("owner/name")
    assert plan.here_bytes == len(WEIGHTS)
    folder = fetch(plan)
    assert folder is not None
    assert Path(theirs) == folder / FIRST
    hub_server.seen.clear()
    ours = huggingface_hub.snapshot_download(
        "owner/name", revision=repo.commit, allow_patterns=sorted(USED), cache_dir=os.environ["HF_HUB_CACHE"],
        endpoint=hub_server.url,
    )  # fmt: skip
    assert (Path(ours), hub_server.seen) == (folder, [])


def test_what_planning_needs_comes_first(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    plan = plan_fetch("owner/name")
    assert fetch(plan.description) == find_model("owner/name")
    with pytest.raises(TunewrightError, match=r"Model without weights.*tunewright fetch owner/name"):
        find_weights("owner/name")
    later = plan_fetch("owner/name", revision=plan.commit)
    assert later.missing_bytes == len(WEIGHTS) + 1_000_000
    fetch(later)
    assert find_weights("owner/name") == find_model("owner/name")
    (find_model("owner/name") / FIRST).unlink()
    with pytest.raises(TunewrightError, match=f"Weights not whole.*{FIRST}"):
        find_weights("owner/name")


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults[FIRST] = [
        Fault("drop", after_bytes=1_500_000),
        Fault("status", 503),
        Fault("drop", after_bytes=0),
    ]
    fetch(plan_fetch("owner/name"))
    assert (find_weights("owner/name") / FIRST).read_bytes() == WEIGHTS
    starts = [int(each.headers.get("range", "bytes=0-")[6:].partition("-")[0]) for each in hub_server.gets(FIRST)]
    assert len(starts) == 4
    assert (starts[0], starts[1] > 0, starts[1:]) == (0, True, [starts[1]] * 3)


def test_a_server_that_cannot_go_on_in_the_middle_is_asked_for_all_of_it(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults[FIRST] = [Fault("drop", after_bytes=1_500_000), Fault("no range")]
    told: list[FetchProgress] = []
    plan = plan_fetch("owner/name")
    fetch(plan, told.append)
    assert (find_weights("owner/name") / FIRST).read_bytes() == WEIGHTS
    assert max(each.done_bytes for each in told) == plan.total_bytes


def test_what_arrives_garbled_is_asked_for_once_more(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults |= {FIRST: [Fault("garble")], "config.json": [Fault("garble")]}
    folder = fetch(plan_fetch("owner/name"))
    assert folder is not None
    assert (folder / FIRST).read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == small_model()["config.json"]


def test_what_is_garbled_twice_is_refused_and_never_shown(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults[FIRST] = [Fault("garble"), Fault("garble")]
    plan = plan_fetch("owner/name")
    with pytest.raises(TunewrightError, match="Not what the Hub lists"):
        fetch(plan)
    assert not plan.repository.snapshot(plan.commit).exists()
    assert fetch(plan_fetch("owner/name")) == find_weights("owner/name")


def test_cancelling_ends_at_once_and_the_next_time_goes_on(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults[FIRST] = [Fault("stall", after_bytes=2_000_000)]
    plan = plan_fetch("owner/name")
    told: list[FetchProgress] = []
    assert fetch(plan, told.append, lambda: told[-1].done_bytes >= plan.total_bytes - 1_000_000) is None
    assert not [each for each in threading.enumerate() if each.name.startswith("fetching")]
    with pytest.raises(TunewrightError, match="Model not found"):
        find_model("owner/name")
    again = plan_fetch("owner/name")
    assert again.missing_bytes == 1_000_000
    assert fetch(again) is not None
    assert hub_server.gets(FIRST)[-1].headers["range"] == "bytes=2000000-2999999"
    assert (find_weights("owner/name") / FIRST).read_bytes() == WEIGHTS


def test_a_part_of_something_else_is_noticed(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    plan = plan_fetch("owner/name")
    plan.repository.blobs.mkdir(parents=True)
    for number, each in enumerate(plan.files):
        (plan.repository.blobs / f"{each.blob}.incomplete").write_bytes(b"?" * (each.size_bytes + 1 - number % 3))
    fetch(plan)
    assert (find_weights("owner/name") / FIRST).read_bytes() == WEIGHTS


def test_two_processes_share_the_work(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    plan = plan_fetch("owner/name")
    folders: list[Path | None] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(plan))) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert folders == [find_weights("owner/name")] * 2
    assert len(hub_server.gets(FIRST)) == 1


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "No token is in use"), (TOKEN, "The token in use does not belong")],
    ids=["none", "other"],
)
def test_a_gated_model_says_how_to_get_it(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    hub_server.model("owner/name", small_model(), gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
        hub_server.known_tokens.add(token)
    with pytest.raises(TunewrightError, match="Gated model") as caught:
        plan_fetch("owner/name")
    told = str(caught.value)
    assert said in told and f"{hub_server.url}/owner/name" in told and "hf auth login" in told
    assert TOKEN not in told
    assert not hub_server.gets(FIRST)


def test_a_gated_model_comes_to_those_who_may_and_the_store_never_sees_the_token(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.model("owner/name", small_model(), gated=True)
    hub_server.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(plan_fetch("owner/name")) == find_weights("owner/name")
    assert all(each.headers.get("authorization") == f"Bearer {TOKEN}" for each in hub_server.seen if not each.store)
    stored = [each for each in hub_server.seen if each.store]
    assert stored and not any("authorization" in each.headers for each in stored)


def test_no_page_holds_a_token(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.model("owner/name", small_model())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_server.known_tokens.add(TOKEN)
    echo = json.dumps({"error": f"Bearer {TOKEN} and hf_zyxwvutsrqponmlkji are not welcome"}).encode()
    for status in (400, 403, 500):
        hub_server.faults["api"] = [Fault("status", status, body=echo)] * 20
        with pytest.raises(TunewrightError) as caught:
            plan_fetch("owner/name")
        assert "are not welcome" in str(caught.value)
        assert "hf_" not in str(caught.value) and "Bearer" not in str(caught.value)


def test_a_token_that_the_hub_does_not_know(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.model("owner/name", small_model())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(TunewrightError, match="Token refused") as caught:
        plan_fetch("owner/name")
    assert TOKEN not in str(caught.value)


def test_a_name_that_the_hub_does_not_know_has_its_nearest_here(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    fetch(plan_fetch("owner/name").description)
    with pytest.raises(TunewrightError, match=r"No such model on the Hub.*Did you mean owner/name, which is here\?"):
        plan_fetch("owner/nam")
    with pytest.raises(TunewrightError, match=r"No such data set on the Hub.*A model of this name is here"):
        plan_fetch("owner/name", "dataset")
    with pytest.raises(TunewrightError, match=r"Revision not found.*'v9'"):
        plan_fetch("owner/name", revision="v9")
    for name in ("name", "a/b/c", "../x", "owner/na me", "x\x1b[2J/y"):
        with pytest.raises(TunewrightError, match="Not a name on the Hub") as caught:
            plan_fetch(name)
        assert "\x1b" not in str(caught.value)
    with pytest.raises(TunewrightError, match="Not a revision"):
        plan_fetch("owner/name", revision="../../x")


def test_a_busy_hub_is_asked_again_and_then_told(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults["api"] = [Fault("status", 500), Fault("status", 429, headers={"Retry-After": "0"})]
    hub_server.faults["config.json"] = [Fault("status", 429, headers={"ratelimit": '"api";r=0;t=0'})]
    plan = plan_fetch("owner/name")
    hub_server.faults["config.json"] = [Fault("status", 429, headers={"Retry-After": "600"})]
    with pytest.raises(TunewrightError, match="Too many requests"):
        fetch(plan)
    hub_server.faults["api"] = [Fault("status", 502)] * 6
    with pytest.raises(TunewrightError, match=r"The Hub has a problem.*502"):
        plan_fetch("owner/name")


def test_a_line_that_breaks_again_and_again_is_told(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults[FIRST] = [Fault("drop")] * 6
    with pytest.raises(TunewrightError, match=r"No way to the Hub.*what has arrived stays"):
        fetch(plan_fetch("owner/name"))
    assert len(hub_server.gets(FIRST)) == 6


def test_a_hub_that_falls_silent_is_told(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.model("owner/name", small_model())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub_server.faults["config.json"] = [Fault("stall")] * 6
    with pytest.raises(TunewrightError, match="The Hub does not answer"):
        fetch(plan_fetch("owner/name"))


@pytest.mark.parametrize(
    ("address", "title"),
    [
        ("http://nowhere.invalid", "No network"),
        ("http://127.0.0.1:1", "No way to the Hub"),
        ("ftp://mirror", "Not an address"),
        ("http://user:secret@127.0.0.1:1", "No way to the Hub"),
    ],
)  # fmt: skip
def test_no_way_to_the_hub_is_told(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, address: str, title: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    with pytest.raises(TunewrightError, match=title) as caught:
        plan_fetch("owner/name")
    assert "secret" not in str(caught.value)


def test_a_page_that_is_not_the_hubs_is_told(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    for body in (b"<html>Please log in</html>", b"[]", b'{"sha": "../../x"}', b'{"sha": 3}'):
        hub_server.faults["api"] = [Fault("status", 200, body=body)]
        with pytest.raises(TunewrightError, match="Not the Hub"):
            plan_fetch("owner/name")


@pytest.mark.parametrize("path", ["../../../evil.json", "/etc/evil.json", "a\x1b[2J.json", "a\\b.json", "x//y.json"])
def test_a_list_that_leads_out_of_the_cache_is_refused(hub_server: HubServer, path: str) -> None:
    hub_server.model("owner/name", {**small_model(), path: b"{}"})
    with pytest.raises(TunewrightError, match="Not a sound list of files") as caught:
        plan_fetch("owner/name")
    assert "\x1b" not in str(caught.value)


def test_offline_only_the_cache_is_asked(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.model("owner/name", small_model())
    fetch(plan_fetch("owner/name"))
    hub_server.seen.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_weights("owner/name").is_dir()
    with pytest.raises(TunewrightError, match=r"The Hub is switched off.*HF_HUB_OFFLINE"):
        plan_fetch("owner/other")
    assert hub_server.seen == []


def test_a_full_disk_is_told_before_the_first_byte(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.model("owner/name", small_model())
    plan = plan_fetch("owner/name")
    hub_server.seen.clear()
    monkeypatch.setattr(fetching, "MARGIN_BYTES", 10**18)
    with pytest.raises(TunewrightError, match=r"Not enough space on the disk.*HF_HOME"):
        fetch(plan)
    assert hub_server.seen == []


def test_a_cache_that_cannot_be_written_is_told(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.model("owner/name", small_model())
    (tmp_path / "hf").write_text("a file where the cache's folder should be")
    with pytest.raises(TunewrightError, match="The file system refused"):
        fetch(plan_fetch("owner/name"))


def test_a_disk_that_fills_up_meanwhile_is_told() -> None:
    error = OSError(28, "No space left on device")
    assert hub_errors.explain_disk(error).title == "The disk is full"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("config.json", "pytorch_model.bin"), "only as pickle files"),
        (("config.json", "original/model.safetensors"), "Model without safetensors"),
    ],
    ids=["pickle", "below"],
)
def test_a_model_without_safetensors_is_refused(hub_server: HubServer, files: tuple[str, ...], said: str) -> None:
    hub_server.model("owner/name", dict.fromkeys(files, b"x"))
    with pytest.raises(TunewrightError, match=said):
        plan_fetch("owner/name")
    assert not [each for each in hub_server.seen if "/resolve/" in each.path]


CARD = b"""---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*.jsonl
- config_name: socratic
  data_files:
  - split: train
    path: ["socratic/train-*"]
dataset_info:
- config_name: main
---
# Sums
"""
SETS = {
    "README.md": CARD,
    "main/train-00000-of-00002.jsonl": ROWS,
    "main/train-00001-of-00002.jsonl": ROWS * 2,
    "main/test-00000-of-00001.jsonl": ROWS * 3,
    "socratic/train-00000-of-00001.jsonl": ROWS * 4,
    "load.py": b"import os",
    "cache.pkl": b"pickle",
}


def names(source: str, split: str = "train") -> list[str]:
    return ["/".join(path.parts[-2:]) for path in find_data(source, split)]


def test_one_configuration_and_split_is_fetched_and_found_again(hub_server: HubServer) -> None:
    hub_server.data("owner/sums", SETS)
    with pytest.raises(TunewrightError, match=r"2 data sets in one: main, socratic\..*owner/sums:main"):
        plan_fetch("owner/sums", "dataset")
    with pytest.raises(TunewrightError, match=r"no configuration 'socrates'.*Did you mean owner/sums:socratic\?"):
        plan_fetch("owner/sums:socrates", "dataset")
    with pytest.raises(TunewrightError, match="no split 'test' in its configuration 'socratic'; it has train"):
        plan_fetch("owner/sums:socratic", "dataset", split="test")
    assert fetch(plan_fetch("owner/sums:main", "dataset")) is not None
    assert names("owner/sums:main") == ["main/train-00000-of-00002.jsonl", "main/train-00001-of-00002.jsonl"]
    assert [each.path for each in hub_server.seen if each.store and "main/train" not in each.path] == []
    with pytest.raises(
        TunewrightError, match=r"Data not whole.*tunewright fetch owner/sums:main --dataset --split test"
    ):
        find_data("owner/sums:main", "test")
    with pytest.raises(TunewrightError, match="Several configurations"):
        find_data("owner/sums")
    assert fetch(plan_fetch("owner/sums:socratic", "dataset")) is not None
    assert names("owner/sums:socratic") == ["socratic/train-00000-of-00001.jsonl"]


def test_without_configurations_a_split_is_found_by_names_and_never_taken_for_another(hub_server: HubServer) -> None:
    repo = hub_server.data("owner/rows", {"README.md": b"# Rows", "train.jsonl": ROWS, "test.jsonl": ROWS, "x.py": b""})
    fetch(plan_fetch("owner/rows", "dataset"))
    assert [each.name for each in find_data("owner/rows")] == ["train.jsonl"]
    with pytest.raises(TunewrightError, match="Data not whole"):
        find_data("owner/rows", "test")
    fetch(plan_fetch("owner/rows", "dataset", split="test"))
    assert [each.name for each in find_data("owner/rows", "test")] == ["test.jsonl"]
    assert [each.name for each in find_data(f"owner/rows@{repo.commit}")] == ["train.jsonl"]
    hub_server.data("owner/code", {"README.md": b"# Code", "load.py": b"import os", "x.pkl": b""})
    with pytest.raises(TunewrightError, match=r"Data set without rows.*\.md, \.pkl, \.py"):
        plan_fetch("owner/code", "dataset")


def test_a_recipe_needs_what_is_on_the_hub_and_not_here(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.data("owner/sums", SETS)
    recipe = parse_recipe(built_in()["starter-lora"], "starter-lora")
    assert needs_of(recipe) == ()
    base = recipe.base.model_copy(update={"model": "owner/name"})
    data = recipe.data.model_copy(update={"source": "owner/sums:main"})
    recipe = recipe.model_copy(update={"base": base, "data": data})
    assert [each.command for each in needs_of(recipe)] == [
        "tunewright fetch owner/name",
        "tunewright fetch owner/sums:main --dataset",
    ]
    fetch(plan_fetch("owner/name").description)
    fetch(plan_fetch("owner/sums:main", "dataset"))
    assert [each.name for each in needs_of(recipe)] == ["owner/name"]
    fetch(plan_fetch("owner/name"))
    assert needs_of(recipe) == ()
    here = recipe.model_copy(update={"base": base.model_copy(update={"model": str(starter.MODEL)})})
    assert needs_of(here) == ()


def test_an_adapter_comes_whole(hub_server: HubServer) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS, "adapter_model.bin": b"pickle"}
    hub_server.model("owner/adapter", {**files, "checkpoint-1/adapter_model.safetensors": WEIGHTS[:2000]})
    recipe = parse_recipe(built_in()["starter-lora"], "starter-lora")
    recipe = recipe.model_copy(update={"base": recipe.base.model_copy(update={"adapter": "owner/adapter"})})
    assert [each.command for each in needs_of(recipe)] == ["tunewright fetch owner/adapter"]
    plan = plan_fetch("owner/adapter")
    assert (plan.is_adapter, plan_fetch("owner/adapter").is_whole) == (True, False)
    assert {each.path for each in plan.files} == {"adapter_config.json", "adapter_model.safetensors"}
    fetch(plan.description)
    assert needs_of(recipe) != ()
    assert plan_from_cache("owner/adapter") == plan.anew
    fetch(plan)
    assert (needs_of(recipe), plan.is_whole) == ((), True)


def test_a_killed_process_leaves_a_part_that_is_gone_on_with(hub_server: HubServer) -> None:
    hub_server.model("owner/name", small_model())
    hub_server.faults[FIRST] = [Fault("stall", after_bytes=2_000_000)]
    program = "from tunewright.engine.hub.fetching import fetch, plan_fetch; fetch(plan_fetch('owner/name'))"
    child = subprocess.Popen([sys.executable, "-c", program])
    assert hub_server.stalled.wait(30)
    part = Repository("owner/name", "model").blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.incomplete"
    while part.stat().st_size < 1_900_000:
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    plan = plan_fetch("owner/name")
    assert plan.here_bytes >= 1_900_000
    fetch(plan)
    assert (find_weights("owner/name") / FIRST).read_bytes() == WEIGHTS
