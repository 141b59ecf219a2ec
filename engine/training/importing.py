"""Importing: the training libraries load in a thread of their own while rows are read, and so do the weights' pages."""

from __future__ import annotations

import gc
import importlib
import os
import threading
from pathlib import Path

from ...foundation.errors import TunewrightError
from ...recipes.model import Data, Recipe
from ..data.preparing import PARALLEL_BYTES
from ..data.reading import open_source
from ..plan import Plan
from . import parallel


class Imports:
    """The libraries that training with a plan needs, on their way; `wait` before anything of them is used."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._import, name="imports", daemon=True)

    def start(self, recipe: Recipe) -> None:
        """Begin where that is safe: processes that are forked meanwhile, to render many rows, would inherit its locks.

        Unsloth is left to the main thread, for it changes other libraries as it comes.
        """
        if self._plan.backend == "transformers" and _is_small(recipe.data):
            self._thread.start()

    def wait(self) -> None:
        """Return once all is imported; raises what the import raised."""
        if self._thread.ident is None:
            self._import()
        else:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _import(self) -> None:
        gc.disable()  # hundreds of thousands of objects come, none of them goes: looking for waste takes a quarter of it all
        try:
            importlib.import_module(f".{self._plan.backend}", __package__)  # Unsloth has to come before trl
            import torch

            if self._plan.device == "cuda" and torch.cuda.is_available():
                if parallel.local_rank() < torch.cuda.device_count():
                    torch.cuda.set_device(parallel.local_rank())  # lest every rank takes memory of the first
                torch.cuda.init()
            for name in (".telemetry", ".objectives", "..results.evaluate"):
                importlib.import_module(name, __package__)
        except BaseException as error:  # noqa: BLE001  it is raised where the import is waited for
            self._failure = error
        finally:
            gc.freeze()  # nor is any of them looked at again while layers are compiled and steps are taken
            gc.enable()


def _is_small(data: Data) -> bool:
    """Tell whether the rows are read in this process; what cannot be opened is told by who reads it."""
    sources = [data.source, *([data.validation.source] if data.validation.source else [])]
    try:
        return all(open_source(each, data.split).total_bytes <= PARALLEL_BYTES for each in sources)
    except TunewrightError:
        return False


def read_ahead(folder: Path) -> None:
    """Have the kernel read the weights in `folder` into its cache while other things are done."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in sorted(folder.glob("*.safetensors")):
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # whoever loads it says what is wrong
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
