"""Secrets and personal data in text: what looks like keys, passwords, addresses and numbers of people.

They are hints to a person, so a false alarm costs more than a miss: checksums are computed, examples from documentation
and placeholders are known, and numbers that could be anything are only reported beside a word that says what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ....foundation.credentials import (
    KEYS_WITH_HYPHEN,
    KEYS_WITH_UNDERSCORE,
    OTHER_KEYS,
    find_assignments,
    find_keys,
    find_passwords_in_addresses,
    find_private_keys,
    find_web_tokens,
)
from ....foundation.text import one_line
from .personal import find_addresses_of_machines, find_long_numbers, find_mail, find_telephones

SHOWN_CHARACTERS = 4

LABELS: dict[str, str] = {
    "AWS key": "API KEY",
    "GitHub token": "API KEY",
    "GitLab token": "API KEY",
    "Slack token": "API KEY",
    "Slack webhook": "API KEY",
    "OpenAI key": "API KEY",
    "Anthropic key": "API KEY",
    "Google key": "API KEY",
    "Hugging Face token": "API KEY",
    "Stripe key": "API KEY",
    "API key": "API KEY",
    "private key": "PRIVATE KEY",
    "JSON web token": "TOKEN",
    "password": "PASSWORD",
    "e-mail address": "EMAIL",
    "telephone number": "PHONE NUMBER",
    "card number": "CARD NUMBER",
    "bank account": "BANK ACCOUNT",
    "social security number": "SOCIAL SECURITY NUMBER",
    "IP address": "IP ADDRESS",
}
"""What `redact` writes in square brackets in the place of each kind."""
PERSONAL = frozenset(
    {"e-mail address", "telephone number", "card number", "bank account", "social security number", "IP address"}
)


@dataclass(frozen=True, slots=True)
class Match:
    """One place of a text that looks like a secret or personal data."""

    kind: str
    """A key of LABELS."""
    start: int
    end: int
    masked: str
    """The first few characters and an ellipsis, clean for the terminal."""

    @property
    def code(self) -> Literal["secrets", "personal_data"]:
        """Return the code of the finding that it belongs to."""
        return "personal_data" if self.kind in PERSONAL else "secrets"


def scan(text: str) -> tuple[Match, ...]:
    """Return what looks like secrets and personal data, in the order of the text; where two overlap, the secret."""
    # Nearly every text is clean: a search for single characters and short strings finds that out in microseconds.
    found: list[tuple[int, int, str]] = []
    shape = text.encode("ascii", "replace").translate(_SHAPES)
    numbers = b"0" in shape
    if "_" in text:
        found.extend(find_keys(text, KEYS_WITH_UNDERSCORE))
    if "-" in text and "-----BEGIN" in text:
        found.extend(find_private_keys(text))
    # In nearly every other key, and in most passwords, a digit stands next to a letter.
    if numbers and (b"a0" in shape or b"0a" in shape):
        if "-" in text:
            found.extend(find_keys(text, KEYS_WITH_HYPHEN))
        found.extend(find_keys(text, OTHER_KEYS))
        if "J" in text and "eyJ" in text:
            found.extend(find_web_tokens(text))
        if "=" in text or ":" in text:
            found.extend(find_assignments(text))
    if "@" in text:
        if "://" in text:
            found.extend(find_passwords_in_addresses(text))
        found.extend(find_mail(text))
    if numbers:
        if "+" in text and b"+0" in shape:
            found.extend(find_telephones(text))
        if b"0000" in shape:
            found.extend(find_long_numbers(text, shape))
        if b"0.0" in shape and _SHAPE_OF_FOUR.search(shape):
            found.extend(find_addresses_of_machines(text))
    return tuple(_resolve(text, found)) if found else ()


def redact(text: str, code: Literal["secrets", "personal_data"] | None = None) -> str:
    """Return `text` with the name of its kind, such as [EMAIL], in the place of what `scan` finds, all or of one `code`."""
    parts: list[str] = []
    end = 0
    for each in scan(text):
        if code in (None, each.code):
            parts += (text[end : each.start], f"[{LABELS[each.kind]}]")
            end = each.end
    return "".join((*parts, text[end:])) if parts else text


def _resolve(text: str, found: list[tuple[int, int, str]]) -> Iterator[Match]:
    """Yield the matches in order without those that overlap one found before, for the surer ones are looked for first."""
    taken: list[tuple[int, int, str]] = []
    for start, end, kind in found:
        if all(end <= other_start or start >= other_end for other_start, other_end, _ in taken):
            taken.append((start, end, kind))
    for start, end, kind in sorted(taken):
        # Of a short password four characters would be half.
        shown = min(SHOWN_CHARACTERS, (end - start) // 4)
        yield Match(kind, start, end, one_line(text[start : start + shown]) + "…")


# Every digit as 0 and every letter as a: the shape of keys and numbers can be searched for as a string.
_SHAPES = bytes(48 if chr(each).isdigit() else 97 if chr(each).isalpha() else each for each in range(128)) + bytes(128)
_SHAPE_OF_FOUR = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
