"""The machine: told as it is, with a driver (faked where the binding begins) and without one."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from tunewright.engine import machine
from tunewright.engine.machine import inspect_machine, sample_gpus
from tunewright.foundation.units import GIB


class NVMLError(Exception):
    """What the binding raises for everything that a card or driver does not tell."""


class Driver(SimpleNamespace):
    """A binding that answers like NVML for `gpus`, each a table of answers; what is absent is not supported."""

    NVML_TEMPERATURE_GPU = 0
    NVMLError = NVMLError

    def __init__(self, *gpus: dict[str, Any], version: str | bytes = "580.95.05") -> None:
        super().__init__(gpus=gpus, version=version, open=0)

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self.version

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        question = name.removeprefix("nvmlDeviceGet")

        def answer(handle: int, *arguments: Any) -> Any:
            answers = self.gpus[handle]
            if question not in answers:
                raise NVMLError("Not Supported")
            return answers[question]

        return answer


H200 = {
    "Name": "NVIDIA H200",
    "MemoryInfo": SimpleNamespace(total=140 * GIB, free=100 * GIB, used=40 * GIB),
    "CudaComputeCapability": (9, 0),
    "UtilizationRates": SimpleNamespace(gpu=37, memory=12),
    "Temperature": 34,
    "PowerUsage": 81_500,
    "EnforcedPowerLimit": 700_000,
    "ComputeRunningProcesses": [],
}
SILENT = {"Name": b"Tesla\x1b[31m V100", "MemoryInfo": H200["MemoryInfo"]}


def fail() -> None:
    raise NVMLError("Driver Not Loaded")


def answer_with(monkeypatch: pytest.MonkeyPatch, driver: Any) -> Any:
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    return driver


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine really has stays out of these tests."""
    answer_with(monkeypatch, SimpleNamespace(nvmlInit=fail, NVMLError=NVMLError))


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = answer_with(monkeypatch, Driver(H200))
    found = inspect_machine(tmp_path)
    (gpu,) = found.gpus
    assert (gpu.name, gpu.memory_total_gib, gpu.memory_free_gib) == ("NVIDIA H200", 140, 100)
    assert (gpu.compute_capability, gpu.supports_bf16) == ((9, 0), True)
    assert (gpu.utilisation_percent, gpu.temperature_celsius) == (37, 34)
    assert (gpu.power_watts, gpu.power_limit_watts) == (81.5, 700)
    assert (found.driver, found.short_name) == ("580.95.05", "NVIDIA H200")
    assert found.accelerator_note == "1 NVIDIA GPU, driver 580.95.05."
    assert driver.open == 0, "NVML was left open"


def test_what_the_driver_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, Driver(SILENT, version=b"470.1"))
    (gpu,) = sample_gpus()
    assert gpu.name == "Tesla V100"
    assert not gpu.supports_bf16
    assert (gpu.utilisation_percent, gpu.temperature_celsius, gpu.power_watts, gpu.power_limit_watts) == (None,) * 4
    assert gpu.processes == ()


def test_several_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_with(monkeypatch, Driver(H200, H200))
    found = inspect_machine(tmp_path)
    assert [gpu.index for gpu in found.gpus] == [0, 1]
    assert found.short_name == "2× NVIDIA H200"
    assert found.accelerator_note.startswith("2 NVIDIA GPUs")


@pytest.mark.parametrize(
    ("named", "left"),
    [
        (None, [0, 1, 2]), ("1", [1]), ("2, 0", [0, 2]), ("", []), ("-1", []), ("1,-1,2", [1]), ("none", []),
        ("GPU-b", [1]), ("GPU-a1,2", [0, 2]), ("MIG-GPU-a1/1/0", [0, 1, 2]),
    ],
)  # fmt: skip
def test_gpus_that_the_environment_hides_are_left_alone(
    named: str | None, left: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    answer_with(monkeypatch, Driver(H200 | {"UUID": "GPU-a1"}, H200 | {"UUID": b"GPU-b2"}, H200))
    found = inspect_machine(tmp_path)
    assert [gpu.index for gpu in found.gpus] == left
    if not left:
        assert "CUDA_VISIBLE_DEVICES leaves none of its 3 GPUs" in found.accelerator_note


def test_whoever_uses_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB)
    gone = SimpleNamespace(pid=2**22 + 1, usedGpuMemory=None)
    answer_with(monkeypatch, Driver(H200 | {"ComputeRunningProcesses": [ours, gone]}))
    (gpu,) = sample_gpus()
    here, elsewhere = gpu.processes
    assert (here.pid, here.name, here.user) == (os.getpid(), psutil.Process().name(), psutil.Process().username())
    assert here.memory_gib == 3
    assert (elsewhere.name, elsewhere.user, elsewhere.memory_gib) == ("?", "?", None)


