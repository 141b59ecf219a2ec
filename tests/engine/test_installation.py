"""What is installed: read without importing it, and judged together with the machine."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from tunewright.engine.installation import (
    SHOWN,
    Finding,
    Installation,
    TorchBuild,
    examine,
    has_wal_reset_bug,
    inspect_installation,
)
from tunewright.engine.machine import GpuDevice, GpuProcess, Machine

H200 = GpuDevice(0, "NVIDIA H200", 140, 139, (9, 0), 0, 34, 80, 700)
SERVER = Machine("Linux 6.8", "Xeon", 16, 128, 120, 500, (H200,), "580.95.05", "1 NVIDIA GPU, driver 580.95.05.")
LAPTOP = Machine("Linux 6.8", "Ryzen", 8, 32, 20, 500, (), None, "No GPU was found.")
VERSIONS: dict[str, str | None] = {name: "1.0" for name in SHOWN} | {"trl": "1.14.2"}
WHOLE = Installation(
    python="3.11.7",
    packages=VERSIONS,
    unmet={},
    torch=TorchBuild("2.13.0", "13.0", None),
    torchvision=None,
    sqlite="3.53.1",
    sqlite_can_corrupt_wal=False,
    bytecode_missing=False,
    bytecode_forbidden=False,
    systemd_user=True,
    linger=True,
    home="/home/u/.local/share/tunewright",
    home_writable=True,
)
ON_CPU = dataclasses.replace(WHOLE, torch=TorchBuild("2.13.0+cpu", None, None), packages=VERSIONS | {"unsloth": None})


def only(findings: tuple[Finding, ...]) -> Finding:
    """The one finding that is neither fine nor known of every machine without a GPU."""
    telling = [f for f in findings if f.severity != "ok" and f.title != "Training runs on the processor"]
    assert len(telling) == 1, telling
    return telling[0]


def test_versions_are_those_of_the_metadata() -> None:
    found = inspect_installation()
    assert found.packages["textual"] == metadata.version("textual")
    assert set(SHOWN) <= found.packages.keys()
    assert found.torch is None or found.torch.version == metadata.version("torch")


def test_torchs_build_is_read_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch-2.14.1.dist-info").mkdir()
    (tmp_path / "torch-2.14.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.14.1\n"
    )
    (tmp_path / "torch").mkdir()
    version = tmp_path / "torch" / "version.py"
    for text, cuda, rocm, name in (
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "13.0", None, "CUDA 13.0"),
        ("cuda = None\nhip = '6.4.1'\n", None, "6.4.1", "ROCm 6.4.1"),
        ("cuda = None\nhip = None\n", None, None, "CPU build"),
    ):
        version.write_text(text)
        found = inspect_installation().torch
        assert found == TorchBuild("2.14.1", cuda, rocm)
        assert found.name == name
    version.unlink()
    assert inspect_installation().torch == TorchBuild("2.14.1", None, None)


def test_nothing_heavy_is_imported() -> None:
    script = """
import sys
from tunewright.engine.installation import inspect_installation
inspect_installation()
assert not {"torch", "transformers", "trl", "numpy", "textual", "huggingface_hub"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_home_that_cannot_be_written_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "not" / "made" / "yet"))
    assert inspect_installation().home_writable
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "file" / "below"))
    assert not inspect_installation().home_writable


