"""Clocks: how long this process has been there, its interpreter's start and imports included."""

from __future__ import annotations

import os
import time
from pathlib import Path


def process_age_seconds() -> float:
    """Return the seconds since this process was started, to a hundredth; psutil's word where there is no /proc."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        import psutil

        return max(0.0, time.time() - psutil.Process().create_time())
