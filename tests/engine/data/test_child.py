"""Files and templates of strangers are read in a child: it answers, is cancelled, and its end is told in words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tunewright import starter
from tunewright.engine.data.child import DataProcess
from tunewright.engine.data.preview import Want
from tunewright.engine.data.statistics import AuditRequest, Progress
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Data

ORDERS = Data(source="tunewright/starter-orders", max_length=64)
MODEL = "tunewright/starter"


def model_with(folder: Path, template: str) -> str:
    shutil.copytree(starter.MODEL, folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def test_it_inspects_previews_and_audits() -> None:
    with DataProcess() as process:
        found = process.inspect(ORDERS.source, ORDERS)
        assert (found.format, found.rows, found.rows_exact) == ("messages", 1000, True)
        assert found.samples[0].turns[1][0] == "assistant"
        third = process.preview(ORDERS.source, ORDERS, MODEL, Want("row", 2))
        assert third is not None
        assert (third.index, third.place, third.kept) == (2, "line 3", min(64, third.tokens))
        assert third.trained == sum(len(piece.tokens) for piece in third.pieces if piece.trained and not piece.cut)
        assert process.preview(ORDERS.source, ORDERS, MODEL, Want("row", 1000)) is None
        report = process.audit(AuditRequest(ORDERS.source, ORDERS, MODEL), lambda progress: None, lambda: False)
        assert report is not None
        assert (report.rows, report.converted, report.complete) == (1000, 1000, True)
        longest = process.preview(ORDERS.source, ORDERS, MODEL, Want("longest", indexes=report.longest))
        assert longest is not None
        assert report.tokens is not None
        assert longest.tokens == report.tokens.most


def test_rows_are_found_by_their_words_and_by_their_length() -> None:
    with DataProcess() as process:
        first = process.preview(ORDERS.source, ORDERS, MODEL, Want("search", -1, "HARBOUR"))
        if first is not None:
            assert "harbour" in "".join(piece.text for piece in first.pieces).casefold()
        found = process.preview(ORDERS.source, ORDERS, MODEL, Want("search", -1, "Cape Town"))
        assert found is not None
        assert found.index == 0
        later = process.preview(ORDERS.source, ORDERS, MODEL, Want("search", 0, "Cape Town"))
        assert later is not None
        assert later.index > 0
        assert process.preview(ORDERS.source, ORDERS, MODEL, Want("search", -1, "no such words at all")) is None
        lengths = [process.preview(ORDERS.source, ORDERS, MODEL, Want("longest", number)) for number in range(3)]
        tokens = [each.tokens for each in lengths if each is not None]
        assert tokens == sorted(tokens, reverse=True)
        assert process.preview(ORDERS.source, ORDERS, MODEL, Want("random")) is not None


def test_errors_come_in_three_parts_and_the_child_goes_on() -> None:
    with DataProcess() as process:
        with pytest.raises(TunewrightError, match="Data not found"):
            process.inspect("/nowhere/at/all.jsonl", Data(source="x"))
        assert process.inspect(ORDERS.source, ORDERS).rows == 1000


def test_a_template_that_never_ends_is_ended(tmp_path: Path) -> None:
    endless = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% if a == 0.5 %}x{% endif %}{% endfor %}{% endfor %}"
    )
    model = model_with(tmp_path / "model", endless)
    began = time.monotonic()
    with DataProcess() as process:
        try:
            row = process.preview(ORDERS.source, ORDERS, model, Want())
        except TunewrightError as error:
            told = str(error)
        else:
            assert row is not None
            told = row.problem
    assert "does not end" in told
    assert time.monotonic() - began < 60


def test_a_cancelled_audit_leaves_no_process_behind(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(starter.TRAINING_DATA.read_bytes() * 60)
    seen: list[Progress] = []
    with DataProcess() as process:
        request = AuditRequest(str(source), ORDERS, MODEL, workers=2)
        assert process.audit(request, seen.append, lambda: bool(seen)) is None
    assert not [each for each in psutil.Process().children(recursive=True) if "data.child" in " ".join(each.cmdline())]


def test_a_child_that_is_killed_is_told_of_and_started_anew() -> None:
    with DataProcess() as process:
        process.inspect(ORDERS.source, ORDERS)
        assert process._child is not None
        os.kill(process._child.pid, signal.SIGKILL)
        with pytest.raises(TunewrightError, match="Reading the data ended"):
            process.inspect(ORDERS.source, ORDERS)
        assert process.inspect(ORDERS.source, ORDERS).rows == 1000


def test_the_child_ends_when_the_interface_is_gone() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "tunewright.engine.data.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(timeout=30) != 0


def test_the_interfaces_end_imports_nothing_heavy() -> None:
    program = (
        "import sys, json\nfrom tunewright.engine.data.child import DataProcess\n"
        "print(json.dumps(sorted({'torch', 'numpy', 'pyarrow', 'tokenizers', 'jinja2', 'transformers'} & set(sys.modules))))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == []
