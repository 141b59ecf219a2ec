"""Tunewright: a terminal wizard for fine-tuning language models on the GPU box that you reach over SSH."""

__version__ = "0.1.0"
