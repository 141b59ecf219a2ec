"""Text from files, models, data sets and the Hub is untrusted: it is cleaned here before it reaches a terminal."""

from __future__ import annotations

import json
import re

# C0 and C1 controls except tab and newline, and the characters that reorder or hide text
# (bidirectional controls, zero-width spaces and joiners, byte-order mark, tag characters).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Whole escape sequences: OSC/DCS strings up to their terminator, CSI with parameters, and two-byte escapes.
_ESCAPES = re.compile(
    "(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\\\|\x9c|$)|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]",
    re.DOTALL,
)


def clean(text: str, limit: int | None = None) -> str:
    """Return `text` without terminal escapes, control or reordering characters; cut to `limit` characters."""
    if "\x1b" in text or "\x9b" in text or "\x9d" in text or "\x90" in text:
        text = _ESCAPES.sub("", text)
    text = _UNSAFE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    # Lone surrogates cannot be written to a terminal at all.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if limit is not None and len(text) > limit:
        return text[: max(0, limit - 1)] + "…"
    return text


def inert(json_text: str) -> str:
    """Return JSON that says the same, with escapes in place of what could move a terminal or is no character."""
    safe = _UNSAFE.sub(lambda found: json.dumps(found.group())[1:-1], json_text)
    return safe.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str, limit: int | None = None) -> str:
    """Return `text` cleaned, with every run of white space made one space."""
    line = " ".join(clean(text).split())
    if limit is not None and len(line) > limit:
        return line[: max(0, limit - 1)] + "…"
    return line
