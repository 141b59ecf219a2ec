"""How a trainer says why it ended: its exit status."""

from __future__ import annotations

FINISHED = 0
CRASHED = 1
REFUSED = 2
"""An expected failure: a TunewrightError, told as an error notice."""
STOPPED = 3
"""Stopped on request, after a save."""
OUT_OF_MEMORY = 4
