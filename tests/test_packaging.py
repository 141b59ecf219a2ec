"""The wheel holds every package and every file that is read at run time, and the root holds no other module."""

import subprocess
import sys
import tomllib
from pathlib import Path

import tunewright
from tunewright.recipes.catalogue import built_in

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_on_disk_is_listed() -> None:
    inits = (path.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/__init__.py"))
    rooms = [ROOT / path.parent for path in inits if path.parts[0] not in ("build", "tests")]
    found = {"tunewright", *(".".join(("tunewright", *room.relative_to(ROOT).parts)) for room in rooms)}
    assert found == set(SETTINGS["tool"]["setuptools"]["packages"])


def test_the_root_holds_no_module_that_would_ship_by_accident() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_the_version_is_said_once() -> None:
    assert SETTINGS["project"]["version"] == tunewright.__version__


def test_the_files_that_are_read_at_run_time_are_there() -> None:
    from importlib.resources import files

    package = files("tunewright")
    assert package.joinpath("registry.db.sql").is_file()
    assert package.joinpath("starter", "model", "model.safetensors").is_file()
    assert package.joinpath("engine", "data", "templates", "named", "chatml.jinja").is_file()
    assert len(built_in()) >= 3


def test_the_module_runs_from_any_folder(tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tunewright", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == f"tunewright {tunewright.__version__}"
