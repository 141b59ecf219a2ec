"""What all tests share: examples without a deadline and one thread each, for machines are shared, and a Hub on this one."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from .hub_server import HubServer

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "TUNEWRIGHT_QUEUE" not in os.environ:  # runs of these tests wait for nobody else's on this machine
    os.environ["TUNEWRIGHT_QUEUE"] = tempfile.mkdtemp(prefix="tunewright-queue-")
    atexit.register(shutil.rmtree, os.environ["TUNEWRIGHT_QUEUE"], ignore_errors=True)

gc.disable()  # until all is collected: what the tests import stays, and looking for waste in it takes a quarter of that time

LONG = (
    "engine/runs/test_life.py",
    "cli/test_demo.py",
    "engine/training/test_several_processes.py",
    "engine/test_probe.py",
    "cli/test_probe.py",
    "engine/training/test_batching.py",
    "engine/test_anatomy.py",
    "engine/runs/test_mistreated.py",
    "tui/test_snapshots.py",
    "tui/test_workbench.py",
    "tui/test_data_step.py",
    "engine/training/test_objectives.py",
    "engine/training/test_evaluation.py",
    "engine/runs/test_extend.py",
    "engine/runs/test_ladder.py",
    "engine/test_speed.py",
    "engine/test_shapes.py",
    "engine/training/test_methods.py",
    "engine/training/test_telemetry.py",
    "benchmarks/test_first_screen.py",
    "benchmarks/test_long_runs.py",
    "tui/test_wizard.py",
)
"""The modules that take longest, the longest first: what begins last is to be short, or workers wait for one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub of its own with an empty cache, for this process and its children; what is tried again is tried at once."""
    from huggingface_hub import constants

    server = HubServer()
    cache = tmp_path / "hf" / "hub"
    for name, value in {
        "HF_ENDPOINT": server.url,
        "HF_HUB_CACHE": str(cache),
        "HF_HOME": str(cache.parent),
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("tunewright.engine.hub.transfer.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("tunewright.engine.hub.transfer.LONGEST_WAIT_SECONDS", 0.01)
    yield server
    server.close()
