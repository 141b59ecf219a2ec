"""A hook that changes what happens in a trainer's own process: a `sitecustomize` on its path."""

from __future__ import annotations

import textwrap

_HOOK = """
import importlib.abc, importlib.machinery, pathlib, sys

FOLDER = pathlib.Path(__file__).parent

class Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader
    def create_module(self, spec):
        return self.loader.create_module(spec)
    def exec_module(self, module):
        self.loader.exec_module(module)
        import torch
        step = module.Trainer.training_step
        taken = 0
        def training_step(self, *arguments, **options):
            nonlocal taken
            taken += 1
{body}
            return step(self, *arguments, **options)
        module.Trainer.training_step = training_step

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "transformers.trainer":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = Loader(spec.loader)
        return spec

sys.meta_path.insert(0, Finder())
"""


def before_each_micro_batch(body: str) -> str:
    """Return a `sitecustomize` that runs `body` before every micro-batch of transformers' trainer.

    It sees torch, the trainer as `self`, how many it has `taken`, this one counted, and the `FOLDER` that the hook is in.
    """
    return _HOOK.replace("{body}", textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12))
