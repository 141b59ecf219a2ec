"""What is installed, read from the packages' metadata without importing them, and what it means on this machine."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from ..foundation.home import home
from ..foundation.text import one_line
from .machine import GpuDevice, Machine

Severity = Literal["ok", "hint", "warning", "problem"]
SHOWN = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "unsloth",
    "textual",
    "sqlite-utils",
    "huggingface-hub",
)
"""The packages whose versions people ask for first."""
LEAST_DISK_GIB = 0.5
LITTLE_DISK_GIB = 10.0
BUSY_SHARE = 0.1
"""A GPU counts as shared when others hold more than this share of its memory."""
OLDEST_DRIVERS = {13: 580, 12: 525, 11: 450}
"""CUDA's major version to the oldest driver branch that runs it (CUDA release notes, table of minor compatibility)."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """Which processors the installed torch was built for, from its own version file."""

    version: str
    cuda: str | None
    """The CUDA version, such as `12.8`; None for a build that does not know NVIDIA's GPUs."""
    rocm: str | None

    @property
    def name(self) -> str:
        """The build in a word or two."""
        if self.cuda:
            return f"CUDA {self.cuda}"
        return f"ROCm {self.rocm}" if self.rocm else "CPU build"


@dataclass(frozen=True, slots=True)
class Installation:
    """The software that a run would use; None marks what is not there."""

    python: str
    packages: dict[str, str | None]
    """Every package that Tunewright needs or can use, and its version."""
    unmet: dict[str, str]
    """Packages outside the range that Tunewright was tested with, or missing, and that range."""
    torch: TorchBuild | None
    torchvision: str | None
    sqlite: str
    sqlite_can_corrupt_wal: bool
    """Whether this SQLite has the WAL-reset bug (3.7.0 to 3.51.2, and 3.52)."""
    bytecode_missing: bool
    """Whether the training packages are compiled anew at every start."""
    bytecode_forbidden: bool
    """Whether PYTHONDONTWRITEBYTECODE keeps it so."""
    systemd_user: bool
    """Whether systemd runs a manager for this user, which a run can be handed to."""
    linger: bool
    """Whether that manager outlives the last login."""
    home: str
    home_writable: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth knowing about the machine and what is installed on it."""

    severity: Severity
    """`problem` makes training impossible; `warning` makes it worse than it could be; `hint` is good to know."""
    title: str
    detail: str
    fix: str = ""
    """The command that mends it."""


def inspect_installation() -> Installation:
    """Return what is installed; nothing heavy is imported and nothing is run."""
    requirements = _requirements()
    packages = {name: _version(name) for name in sorted({*SHOWN, *requirements})}
    unmet = {
        name: str(requirement)
        for name, requirement in requirements.items()
        if (found := packages[name]) is None or not requirement.specifier.contains(found, prereleases=True)
    }
    folder = home()
    user = os.environ.get("USER") or str(os.getuid())
    return Installation(
        python=platform.python_version(),
        packages=packages,
        unmet=unmet,
        torch=_torch_build(),
        torchvision=_version("torchvision"),
        sqlite=sqlite3.sqlite_version,
        sqlite_can_corrupt_wal=has_wal_reset_bug(sqlite3.sqlite_version_info),
        bytecode_missing=_lacks_bytecode("transformers"),
        bytecode_forbidden=bool(os.environ.get("PYTHONDONTWRITEBYTECODE")),
        systemd_user=Path(f"/run/user/{os.getuid()}/systemd/private").exists(),
        linger=Path("/var/lib/systemd/linger", user).exists(),
        home=str(folder),
        home_writable=_is_writable(folder),
    )


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Tell whether SQLite `version` can corrupt a WAL file that two connections write (fixed in 3.51.3 and 3.53.0)."""
    return (3, 7, 0) <= version < (3, 51, 3) or (3, 52) <= version < (3, 53)


