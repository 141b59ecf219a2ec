"""Several GPUs of one host: which rank this process is, what ranks agree on, and how they share out a training.

Each rank runs the whole trainer on its own GPU. The first one alone writes into the run; what they must decide alike,
they ask each other over the processor, where a rank may wait for hours. A process without ranks is the first of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from ....foundation.errors import TunewrightError
from ...plan import Plan
from ...runs import outcome
from ...runs.directory import RunDirectory

PATIENCE = timedelta(hours=12)
"""How long a rank waits for another over the processor: as long as a judging or a merge may take."""
STOP_SIGNAL = signal.SIGUSR1
"""What asks a rank to save and stop. TERM ends it at once: that is how torchrun takes down the ranks beside a failed one."""
FAILURE = ".failed-rank-{}.txt"
TOLD = ".told-{}"

_control: Any = None
"""The ranks' group over the processor."""


def rank() -> int:
    """Return this process's number among all; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the number of this process's GPU among those of the plan."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def ranks() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Tell whether this process is the one that writes."""
    return rank() == 0


def is_alone() -> bool:
    """Tell whether this process trains by itself."""
    return ranks() == 1


def device_of(plan: Plan) -> Any:
    """Return the torch device that this rank trains on."""
    import torch

    return torch.device("cuda", local_rank()) if plan.device == "cuda" else torch.device("cpu")


def join(plan: Plan) -> None:
    """Meet the other ranks and take this one's GPU; nothing to do for a process that trains alone.

    Raises TunewrightError when there are fewer GPUs than ranks.
    """
    global _control
    if is_alone():
        return
    import torch
    import torch.distributed as dist

    assert plan.gpus == ranks(), "the launcher starts a process for each GPU of the plan"
    if plan.device == "cuda":
        if torch.cuda.device_count() < ranks():
            raise TunewrightError(
                "GPUs are missing",
                f"The plan takes {ranks()} GPUs, and torch sees {torch.cuda.device_count()} of them.",
                "`tunewright doctor` shows why; a new plan takes what is there.",
            )
        torch.cuda.set_device(local_rank())
        dist.init_process_group("nccl", device_id=device_of(plan))
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    _control = dist.new_group(backend="gloo", timeout=PATIENCE)


def leave() -> None:
    """Wait until every rank has done its work, and part."""
    if is_alone() or _control is None:
        return
    import torch.distributed as dist

    wait()
    dist.destroy_process_group()


def wait() -> None:
    """Wait until every rank is here."""
    any_rank(False)


def any_rank(wish: bool) -> bool:
    """Tell whether any rank has the wish; every rank must ask."""
    return wish if _control is None else bool(largest(float(wish)))


def largest(value: float) -> float:
    """Return the largest of the ranks' values; every rank must ask."""
    return max(of_all_ranks(value)[0])


def total(value: int) -> int:
    """Return the sum of the ranks' values; every rank must ask."""
    return round(sum(of_all_ranks(value)[0]))


def of_all_ranks(*values: float) -> tuple[tuple[float, ...], ...]:
    """Return what all ranks have of each of `values`, by rank, in one exchange; every rank must ask."""
    if _control is None:
        return tuple((value,) for value in values)
    import torch
    import torch.distributed as dist

    own = torch.tensor(values, dtype=torch.float64)
    found = [torch.empty_like(own) for _ in range(ranks())]
    dist.all_gather(found, own, group=_control)
    return tuple(zip(*(each.tolist() for each in found), strict=True))


def log_file(run: RunDirectory) -> Path:
    """Return where this rank writes its events: every event is written once, by the first."""
    return run.events_file if is_first() else Path(os.devnull)


def is_first_to_tell(run: RunDirectory) -> bool:
    """Tell whether no other rank has told a failure yet; all meet the same one where a model is missing."""
    try:
        (run.path / TOLD.format(os.getppid())).touch(exist_ok=is_alone())
    except FileExistsError:
        return False
    return True


def take_part(run: RunDirectory, work: Callable[[], int]) -> int:
    """Return how `work` ended. As one of several ranks, end this process with it, together with the others or at once.

    A rank that failed does not part in peace: others may wait for it in the middle of an exchange, and it for them.
    """
    if is_alone():
        return work()
    try:
        code = work()
    except BaseException:  # noqa: BLE001 - whatever it is, the others are not to wait for this rank
        code = outcome.CRASHED
        traceback.print_exc()
        with contextlib.suppress(OSError):
            (run.path / FAILURE.format(rank())).write_text(f"{time.time()}\n{traceback.format_exc()}", encoding="utf-8")
    if code in (outcome.FINISHED, outcome.STOPPED):
        leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def whole_weights(model: Any) -> dict[str, Any]:
    """Return what `save_pretrained` is to be called with on the first rank; every rank must ask."""
    if is_alone():
        return {}
    from .sharding import whole_state
    from .split_training import is_trained_in_parts, put_away

    put_away(model)
    return {"state_dict": whole_state(model)} if is_trained_in_parts(model) else {}


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send a signal when the parent dies, so that no trainer is left alone (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)
