"""The machine: its GPUs and who uses them, its processor, memory and disk."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..foundation.text import one_line
from ..foundation.units import GIB


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU, or of the machine."""

    pid: int
    user: str
    name: str
    memory_gib: float | None
    command: str = ""
    """Its program and what that runs, without arguments, which may hold secrets; empty where the system does not tell."""

    @property
    def said(self) -> str:
        """Whose it is and what, in a few words."""
        memory = "an unknown amount" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB"
        return f"{memory} by {self.command or self.name} of {self.user}, pid {self.pid}"


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One NVIDIA GPU as NVML reports it at this moment; None marks what the driver does not tell."""

    index: int
    name: str
    memory_total_gib: float
    memory_free_gib: float
    compute_capability: tuple[int, int]
    utilisation_percent: float | None
    temperature_celsius: float | None
    power_watts: float | None
    power_limit_watts: float | None
    processes: tuple[GpuProcess, ...] = ()

    @property
    def supports_bf16(self) -> bool:
        """Whether bfloat16 is native: compute capability 8.0 (Ampere) or newer."""
        return self.compute_capability >= (8, 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run can use."""

    system: str
    cpu: str
    cores: int
    """Cores that this process may run on."""
    memory_total_gib: float
    memory_free_gib: float
    disk_free_gib: float
    """Free space where the runs are kept."""
    gpus: tuple[GpuDevice, ...]
    driver: str | None
    """The NVIDIA driver's version, None without one."""
    accelerator_note: str
    """One sentence on what was looked for and found: NVIDIA, AMD, Apple or none."""

    @property
    def short_name(self) -> str:
        """The GPUs, or else the processor, in a few words."""
        if not self.gpus:
            return f"{self.cpu}, {self.cores} cores, no GPU"
        name = next(iter(self.gpus)).name
        return name if len(self.gpus) == 1 else f"{len(self.gpus)}× {name}"

    @property
    def freest_gpu(self) -> GpuDevice:
        """The GPU with the most free memory, which a run takes; there must be one."""
        return max(self.gpus, key=lambda each: each.memory_free_gib)


def inspect_machine(runs: Path) -> Machine:
    """Return the machine as it is now; `runs` says which disk matters."""
    import psutil

    memory = psutil.virtual_memory()
    gpus, driver, note = _find_gpus()
    folder = runs
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_total_gib=memory.total / GIB,
        memory_free_gib=memory.available / GIB,
        disk_free_gib=shutil.disk_usage(folder).free / GIB,
        gpus=gpus,
        driver=driver,
        accelerator_note=note,
    )


@contextlib.contextmanager
def _nvml() -> Generator[Any]:
    """Yield the NVML binding, started; yields None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _find_gpus() -> tuple[tuple[GpuDevice, ...], str | None, str]:
    with _nvml() as nvml:
        if nvml is None:
            return (), None, _other_accelerator()
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        listed = nvml.nvmlDeviceGetCount()
        allowed = [index for index in range(listed) if _is_allowed(nvml, index)]
        gpus = tuple(gpu for index in allowed if (gpu := _describe(nvml, index)) is not None)
        if not gpus:
            if not listed:
                found = "it sees no GPU"
            elif not allowed:
                found = f"CUDA_VISIBLE_DEVICES leaves none of its {listed} GPUs"
            else:
                found = f"none of its {listed} GPUs answers"
            return (), driver, f"An NVIDIA driver is loaded, but {found}."
        silent = f"; {listed - len(gpus)} more do not answer" if listed > len(gpus) else ""
        return gpus, driver, f"{len(gpus)} NVIDIA GPU{'s' if len(gpus) > 1 else ''}, driver {driver}{silent}."


def _is_allowed(nvml: Any, index: int) -> bool:
    """Tell whether CUDA_VISIBLE_DEVICES leaves this GPU to us; as CUDA does, it is read up to the first word that is no GPU.

    Parts of a GPU (MIG) cannot be told from its number: with any of them named, all GPUs are looked at.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = [] if named is None else [word.strip() for word in named.split(",")]
    if named is None or any(word.startswith("MIG-") for word in words):
        return True
    for word in words:
        if word.isdecimal():
            if int(word) == index:
                return True
        elif word.startswith("GPU-"):
            with contextlib.suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(word):
                    return True
        else:
            break
    return False