def examine(machine: Machine, installation: Installation) -> tuple[Finding, ...]:
    """Return what the two mean together, the worst first."""
    findings = [
        *_packages(installation),
        *_torch(machine, installation),
        *_unsloth(machine, installation),
        *_gpus(machine),
        *_places(machine, installation),
        *_surroundings(installation),
    ]
    order: tuple[Severity, ...] = ("problem", "warning", "hint", "ok")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def _packages(installation: Installation) -> list[Finding]:
    findings: list[Finding] = []
    for name, wanted in installation.unmet.items():
        found = installation.packages[name]
        severity: Severity = "warning" if found or name == "bitsandbytes" else "problem"
        if found is None:
            title, detail = f"{name} is not installed", f"Training needs {wanted}."
            if name == "bitsandbytes":
                detail = "Without it there is no QLoRA and no 8-bit AdamW."
        else:
            title, detail = f"{name} {found} is not a tested version", f"Tunewright is tested with {wanted}."
        findings.append(Finding(severity, title, detail, f"pip install '{wanted}'"))
    if not findings:
        findings.append(Finding("ok", "Everything that training needs is installed", "In versions tested together."))
    return findings


def _torch(machine: Machine, installation: Installation) -> list[Finding]:
    build, findings = installation.torch, list[Finding]()
    if build is None:
        return findings
    if machine.gpus and build.cuda is None:
        findings.append(
            Finding(
                "warning",
                "torch cannot use the GPU",
                f"torch {build.version} is a {build.name}: training would run on the processor.",
                "pip install --force-reinstall torch --index-url https://pypi.org/simple",
            )
        )
    if machine.gpus and build.cuda and machine.driver:
        oldest = OLDEST_DRIVERS.get(int(build.cuda.partition(".")[0]))
        if oldest is not None and _leading_number(machine.driver) < oldest:
            findings.append(
                Finding(
                    "warning",
                    f"The driver is old for CUDA {build.cuda}",
                    f"torch {build.version} wants a driver from {oldest} on, and this is {machine.driver}. Update the "
                    "driver, or install a torch that is built for an older CUDA (pytorch.org/get-started lists them).",
                )
            )
    if not machine.gpus and installation.packages["trl"] == "1.15.0":
        findings.append(
            Finding(
                "problem",
                "trl 1.15.0 needs a GPU",
                "Its loss exists for GPUs only; without one, training ends at the first step.",
                "pip install 'trl==1.14.2'",
            )
        )
    plain = build.cuda is None and build.rocm is None and machine.system.startswith("Linux")
    if plain and installation.torchvision and "+cpu" not in installation.torchvision:
        findings.append(
            Finding(
                "problem",
                "torchvision does not fit torch",
                f"torchvision {installation.torchvision} was built for CUDA and torch {build.version} was not: "
                "transformers cannot be imported beside the two.",
                "pip uninstall -y torchvision",
            )
        )
    return findings


def _unsloth(machine: Machine, installation: Installation) -> list[Finding]:
    version = installation.packages["unsloth"]
    usable = bool(machine.gpus) and installation.torch is not None and installation.torch.cuda is not None
    if version is None and machine.gpus:
        return [
            Finding(
                "warning",
                "Unsloth is not installed",
                "Training works without it, but takes more memory and time on this GPU.",
                "pip install 'tunewright[gpu]'",
            )
        ]
    if version is not None and not usable:
        needs = "a torch built for CUDA" if machine.gpus else "an NVIDIA GPU"
        return [Finding("hint", "Unsloth is installed but cannot be used", f"It needs {needs}; plain TRL trains here.")]
    return []


def _gpus(machine: Machine) -> list[Finding]:
    if not machine.gpus:
        return [Finding("hint", "Training runs on the processor", machine.accelerator_note)]
    findings: list[Finding] = []
    for gpu in machine.gpus:
        if not gpu.supports_bf16:
            findings.append(
                Finding("hint", f"GPU {gpu.index} has no bfloat16", f"{gpu.name} trains in float16 with loss scaling.")
            )
        used = gpu.memory_total_gib - gpu.memory_free_gib
        if used > BUSY_SHARE * gpu.memory_total_gib:
            findings.append(
                Finding(
                    "warning",
                    f"GPU {gpu.index} is shared",
                    f"{used:.1f} of {gpu.memory_total_gib:.1f} GiB are in use{_holders(gpu)}.",
                )
            )
    if not findings:
        findings.append(Finding("ok", f"{machine.short_name} is free", machine.accelerator_note))
    return findings


