"""Pre-emption: clouds that take a machine back say so a moment before, to whoever asks their metadata service.

AWS tells of a spot instance's end two minutes ahead, Azure and Google Cloud 30 seconds. Asking happens in a thread of its
own, without proxies and redirects, with short time-outs, and only of what answers at the one address that these services have.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Literal, cast

from ...foundation.text import one_line

Cloud = Literal["AWS", "Google Cloud", "Azure"]
CLOUDS: tuple[Cloud, ...] = ("AWS", "Google Cloud", "Azure")
ADDRESS = "http://169.254.169.254"
DMI = Path("/sys/class/dmi/id")
AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
"""What the chassis of every machine of Azure is called; other machines of the same vendor are not."""
AZURE_ENDINGS = ("Preempt", "Terminate", "Reboot", "Redeploy")
ASK_SECONDS = 5.0
ANSWER_SECONDS = 2.0
ANSWER_BYTES = 64 * 1024
TOKEN_SECONDS = 21600


@dataclass(frozen=True, slots=True)
class Warned:
    """A cloud's word that it takes this machine back."""

    cloud: Cloud
    said: str
    """What is going to happen, and when if that is told."""


def find_cloud(dmi: Path = DMI) -> Cloud | None:
    """Return whose machine this evidently is, from what its firmware says; None for any other."""
    vendor, tag = _line(dmi / "sys_vendor"), _line(dmi / "chassis_asset_tag")
    if vendor == "Amazon EC2" or "amazon" in _line(dmi / "bios_version"):
        return "AWS"
    if vendor == "Google" and _line(dmi / "product_name") == "Google Compute Engine":
        return "Google Cloud"
    return "Azure" if tag == AZURE_ASSET_TAG else None


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A metadata service sends nobody elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class Metadata:
    """Asks the metadata service of this machine's cloud; `address` is where it answers."""

    def __init__(self, address: str | None = None) -> None:
        self.address = (address or os.environ.get("TUNEWRIGHT_METADATA_URL") or ADDRESS).rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
        self._token: str | None = None
        self._name: str | None = None

    def warned(self, cloud: Cloud) -> Warned | None:
        """Return what `cloud` warns of, None while it does not; raises OSError where nobody answers."""
        match cloud:
            case "AWS":
                return self._aws()
            case "Google Cloud":
                return self._google()
            case "Azure":
                return self._azure()

    def _aws(self) -> Warned | None:
        path = "/latest/meta-data/spot/instance-action"
        if self._token is None:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self._token = self._ask("/latest/api/token", lifetime, "PUT") or ""
        status, answer = self._answer(path, {"X-aws-ec2-metadata-token": self._token})
        if status in (401, 403):
            self._token = None  # it has run out: a new one is asked for next time
        told = _object(answer) if status == 200 else {}
        action = one_line(str(told.get("action", "")), 40)
        if not action:
            return None
        return Warned("AWS", f"{action} at {one_line(str(told.get('time', 'a time not told')), 60)}")

    def _google(self) -> Warned | None:
        answer = self._ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
        return Warned("Google Cloud", "pre-empted within 30 seconds") if answer.strip() == "TRUE" else None

    def _azure(self) -> Warned | None:
        asks = {"Metadata": "true"}
        told = _object(self._ask("/metadata/scheduledevents?api-version=2020-07-01", asks))
        events: Any = told.get("Events")
        for event in cast("list[Any]", events if isinstance(events, list) else []):
            facts = cast("dict[str, Any]", event if isinstance(event, dict) else {})
            kind = one_line(str(facts.get("EventType", "")), 40)
            if kind in AZURE_ENDINGS and self._is_meant(facts.get("Resources")):
                when = one_line(str(facts.get("NotBefore", "")), 60)
                return Warned("Azure", f"{kind.lower()}, not before {when}" if when else kind.lower())
        return None

    def _is_meant(self, machines: object) -> bool:
        """Tell whether an event is about this machine: those of a group hear of each other's."""
        if self._name is None:
            self._name = self._ask(
                "/metadata/instance/compute/name?api-version=2021-02-01&format=text", {"Metadata": "true"}
            ).strip()
        return isinstance(machines, list) and self._name in machines

    def _ask(self, path: str, headers: Mapping[str, str], method: str = "GET") -> str:
        status, answer = self._answer(path, headers, method)
        return answer if status == 200 else ""

    def _answer(self, path: str, headers: Mapping[str, str], method: str = "GET") -> tuple[int, str]:
        """Return status and text of an answer; raises OSError where there is none."""
        request = urllib.request.Request(self.address + path, headers=dict(headers), method=method)
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return answer.status, answer.read(ANSWER_BYTES).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, ""
        except (HTTPException, ValueError) as error:
            raise OSError(str(error)) from error


def _object(text: str) -> dict[str, Any]:
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", values) if isinstance(values, dict) else {}


class Watch:
    """Asks again and again, in a thread that ends with its process, until a cloud warns."""

    def __init__(self, clouds: tuple[Cloud, ...], warn: Callable[[Warned], None], seconds: float = ASK_SECONDS) -> None:
        self.clouds, self.warn, self.seconds = clouds, warn, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="preemption", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _watch(self) -> None:
        services: dict[Cloud, Metadata] = {cloud: Metadata() for cloud in self.clouds}
        while not self._ended.is_set():
            for cloud, service in services.items():
                try:
                    warned = service.warned(cloud)
                except OSError:  # nobody answers; the next time somebody may
                    continue
                if warned is not None and not self._ended.is_set():
                    self.warn(warned)
                    return
            self._ended.wait(self.seconds)
