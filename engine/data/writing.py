"""Writing rows: new files only, whole or not at all, never over what is there."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.files import sync_folder


@contextlib.contextmanager
def new_rows_file(target: Path) -> Generator[Callable[[Any], None]]:
    """Give a function that writes one row as a line of JSON; the file is at `target` when the block ends, else not at all.

    A name that ends in .gz is compressed. Raises TunewrightError when `target` is there already, or cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise TunewrightError(
            "File exists", f"{target} is there already.", "Choose a new name; nothing is overwritten."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise explain_os_error(error, target, "Writing") from error
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with _packed(raw, target) as file:

                def write(row: Any) -> None:
                    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

                yield write
            raw.flush()
            os.fsync(raw.fileno())
        aside.chmod(0o644)
        os.link(aside, target)  # fails when somebody else made the file meanwhile
        sync_folder(target.parent)
    except OSError as error:
        raise explain_os_error(error, target, "Writing") from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _packed(raw: IO[bytes], target: Path) -> Generator[IO[bytes]]:
    if target.suffix == ".gz":
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
            yield file  # pyright: ignore[reportReturnType]
    else:
        yield raw
