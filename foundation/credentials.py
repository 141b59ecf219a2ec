"""Credentials in text: keys, tokens and passwords, by their published forms and by what stands before them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterator
from math import log2

_Keys = tuple[tuple[str, str, re.Pattern[str]], ...]


def _keys(*entries: tuple[str, str, str]) -> _Keys:
    """Return entries of (a string that every such key holds, kind, pattern), which stand alone and not within base64."""
    return tuple(
        (needle, kind, re.compile(rf"(?<![A-Za-z0-9_/+.-]){pattern}(?![A-Za-z0-9_/+-])"))
        for needle, kind, pattern in entries
    )


KEYS_WITH_UNDERSCORE = _keys(
    ("hf_", "Hugging Face token", r"hf_[A-Za-z0-9]{34,40}"),
    ("gh", "GitHub token", r"gh[oprsu]_[A-Za-z0-9]{36,255}"),
    ("github_pat_", "GitHub token", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("k_live_", "Stripe key", r"[rs]k_live_[A-Za-z0-9]{24,200}"),
)
KEYS_WITH_HYPHEN = _keys(
    ("sk-", "Anthropic key", r"sk-ant-[a-z]{3,5}[0-9]{2}-[A-Za-z0-9_-]{40,200}"),
    ("sk-", "OpenAI key", r"sk-(?!ant-)(?:(?:proj|svcacct|admin)-)?[A-Za-z0-9_-]{40,200}"),
    ("glpat-", "GitLab token", r"glpat-[A-Za-z0-9_-]{20,50}"),
    ("xox", "Slack token", r"xox[abeoprs]-[0-9]{5,}-[A-Za-z0-9-]{10,200}"),
)
OTHER_KEYS = _keys(
    ("AKIA", "AWS key", r"AKIA[A-Z2-7]{16}"),
    ("ASIA", "AWS key", r"ASIA[A-Z2-7]{16}"),
    ("AIza", "Google key", r"AIza[A-Za-z0-9_-]{35}"),
    (
        "/services/T",
        "Slack webhook",
        r"https://hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
    ),
)


def find_keys(text: str, keys: _Keys) -> Iterator[tuple[int, int, str]]:
    """Yield what has the form of one of `keys` and is no placeholder."""
    for needle, kind, pattern in keys:
        if needle in text:
            for each in pattern.finditer(text):
                if not _is_placeholder(each.group()) and _entropy(each.group()) >= 3.0:
                    yield *each.span(), kind


_PLACEHOLDERS = re.compile(
    r"example|x{4}|\*{3}|\.{3}|…|your|dummy|fake|sample|placeholder|redacted|insert|replace|change|test|todo|here"
    r"|1234|abcd|qwert|passwor|passwd|secret|admin|letmein|welcome|hunter|default|mysql|postgres|guest|none|null"
    r"|<|>|\{|\}|\$|%|env|getenv|config|input|param|value|string|token|key",
    re.IGNORECASE,
)
_SURE_PLACEHOLDERS = re.compile(
    r"example|xxxx|\.\.\.|your|dummy|placeholder|redacted|12345678|abcdefgh|(.)\1{5}|(?:0123|1234)5|goes.?here",
    re.IGNORECASE,
)
_LEET = str.maketrans("0134@$5!", "oieaassi")


def _is_placeholder(key: str) -> bool:
    return _SURE_PLACEHOLDERS.search(key) is not None


def _entropy(text: str) -> float:
    """Return Shannon's entropy in bits a character."""
    size = len(text)
    return -sum(count / size * log2(count / size) for count in Counter(text).values()) if size else 0.0


PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<name>(?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?)-----(?P<body>[^-]{64,20000})(?:-----END (?P=name)-----)?"
)
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{48,}")


