"""The linear layers of a model, which adapters stand beside, and its experts, which they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Projection:
    """One linear layer that decoder layers have once."""

    name: str
    """Its module's name, and as many of the modules above as tell it from others."""
    part: Literal["attention", "mlp"]
    outputs: int
    inputs: int
    bias: bool
    count: int
    """How many the whole model has: one in each layer that has it."""
    module: str = ""
    """Its path in a layer; empty: `self_attn` or `mlp`, and its name."""
    adaptable: bool = True
    """Whether PEFT puts a LoRA beside it when it is named; in some mixtures of experts it takes the name for another."""
    quantisable: bool = True
    """Whether bitsandbytes replaces it: subclasses of torch's linear layer stay as they are."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), as torch stores the weight."""
        return self.outputs, self.inputs

    @property
    def path(self) -> str:
        """Where it is in a layer, as PEFT matches names against."""
        return self.module or f"{'self_attn' if self.part == 'attention' else 'mlp'}.{self.name}"

    @property
    def leaf(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @property
    def weights(self) -> int:
        """The weights of all of them."""
        return self.outputs * self.inputs * self.count


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a mixture; PEFT's LoRA and 4-bit quantisation leave them alone, for they are no linear layers."""

    count: int
    """How many a layer has."""
    per_token: int
    """How many of them one token passes."""
    ffn: int
    """The inner width of one expert."""
    shared_ffn: int
    """The inner width of the expert that every token passes; 0 without one."""
    layers: int
    """How many layers have experts."""
    parameters: int
    """The weights and biases of one expert in one layer."""

    @property
    def total_parameters(self) -> int:
        """The parameters of all experts in all layers."""
        return self.parameters * self.count * self.layers

    @property
    def active_parameters(self) -> int:
        """Those of them that one token passes."""
        return self.parameters * self.per_token * self.layers