def test_a_driver_without_gpus_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_with(monkeypatch, Driver())
    found = inspect_machine(tmp_path)
    assert (found.gpus, found.driver) == ((), "580.95.05")
    assert "sees no GPU" in found.accelerator_note


def test_no_driver_is_no_error(tmp_path: Path) -> None:
    found = inspect_machine(tmp_path)
    assert (found.gpus, found.driver) == ((), None)
    assert found.short_name.endswith("cores, no GPU")


@pytest.mark.parametrize(
    ("path", "told"),
    [("/dev/kfd", "AMD GPU"), ("/proc/driver/nvidia", "NVML does not answer"), ("/nowhere", "No GPU was found")],
)
def test_other_accelerators_are_named_honestly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, told: str
) -> None:
    exists = Path.exists
    pretended = {"/dev/kfd", "/proc/driver/nvidia"}
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == path if str(self) in pretended else exists(self))
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert told in inspect_machine(tmp_path).accelerator_note


def test_an_apple_gpu_is_named_honestly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert "Apple GPU" in inspect_machine(tmp_path).accelerator_note


def test_the_rest_of_the_machine_is_measured(tmp_path: Path) -> None:
    found = inspect_machine(tmp_path / "not" / "made" / "yet")
    assert 0 < found.memory_free_gib <= found.memory_total_gib
    assert found.disk_free_gib > 0
    assert found.cores >= 1
    assert found.cpu


def test_who_draws_is_named_too_and_whoever_does_both_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that cannot tell how much a process holds gives the largest number there is."""
    both, unknown = (SimpleNamespace(pid=os.getpid(), usedGpuMemory=held) for held in (2 * GIB, 2**64 - 1))
    other = SimpleNamespace(pid=os.getppid(), usedGpuMemory=5 * GIB)
    answer_with(
        monkeypatch, Driver(H200 | {"ComputeRunningProcesses": [both], "GraphicsRunningProcesses": [unknown, other]})
    )
    (gpu,) = sample_gpus()
    assert [(each.pid, each.memory_gib) for each in gpu.processes] == [(os.getppid(), 5), (os.getpid(), 2)]
    answer_with(monkeypatch, Driver(H200 | {"GraphicsRunningProcesses": [unknown]}))
    assert sample_gpus()[0].processes[0].memory_gib is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/usr/bin/python3", "-u", "/home/ada/train.py", "--token", "hf_secret"], "python3 train.py"),
        (["python", "-m", "vllm.entrypoints", "--api-key", "secret"], "python -m vllm.entrypoints"),
        (["python", "-c", "password = 'x'"], "python"),
        (["/opt/sglang", "secret"], "sglang"),
        (
            ["python", "-m", "tunewright.engine.training.trainer", "/home/ada/t/runs/20261122-x-1", "--rung", "0"],
            "tunewright, run 20261122-x-1",
        ),
        (["evil\x1b]52;c;eA==\x07", "\x1b[2Jx.py"], "evil x.py"),
        ([], ""),
        ([""], ""),
    ],
    ids=["script", "module", "code", "program", "run", "escapes", "kernel", "empty"],
)
def test_a_command_is_told_without_what_may_be_secret(arguments: list[str], said: str) -> None:
    assert machine.command_words(arguments) == said


def test_the_largest_processes_of_the_machine_are_found() -> None:
    found = machine.largest_processes(3)
    assert len(found) == 3
    held = [each.memory_gib or 0.0 for each in found]
    assert held == sorted(held, reverse=True)
    assert all(each.said for each in found)
