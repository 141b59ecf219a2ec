"""A tiny language model of our own and a data set to fine-tune it on, so that everything can be tried offline."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
TRAINING_DATA = Path(__file__).parent / "data" / "train.jsonl"
HELD_OUT_DATA = Path(__file__).parent / "data" / "held_out.jsonl"
PREFERENCES = Path(__file__).parent / "data" / "preferences.jsonl"
HELD_OUT_PREFERENCES = Path(__file__).parent / "data" / "held_out_preferences.jsonl"
FIGURES = Path(__file__).parent / "figures.json"
