"""Where the user's data lives: the registry, the runs and what was measured on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the data folder: TUNEWRIGHT_HOME, or the platform's place for user data."""
    named = os.environ.get("TUNEWRIGHT_HOME")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs  # costs 10 ms, and most tests name the folder themselves

    return Path(platformdirs.user_data_dir("tunewright", appauthor=False))


def runs_folder() -> Path:
    """Return the folder that holds one folder a run."""
    return home() / "runs"


def registry_path() -> Path:
    """Return the registry's SQLite file."""
    return home() / "registry.db"


def settings_path() -> Path:
    """Return the file of the user's own settings."""
    return home() / "settings.toml"


def calibration_path() -> Path:
    """Return the file that keeps what was measured on this machine."""
    return home() / "calibration.json"
