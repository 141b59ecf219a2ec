"""Redaction: tokens, keys and passwords never enter a run's events or its console, whoever prints them.

What is secret is known by its published form, by what stands before it, and by its value where this user's
environment or one of the usual files holds it. A secret of no known form, from nowhere that is known, cannot be told.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..foundation.credentials import (
    KEYS_WITH_HYPHEN,
    KEYS_WITH_UNDERSCORE,
    OTHER_KEYS,
    PRIVATE_KEY,
    find_assignments,
    find_web_tokens,
)
from ..foundation.files import open_regular

SHORTEST = 8
"""Shorter values are words and numbers too often to be taken for secrets."""
LONGEST_FILE_BYTES = 64 * 1024

_SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|AUTH)$", re.IGNORECASE)
_GIVEN = re.compile(
    r"(?:\b[A-Z][A-Z0-9_]*(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD)\s?[=:]\s?[\"']?(?P<variable>[^\s\"',;&]{8,})"
    r"|(?i:\bauthorization)[\"']?\s?[=:]\s?[\"']?(?:(?i:bearer|basic|token)\s)?(?P<header>[^\s\"',;]{8,})"
    r"|\b(?i:bearer)\s(?P<bearer>[A-Za-z0-9._~+/=-]{16,})"
    r"|[?&][\w.%-]*(?i:signature|token|key|secret|password|credential)[\w.-]*=(?P<parameter>[^&\s\"'<>]{8,})"
    r"|[\"']\w{0,40}(?i:token|secret|password|key)[\"']\s?:\s?[\"'](?=[^\"']*\d)(?P<entry>[A-Za-z0-9._~+/=-]{20,})"
    r"|[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s/:@\"']{0,100}:(?P<address>[^\s/@\"']{1,200})@)"
)
"""Secrets by what stands before them: variables, headers, parameters, entries and passwords of addresses."""
_BEFORE_GIVEN = ("=", ":", "earer ")


def redact(text: str) -> str:
    """Return `text` with every secret in it replaced by words for what stood there."""
    if len(text) < SHORTEST:
        return text
    spans = sorted(_find(text))
    if not spans:
        return text
    parts: list[str] = []
    at = 0
    for start, end, kind in spans:
        if start >= at:
            parts += [text[at:start], f"[{kind} left out]"]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _find(text: str) -> Iterator[tuple[int, int, str]]:
    for needle, kind, pattern in (*KEYS_WITH_UNDERSCORE, *KEYS_WITH_HYPHEN, *OTHER_KEYS):
        if needle in text:
            yield from ((*each.span(), kind) for each in pattern.finditer(text))
    if any(each in text for each in _BEFORE_GIVEN):
        for each in _GIVEN.finditer(text):
            yield *each.span(each.lastgroup or 0), "secret"
        yield from find_assignments(text)
    if "-----BEGIN" in text:
        yield from ((*each.span(), "private key") for each in PRIVATE_KEY.finditer(text))
    if "eyJ" in text:
        yield from find_web_tokens(text)
    yield from ((*each.span(), "secret") for each in _known().finditer(text))


@functools.cache
def _known() -> re.Pattern[str]:
    """Return what matches the secrets that this user's environment and files hold."""
    found: set[str] = {
        value for name, value in os.environ.items() if _SECRET_NAME.search(name) and not value.startswith("/")
    }
    for path, pattern in _files():
        try:
            with open_regular(path) as file:
                found.update(pattern.findall(file.read(LONGEST_FILE_BYTES).decode("utf-8", "replace")))
        except OSError:
            continue
    secrets = sorted(
        {each.strip() for each in found}, key=len, reverse=True
    )  # the longer ones first: they are not to be cut
    return re.compile("|".join(re.escape(each) for each in secrets if len(each) >= SHORTEST) or r"(?!)")


def _files() -> Iterator[tuple[Path, re.Pattern[str]]]:
    """Yield the files in which libraries keep secrets, each with what finds these in it."""
    home = Path(os.environ.get("HOME", "/"))
    hub = Path(os.environ.get("HF_HOME", home / ".cache" / "huggingface"))
    whole, password = re.compile(r"\A\s*(\S+)\s*\Z"), re.compile(r"\bpassword\s+(\S+)")
    yield Path(os.environ.get("HF_TOKEN_PATH", hub / "token")), whole
    yield Path(os.environ.get("NETRC", home / ".netrc")), password
    yield home / ".aws" / "credentials", re.compile(r"(?m)^\s*aws_(?:secret_access_key|session_token)\s*=\s*(\S+)")
