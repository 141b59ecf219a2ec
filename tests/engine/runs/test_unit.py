"""The unit that brings runs back at boot: verified by systemd, only ever over our own file, gone when it is removed."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from tunewright.__main__ import main
from tunewright.engine.runs import launch, unit
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.unit import UNIT, inspect_unit, install_unit, remove_unit, unit_path, unit_text
from tunewright.foundation.errors import TunewrightError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / 'a home with 100 % "quotes"'))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def manager(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `systemctl` that keeps what it was asked, and enables and disables by links as the real one does."""
    calls, folder = home / "calls", home / "bin"
    folder.mkdir()
    wants = unit_path().parent / "default.target.wants" / UNIT
    tool = folder / "systemctl"
    tool.write_text(
        f"""#!/bin/sh
echo "$*" >> "{calls}"
case "$3" in
  enable) mkdir -p "{wants.parent}"; ln -sf "{unit_path()}" "{wants}";;
  disable) rm -f "{wants}";;
  is-enabled) test -L "{wants}" && echo enabled;;
esac
"""
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


def test_it_is_shown_written_enabled_and_removed(manager: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not inspect_unit().installed
    assert main(["runs", "--install-unit"]) == 0
    shown = capsys.readouterr().out
    text = unit_path().read_text()
    assert text in shown, "what is written was not shown"
    assert shown.index(text) < shown.index("is installed, and enabled")
    assert text == unit_text()
    assert stat.S_IMODE(unit_path().stat().st_mode) == 0o644
    assert manager.read_text().splitlines() == [
        f"--user --no-ask-password {words}" for words in ("daemon-reload", f"enable {UNIT}", f"is-enabled {UNIT}")
    ]
    assert main(["runs", "--show-unit", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["installed"], described["enabled"], described["path"]) == (True, True, str(unit_path()))
    install_unit()  # again: the same file
    assert unit_path().read_text() == text
    assert main(["runs", "--remove-unit", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["installed"]
    assert not any(path.is_file() or path.is_symlink() for path in unit_path().parent.rglob("*"))
    assert remove_unit().notes == ("There was none.",)


def test_without_a_manager_it_says_what_is_still_to_do(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PATH", str(home))
    installed = install_unit()
    assert installed.installed
    assert not installed.enabled
    assert f"systemctl --user enable {UNIT}" in installed.notes[0]


def test_a_file_that_is_not_ours_stays_as_it_is(manager: Path, home: Path) -> None:
    path = unit_path()
    path.parent.mkdir(parents=True)
    elsewhere = home / "elsewhere"
    elsewhere.write_text(unit_text())
    for make in (lambda: path.write_text("[Service]\n"), lambda: path.symlink_to(elsewhere), lambda: path.mkdir()):
        make()
        for act in (install_unit, remove_unit):
            with pytest.raises(TunewrightError, match="Another's unit"):
                act()
        assert "left alone" in inspect_unit().notes[0]
        assert path.is_symlink() or path.is_dir() or path.read_text() == "[Service]\n"
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert elsewhere.read_text() == unit_text()
    assert not manager.exists(), "systemd was asked about another's unit"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_and_something_where_there_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unit._verify(unit_text()) == ""
    monkeypatch.setattr(unit, "unit_text", lambda: unit_text().replace("Type=oneshot", "Type=once"))
    with pytest.raises(TunewrightError, match="systemd refuses the unit"):
        install_unit()
    assert not unit_path().exists()


def test_a_home_that_no_unit_can_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", "/tmp/a\nExecStart=/bin/evil")
    with pytest.raises(TunewrightError, match="Not for a unit file"):
        unit_text()


def test_runs_of_the_unit_ask_for_units_of_their_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(home / "run")
    folder = home / "bin"
    (folder / "systemd").mkdir(parents=True)
    (folder / "systemd" / "private").touch()
    for name in ("systemd-run",):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert launch._detaching(run)[0] == []
    monkeypatch.setenv("TUNEWRIGHT_OWN_UNITS", "1")
    prefix, told = launch._detaching(run)
    assert prefix[:2] == ["systemd-run", "--user"]
    assert "--property=KillMode=mixed" in prefix, "torchrun would end its ranks at once"
    assert told.startswith("systemd-run")
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # a job's processes stay in it
    assert launch._detaching(run)[0] == []