def _holders(gpu: GpuDevice) -> str:
    if not gpu.processes:
        return " by processes that are hidden from this user or container"
    return " by " + ", ".join(f"{process.name} ({process.user}, pid {process.pid})" for process in gpu.processes)


def _places(machine: Machine, installation: Installation) -> list[Finding]:
    findings: list[Finding] = []
    if not installation.home_writable:
        findings.append(
            Finding(
                "problem",
                "The data folder cannot be written",
                f"Runs and the registry are kept in {installation.home}.",
                "export TUNEWRIGHT_HOME=/a/folder/of/your/own",
            )
        )
    free = machine.disk_free_gib
    if free < LITTLE_DISK_GIB:
        findings.append(
            Finding(
                "problem" if free < LEAST_DISK_GIB else "warning",
                "The disk is nearly full",
                f"{free:.1f} GiB are free where the runs are kept; a merged 7B model alone takes 13 GiB.",
                "export TUNEWRIGHT_HOME=/a/folder/on/a/larger/disk",
            )
        )
    return findings


def _surroundings(installation: Installation) -> list[Finding]:
    findings: list[Finding] = []
    if installation.bytecode_missing:
        why = "PYTHONDONTWRITEBYTECODE is set" if installation.bytecode_forbidden else "no run has compiled them yet"
        findings.append(
            Finding(
                "warning" if installation.bytecode_forbidden else "hint",
                "Starting a run takes three times as long as it could",
                f"The training packages are not compiled to bytecode: {why}.",
                "env -u PYTHONDONTWRITEBYTECODE python -c 'from trl import SFTTrainer'",
            )
        )
    if installation.sqlite_can_corrupt_wal:
        findings.append(
            Finding(
                "hint",
                f"SQLite {installation.sqlite} has the WAL-reset bug",
                "Tunewright is not touched by it: its registry uses a rollback journal.",
            )
        )
    if installation.systemd_user and not installation.linger:
        findings.append(
            Finding(
                "hint",
                "systemd may end your processes at logout",
                "Where it does, runs go on only if your user manager lingers.",
                "loginctl enable-linger",
            )
        )
    return findings


def _requirements() -> dict[str, Requirement]:
    """Return what Tunewright declares that it needs here, by package."""
    try:
        declared = metadata.requires("tunewright") or []
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return {}
    parsed = map(Requirement, declared)
    return {r.name: r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})}


def _version(name: str) -> str | None:
    try:
        return one_line(metadata.version(name), 40)
    except metadata.PackageNotFoundError:
        return None


def _torch_build() -> TorchBuild | None:
    """Read torch's version.py as text, since the wheels on PyPI do not tell their CUDA version in their name."""
    version = _version("torch")
    if version is None:
        return None
    values: dict[str, str] = {}
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
        values = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *'([\d.]+)", text, re.MULTILINE))
    except OSError:  # a build of one's own; its version may still tell
        if tag := re.fullmatch(r"cu(\d+)(\d)", Version(version).local or ""):
            values = {"cuda": f"{tag[1]}.{tag[2]}"}
    return TorchBuild(version, values.get("cuda"), values.get("hip"))


def _lacks_bytecode(package: str) -> bool:
    try:
        folder = Path(str(metadata.distribution(package).locate_file(package)))
    except metadata.PackageNotFoundError:
        return False
    return folder.is_dir() and not (folder / "__pycache__").is_dir()


def _is_writable(folder: Path) -> bool:
    """Tell whether `folder` can be written, or made where it does not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _leading_number(version: str) -> int:
    digits = re.match(r"\d+", version)
    return int(digits[0]) if digits else 0