@pytest.mark.parametrize(
    ("version", "bug"),
    [((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False),
     ((3, 52, 0), True), ((3, 53, 0), False), ((4, 0, 0), False)],
)  # fmt: skip
def test_the_wal_reset_bug_is_known_by_version(version: tuple[int, ...], bug: bool) -> None:
    assert has_wal_reset_bug(version) == bug


@pytest.mark.parametrize(("machine", "installation"), [(SERVER, WHOLE), (LAPTOP, ON_CPU)], ids=["GPU", "no GPU"])
def test_a_whole_installation_has_nothing_to_mend(machine: Machine, installation: Installation) -> None:
    findings = examine(machine, installation)
    assert {finding.severity for finding in findings} <= {"ok", "hint"}
    assert not any(finding.fix for finding in findings)


def test_the_worst_comes_first() -> None:
    full = dataclasses.replace(SERVER, disk_free_gib=0.1)
    broken = dataclasses.replace(WHOLE, bytecode_missing=True, packages=VERSIONS | {"unsloth": None})
    assert [f.severity for f in examine(full, broken)] == ["problem", "warning", "hint", "ok", "ok"]


def test_a_missing_package_makes_training_impossible() -> None:
    without = dataclasses.replace(WHOLE, packages=VERSIONS | {"trl": None}, unmet={"trl": "trl<1.17,>=1.14.2"})
    finding = only(examine(SERVER, without))
    assert (finding.severity, finding.title) == ("problem", "trl is not installed")
    assert finding.fix == "pip install 'trl<1.17,>=1.14.2'"


def test_an_untested_version_is_a_warning() -> None:
    other = dataclasses.replace(WHOLE, packages=VERSIONS | {"peft": "0.1"}, unmet={"peft": "peft<0.22,>=0.21"})
    assert only(examine(SERVER, other)).severity == "warning"


def test_without_bitsandbytes_only_qlora_is_lost() -> None:
    without = dataclasses.replace(
        WHOLE, packages=VERSIONS | {"bitsandbytes": None}, unmet={"bitsandbytes": "bitsandbytes>=0.50"}
    )
    finding = only(examine(SERVER, without))
    assert finding.severity == "warning"
    assert "QLoRA" in finding.detail


def test_trl_1_15_0_cannot_train_without_a_gpu() -> None:
    bad = VERSIONS | {"trl": "1.15.0", "unsloth": None}
    finding = only(examine(LAPTOP, dataclasses.replace(ON_CPU, packages=bad)))
    assert (finding.severity, finding.title) == ("problem", "trl 1.15.0 needs a GPU")
    assert not [f for f in examine(SERVER, dataclasses.replace(WHOLE, packages=VERSIONS | {"trl": "1.15.0"})) if f.fix]


def test_a_cpu_torch_beside_a_gpu_is_told() -> None:
    findings = examine(SERVER, dataclasses.replace(WHOLE, torch=ON_CPU.torch))
    assert [f.title for f in findings if f.severity == "warning"] == ["torch cannot use the GPU"]
    assert any(f.title == "Unsloth is installed but cannot be used" and "CUDA" in f.detail for f in findings)


def test_a_driver_older_than_torchs_cuda_is_told() -> None:
    old = dataclasses.replace(SERVER, driver="535.183.01")
    assert only(examine(old, WHOLE)).title == "The driver is old for CUDA 13.0"
    assert not [f for f in examine(old, dataclasses.replace(WHOLE, torch=TorchBuild("2.11.0", "12.8", None))) if f.fix]


def test_a_torchvision_for_cuda_breaks_a_torch_without_it() -> None:
    broken = dataclasses.replace(ON_CPU, torchvision="0.28.0")
    assert only(examine(LAPTOP, broken)).severity == "problem"
    for machine, installation in (
        (LAPTOP, dataclasses.replace(ON_CPU, torchvision="0.28.0+cpu")),
        (SERVER, dataclasses.replace(WHOLE, torchvision="0.28.0")),
        (dataclasses.replace(LAPTOP, system="Darwin 25.0"), broken),
    ):
        assert not [f for f in examine(machine, installation) if f.severity == "problem"]


def test_unsloth_is_missed_where_there_is_a_gpu_alone() -> None:
    without = VERSIONS | {"unsloth": None}
    finding = only(examine(SERVER, dataclasses.replace(WHOLE, packages=without)))
    assert (finding.severity, finding.fix) == ("warning", "pip install 'tunewright[gpu]'")
    finding = only(examine(LAPTOP, dataclasses.replace(ON_CPU, packages=VERSIONS)))
    assert finding.severity == "hint"
    assert "NVIDIA GPU" in finding.detail


def test_whoever_holds_the_gpu_is_named() -> None:
    holder = GpuProcess(4711, "ada", "python", 60.0)
    shared = dataclasses.replace(H200, memory_free_gib=80, processes=(holder,))
    finding = only(examine(dataclasses.replace(SERVER, gpus=(shared,)), WHOLE))
    assert "60.0 of 140.0 GiB are in use by python (ada, pid 4711)" in finding.detail
    hidden = dataclasses.replace(shared, processes=())
    assert "hidden" in only(examine(dataclasses.replace(SERVER, gpus=(hidden,)), WHOLE)).detail


def test_an_old_gpu_has_no_bfloat16() -> None:
    old = dataclasses.replace(H200, name="Tesla T4", compute_capability=(7, 5))
    assert only(examine(dataclasses.replace(SERVER, gpus=(old,)), WHOLE)).title == "GPU 0 has no bfloat16"


@pytest.mark.parametrize(("free", "severity"), [(0.2, "problem"), (5.0, "warning")])
def test_a_nearly_full_disk_is_told(free: float, severity: str) -> None:
    assert only(examine(dataclasses.replace(SERVER, disk_free_gib=free), WHOLE)).severity == severity


def test_a_home_that_cannot_be_written_makes_training_impossible() -> None:
    assert only(examine(SERVER, dataclasses.replace(WHOLE, home_writable=False))).severity == "problem"


@pytest.mark.parametrize(("forbidden", "severity"), [(True, "warning"), (False, "hint")])
def test_slow_imports_are_told(forbidden: bool, severity: str) -> None:
    slow = dataclasses.replace(WHOLE, bytecode_missing=True, bytecode_forbidden=forbidden)
    assert only(examine(SERVER, slow)).severity == severity


def test_what_surrounds_it_is_a_hint() -> None:
    assert only(examine(SERVER, dataclasses.replace(WHOLE, linger=False))).fix == "loginctl enable-linger"
    finding = only(examine(SERVER, dataclasses.replace(WHOLE, sqlite="3.40.1", sqlite_can_corrupt_wal=True)))
    assert "3.40.1" in finding.title
