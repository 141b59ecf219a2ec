"""The tokenizer as the libraries want it, for batches of prompts and beside what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in `folder`, which fills with its end token where it has no pad token; its code is never run."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