def find_private_keys(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield private keys in their usual armour."""
    for each in PRIVATE_KEY.finditer(text):
        body = each["body"].replace("\\n", "\n")
        if _KEY_LINE.search(body) and not _is_placeholder(body) and _entropy(body) >= 4.0:
            yield *each.span(), "private key"


_WEB_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_/+.-])(eyJ[A-Za-z0-9_-]{10,2000})\.(eyJ[A-Za-z0-9_-]{10,4000})\.[A-Za-z0-9_-]{20,1000}"
)


def find_web_tokens(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield JSON web tokens whose head can be read."""
    for each in _WEB_TOKEN.finditer(text):
        try:
            header, claims = (
                json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in each.groups()
            )
        except (ValueError, binascii.Error, RecursionError):
            continue
        # The subject of the token that every explanation shows.
        if "alg" in header and claims.get("sub") != "1234567890" and claims.get("name") != "John Doe":
            yield *each.span(), "JSON web token"


# The ends of the words before the value, which are searched for as strings, and the words with what may stand before.
_ASSIGNED = (b"key", b"secret", b"token", b"password", b"passwd", b"passphrase")
_ASSIGNED_WORD = re.compile(
    r"(?<![a-z])(?:(?P<password>pass(?:word|wd|phrase))|secret"
    r"|(?:api|secret|access|auth|client|private|account|master|encryption|signing)[_\- ]?(?:access[_\- ]?)?(?:key|secret|token))\Z",
    re.IGNORECASE,
)
_ASSIGNED_VALUE = re.compile(
    r"""["']?\s{0,3}(?:=>|:=|=|:)\s{0,3}(?P<quote>["'`]?)(?P<value>[^\s"'`,;<>(){}\[\]|\\]{8,200})(?P<after>.?)"""
)
_NAME = re.compile(
    r"[A-Za-z_]\w*(?:(?:\.|->|::|/)\w+)+|[a-z]+(?:[_-][a-z0-9]+)+|[A-Z]+(?:_[A-Z0-9]+)+|[a-z]+(?:[A-Z][a-z]+)+\d?|[A-Z]?[a-z]+\d{0,4}|[\d.,:/-]+"
)
_HEXADECIMAL = re.compile(r"[0-9a-f]+|[0-9A-F]+")


def find_assignments(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield what is assigned to a name such as password or api_key, where it looks like one."""
    lower = text.encode("ascii", "replace").lower()
    for word in _ASSIGNED:
        at = lower.find(word)
        while at >= 0:
            end = at + len(word)
            if lower[end : end + 1] in _AFTER_WORD and (given := _ASSIGNED_VALUE.match(text, end)):
                yield from _judge_assignment(text, end, given)
            at = lower.find(word, end)


_AFTER_WORD = frozenset((b" ", b'"', b"'", b":", b"="))


def _judge_assignment(text: str, end: int, given: re.Match[str]) -> Iterator[tuple[int, int, str]]:
    named = _ASSIGNED_WORD.search(text[max(0, end - 32) : end])
    # What is called or looked up is code, not a value.
    if not named or given["after"] in ("(", "[", "{", "<"):
        return
    value, start = given["value"], given.start("value")
    if not given["quote"]:
        value = value.rstrip(".:!?")
    if named["password"]:
        if len(value) >= 8 and _is_password(value):
            yield start, start + len(value), "password"
    elif len(value) >= 16 and _is_random(value):
        yield start, start + len(value), "API key"


def _is_password(value: str) -> bool:
    """Tell whether it looks chosen by somebody rather than like a name, a word or an example."""
    if (
        len(value) > 64
        or _NAME.fullmatch(value)
        or _PLACEHOLDERS.search(value)
        or _PLACEHOLDERS.search(value.translate(_LEET))
    ):
        return False
    kinds = sum(
        (any(map(str.isdigit, value)), any(map(str.islower, value)), any(map(str.isupper, value)), not value.isalnum())
    )
    return value.isascii() and kinds >= 3 and _entropy(value) >= 2.75 and "://" not in value


def _is_random(value: str) -> bool:
    if _NAME.fullmatch(value) or _PLACEHOLDERS.search(value) or not value.isascii() or "://" in value:
        return False
    if not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)):
        return False
    return _entropy(value) >= (3.0 if _HEXADECIMAL.fullmatch(value) else 3.5)


_ADDRESS_WITH_PASSWORD = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/:@<>\"'`]{0,64}):([^\s/:,@<>\"'`]{6,100})@([A-Za-z0-9.-]{3,200})"
)
_EXAMPLE_HOST = re.compile(
    r"(?:.*\.)?(?:example(?:\.\w+)?|localhost|test|invalid|local|host|hostname|server|domain\.com)", re.IGNORECASE
)


def find_passwords_in_addresses(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the passwords in addresses such as postgres://user:password@host."""
    for each in _ADDRESS_WITH_PASSWORD.finditer(text):
        user, password, host = each.groups()
        if password != user and not _EXAMPLE_HOST.fullmatch(host) and (_is_password(password) or _is_random(password)):
            yield *each.span(2), "password"


def find_credentials(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield everything that looks like a key, a token or a password: where it begins and ends, and its kind."""
    yield from find_private_keys(text)
    for keys in (KEYS_WITH_UNDERSCORE, KEYS_WITH_HYPHEN, OTHER_KEYS):
        yield from find_keys(text, keys)
    yield from find_web_tokens(text)
    yield from find_assignments(text)
    yield from find_passwords_in_addresses(text)
