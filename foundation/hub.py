"""The line to the Hub: its address, the library that speaks to it, and what breaks on the way, in words without a token."""

from __future__ import annotations

import importlib
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from .errors import TunewrightError
from .text import one_line

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
_SECRETS = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}|(?i:bearer)\s+\S+|(?<=://)[^\s/@]+@")


def endpoint() -> str:
    """Return the address of the Hub: HF_ENDPOINT, or huggingface.co."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def host() -> str:
    """Return the Hub's address as people read it, without what an address may hold of a password."""
    parts = urlsplit(endpoint())
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return one_line(f"{parts.hostname or endpoint()}{port}", 100)


def http_library() -> Any:
    """Return the library that huggingface-hub speaks HTTP with: httpx, or its successor from version 2 on."""
    from huggingface_hub import get_session

    return importlib.import_module(type(get_session()).__module__.partition(".")[0])


def without_secrets(text: str) -> str:
    """Return `text` on one line, without the token in use or anything else that looks like one."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception:  # noqa: BLE001  # a login that cannot be renewed has no token to hide
        token = None
    if token:
        text = text.replace(token, "…")
    return one_line(_SECRETS.sub("…", text), 300)


def explain_line(error: Exception) -> TunewrightError | None:
    """Turn what breaks on the way to the Hub into a page; None for what is not of the way."""
    httpx = http_library()
    if isinstance(error, httpx.ProxyError):
        used = ", ".join(each for each in PROXIES if os.environ.get(each)) or "none in the environment"
        return TunewrightError(
            "The proxy refused",
            f"The way to {host()} leads through a proxy ({used}), which did not let it through.",
            f"Check the variable, or leave {host()} out of it with NO_PROXY.",
        )
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return TunewrightError(
            "Not an address", f"HF_ENDPOINT leads to {host()}, which is no address.", "Such as https://huggingface.co."
        )
    if isinstance(error, httpx.TimeoutException):
        return TunewrightError(
            "The Hub does not answer",
            f"{host()} was silent for too long.",
            "Try again; what has arrived stays. HF_HUB_DOWNLOAD_TIMEOUT=60 waits longer, HF_ENDPOINT names a mirror.",
        )
    if isinstance(error, httpx.RequestError):
        return _explain_break(error)
    return None


def _explain_break(error: Exception) -> TunewrightError:
    causes = list(_causes(error))
    if any(isinstance(each, socket.gaierror) for each in causes):
        return TunewrightError(
            "No network",
            f"The name {host()} leads nowhere: this machine has no network, or no name server.",
            "Check the network (`getent hosts huggingface.co`), or copy the files here and give the path of their folder.",
        )
    if any(isinstance(each, ssl.SSLError) for each in causes):
        return TunewrightError(
            "The Hub's certificate is not trusted",
            f"{host()} showed a certificate that this machine does not know; a proxy may stand between.",
            "Set SSL_CERT_FILE to the file with your network's certificates.",
        )
    return TunewrightError(
        "No way to the Hub",
        f"The line to {host()} could not be made or broke, several times in a row ({type(error).__name__}).",
        "Check the network and try again; what has arrived stays. HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy.",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