def _describe(nvml: Any, index: int) -> GpuDevice | None:
    """Return GPU `index`, None when NVML lists it but it does not answer, as after it fell off the bus."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError:
        return None

    def ask(function: str, *arguments: Any) -> Any:
        """Return what NVML answers, None where this card or driver does not tell."""
        try:
            return getattr(nvml, function)(handle, *arguments)
        except nvml.NVMLError:
            return None

    utilisation = ask("nvmlDeviceGetUtilizationRates")
    power, limit = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetEnforcedPowerLimit")
    return GpuDevice(
        index=index,
        name=_text(name),
        memory_total_gib=memory.total / GIB,
        memory_free_gib=memory.free / GIB,
        compute_capability=_pair(ask("nvmlDeviceGetCudaComputeCapability")),
        utilisation_percent=None if utilisation is None else float(utilisation.gpu),
        temperature_celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_watts=None if power is None else power / 1000,
        power_limit_watts=None if limit is None else limit / 1000,
        processes=_processes(
            [
                *(ask("nvmlDeviceGetComputeRunningProcesses") or ()),
                *(ask("nvmlDeviceGetGraphicsRunningProcesses") or ()),
            ],
            memory.total,
        ),
    )


def _pair(capability: Any) -> tuple[int, int]:
    return (int(capability[0]), int(capability[1])) if capability else (0, 0)


def _processes(entries: list[Any], total_bytes: int) -> tuple[GpuProcess, ...]:
    """Return who holds memory of a card, the most first; one that computes and draws is listed once."""
    found: dict[int, GpuProcess] = {}
    for entry in entries:
        held = entry.usedGpuMemory
        known = (
            isinstance(held, int | float) and held <= total_bytes
        )  # a driver that cannot tell gives the largest number
        found.setdefault(entry.pid, _process(entry.pid, held / GIB if known else None))
    return tuple(sorted(found.values(), key=lambda each: -(each.memory_gib or 0.0)))


def _process(pid: int, memory_gib: float | None) -> GpuProcess:
    import psutil

    user, name, command = "?", "?", ""
    with contextlib.suppress(psutil.Error):  # it may have ended, or live in another container
        process = psutil.Process(pid)
        name = one_line(process.name(), 40)
        user = one_line(process.username(), 40)
        command = command_words(process.cmdline())
    return GpuProcess(pid, user, name, memory_gib, command)


def command_words(arguments: list[str]) -> str:
    """Return what a command line runs: the program, and the script or module; no more, for the rest may hold secrets."""
    words = [one_line(word, 200) for word in arguments[:64]]
    if not any(words):
        return ""
    program = Path(words[0]).name
    for number, word in enumerate(words[1:], start=1):
        if word == "-m" and number + 1 < len(words):
            module = words[number + 1]
            if module.startswith("tunewright.engine.training.") and (run := _run_named(words[number + 2 :])):
                return f"tunewright, run {run}"
            return one_line(f"{program} -m {module}", 80)
        if word == "-c":
            break
        if not word.startswith("-"):
            script = Path(word).name
            return one_line(f"{program} {script}", 80) if script.endswith((".py", ".sh")) else one_line(program, 80)
    return one_line(program, 80)


def _run_named(words: list[str]) -> str:
    """Return the id of the run whose folder a trainer's arguments name."""
    return next((one_line(Path(word).name, 60) for word in words if Path(word).parent.name == "runs"), "")


def largest_processes(most: int = 3) -> tuple[GpuProcess, ...]:
    """Return the processes that hold the most of the machine's memory (resident, GiB), the largest first."""
    import psutil

    found: list[tuple[int, int]] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.append((process.memory_info().rss, process.pid))
    return tuple(_process(pid, held / GIB) for held, pid in sorted(found, reverse=True)[:most])


def sample_gpus() -> tuple[GpuDevice, ...]:
    """Return the GPUs as they are now, without looking at anything else."""
    return _find_gpus()[0]


def _text(value: str | bytes) -> str:
    return one_line(value.decode("utf-8", "replace") if isinstance(value, bytes) else value, 80)


@cache
def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return one_line(line.partition(":")[2], 80)
    return platform.processor() or platform.machine()


def _other_accelerator() -> str:
    """Say honestly what stands where an NVIDIA GPU would."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "An Apple GPU: Tunewright trains on the processor here; it does not use Metal yet."
    if Path("/dev/kfd").exists():
        return "An AMD GPU (ROCm): Tunewright does not use it yet and trains on the processor."
    if Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi"):
        return "An NVIDIA driver is installed, but NVML does not answer; `nvidia-smi` may say why."
    return "No GPU was found: training runs on the processor, which suits small models only."
