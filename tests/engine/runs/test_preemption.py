"""Clouds' warnings, from a server that speaks as theirs do: heard, believed only when they are meant, and followed by a save."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs import preemption
from tunewright.engine.runs.directory import RunDirectory, is_live, standing
from tunewright.engine.runs.events import Notice, follow
from tunewright.engine.runs.launch import launch, was_interrupted
from tunewright.engine.runs.preemption import CLOUDS, Metadata, Warned, Watch, find_cloud
from tunewright.engine.runs.queue import Place
from tunewright.engine.runs.terms import Terms
from tunewright.recipes.registry import open_registry

AWS = "/latest/meta-data/spot/instance-action"
GOOGLE = "/computeMetadata/v1/instance/preempted"
AZURE = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"


class Service(BaseHTTPRequestHandler):
    """Answers as the services of AWS (version 2), Google Cloud and Azure do, each with the header that it asks for."""

    answers: ClassVar[dict[str, str]] = {}
    token = "first"
    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
        self._say(200, self.token) if self.path == "/latest/api/token" else self._say(404)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/latest/") and self.headers["X-aws-ec2-metadata-token"] != self.token:
            self._say(401)
        elif self.path.startswith("/computeMetadata/") and self.headers["Metadata-Flavor"] != "Google":
            self._say(403)
        elif self.path.startswith("/metadata/") and self.headers["Metadata"] != "true":
            self._say(400)
        elif self.path in self.answers and self.answers[self.path].startswith("http"):
            self.send_response(302)
            self.send_header("Location", self.answers[self.path])
            self.end_headers()
        elif self.path in self.answers:
            self._say(200, self.answers[self.path])
        else:
            self._say(404)

    def _say(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    monkeypatch.setattr(
        Service, "answers", {GOOGLE: "FALSE", AZURE: '{"DocumentIncarnation": 1, "Events": []}', NAME: "box"}
    )
    monkeypatch.setattr(Service, "token", "first")
    monkeypatch.setattr(Service, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("TUNEWRIGHT_METADATA_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which nobody may ask
    yield Service
    server.shutdown()
    thread.join()
    server.server_close()


def azure(kind: str, *machines: str) -> str:
    event = {
        "EventType": kind,
        "Resources": machines,
        "EventStatus": "Scheduled",
        "NotBefore": "Sun, 22 Nov 2026 12:00:00 GMT",
    }
    return json.dumps({"DocumentIncarnation": 2, "Events": [event]})


def test_every_cloud_is_heard_in_its_own_words(service: type[Service]) -> None:
    asks = {cloud: Metadata() for cloud in CLOUDS}
    assert [asks[cloud].warned(cloud) for cloud in CLOUDS] == [None] * 3
    service.answers |= {
        AWS: '{"action": "terminate", "time": "2026-11-22T12:02:00Z"}', GOOGLE: "TRUE", AZURE: azure("Preempt", "other", "box"),
    }  # fmt: skip
    assert [asks[cloud].warned(cloud) for cloud in CLOUDS] == [
        Warned("AWS", "terminate at 2026-11-22T12:02:00Z"),
        Warned("Google Cloud", "pre-empted within 30 seconds"),
        Warned("Azure", "preempt, not before Sun, 22 Nov 2026 12:00:00 GMT"),
    ]


def test_a_token_that_has_run_out_is_asked_for_anew(service: type[Service]) -> None:
    service.answers[AWS] = '{"action": "stop"}'
    asks = Metadata()
    assert asks.warned("AWS") == Warned("AWS", "stop at a time not told")
    service.token = "second"
    assert asks.warned("AWS") is None
    assert asks.warned("AWS") is not None


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (AZURE, azure("Preempt", "other")),
        (AZURE, azure("Freeze", "box")),
        (AZURE, '{"Events": {"EventType": "Preempt"}}'),
        (AZURE, "[" * 100_000),
        (AWS, "<html>a captive portal</html>"),
        (AWS, "[]"),
        (GOOGLE, "TRUEISH"),
        (GOOGLE, "http://127.0.0.1:9/elsewhere"),
        (AWS, "x" * 10_000_000),
    ],
    ids=["another-machine", "freeze", "no-list", "deep", "portal", "no-object", "other-word", "redirect", "endless"],
)
def test_what_is_no_warning_to_this_machine_is_none(service: type[Service], path: str, answer: str) -> None:
    service.answers[path] = answer
    assert [Metadata().warned(cloud) for cloud in CLOUDS] == [None] * 3


def test_escapes_in_an_answer_are_cleaned(service: type[Service]) -> None:
    service.answers[AWS] = json.dumps({"action": "terminate\x1b[2J", "time": "\x1b]52;c;eA==\x07now"})
    assert Metadata().warned("AWS") == Warned("AWS", "terminate at now")


def test_it_asks_again_until_it_is_warned(service: type[Service]) -> None:
    heard: list[Warned] = []
    warned = threading.Event()

    def warn(said: Warned) -> None:
        heard.append(said)
        warned.set()

    watch = Watch(CLOUDS, warn, seconds=0.01)
    watch.start()
    while service.asked.count(GOOGLE) < 3:
        warned.wait(0.01)
    assert not heard
    service.answers[GOOGLE] = "TRUE"
    assert warned.wait(20)
    assert [each.cloud for each in heard] == ["Google Cloud"]


def test_nobody_who_answers_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_METADATA_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="refused"):
        Metadata().warned("Google Cloud")


@pytest.mark.parametrize(
    ("files", "cloud"),
    [
        ({"sys_vendor": "Amazon EC2"}, "AWS"),
        ({"sys_vendor": "Xen", "bios_version": "4.11.amazon"}, "AWS"),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "Google Cloud"),
        ({"sys_vendor": "Google", "product_name": "a laptop"}, None),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": preemption.AZURE_ASSET_TAG}, "Azure"),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "None"}, None),
        ({}, None),
    ],
    ids=["nitro", "xen", "google", "chromebook", "azure", "hyper-v", "nothing"],
)
def test_a_clouds_machine_is_known_by_its_firmware(tmp_path: Path, files: dict[str, str], cloud: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert find_cloud(tmp_path) == cloud


def test_a_warned_run_stops_as_interrupted(
    service: type[Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEWRIGHT_QUEUE", str(tmp_path))
    with open_registry() as registry:
        recipe = change_recipe(registry.get("starter-lora").recipe, ["training.steps=3"])
    plan = plan_recipe(recipe, inspect_machine(tmp_path))
    holder = Place(
        RunDirectory(tmp_path / "home" / "runs" / "other"), plan, 0.5, "running"
    )  # so that nothing is trained
    service.answers[AWS] = '{"action": "terminate", "time": "2026-11-22T12:02:00Z"}'
    run = launch(recipe, plan, "spot", terms=Terms(queue=True, watch_preemption=True, check_seconds=30))
    notices = [event for event in follow(run.events_file, lambda: not is_live(run)) if isinstance(event, Notice)]
    holder.leave()
    assert standing(run) == "stopped"
    assert [notice.title for notice in notices] == ["The machine is about to be taken back"]
    assert "AWS says: terminate at 2026-11-22T12:02:00Z" in notices[0].message
    result = run.result()
    assert result is not None
    assert result["reason"] == "by SIGTERM from outside, while it waited to begin"
    assert was_interrupted(run)
