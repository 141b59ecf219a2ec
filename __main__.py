"""The console command: `tunewright`, or `python -m tunewright`."""

from __future__ import annotations

import gc
import sys

OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Python's 700 have it look for garbage hundreds of times among modules that stay: a fifth of the interface's start."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    from .cli.parser import run

    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
