"""Writing that survives a crash: a file is there whole, or it is not there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import TunewrightError, explain_os_error


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Put `content` at `path` in one step: written beside it, flushed to the disk, renamed into place.

    Raises TunewrightError when the folder, the permissions or the disk do not allow it; what was at `path` stays.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, path, "Writing") from error


@contextmanager
def replaced_whole(folder: Path) -> Generator[Path]:
    """Yield an empty folder to write into; after the block, flushed to the disk, it takes the place of `folder`.

    When the block fails what was written is removed, and what was at `folder` stays. What is raised is the block's own.
    """
    aside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            sync_folder(path) if path.is_dir() else _sync_file(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    sync_folder(folder.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open the file at `path` for reading; raises OSError for whatever is not a regular file.

    A pipe in its place would be waited for without end, and opening a device can change it.
    """
    _require_regular(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")


def read_text(path: Path, limit_bytes: int = 64 * 2**20) -> str:
    """Return the UTF-8 text of `path`; raises TunewrightError with the reason when it cannot be read."""
    try:
        with open_regular(path) as file:
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise OSError(errno.EFBIG, f"larger than {limit_bytes / 2**20:g} MiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise explain_os_error(error, path, "Reading") from error
    except UnicodeDecodeError as error:
        raise TunewrightError(
            "Not UTF-8 text",
            f"{path} holds a byte that is not UTF-8 at position {error.start}.",
            f"Convert it, for example: iconv -f UTF-16 -t UTF-8 {path}",
        ) from error


class Stamp(NamedTuple):
    """What changes with a file: when it was last written, in nanoseconds since the epoch, and its size in bytes."""

    written_ns: int
    size: int


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of the file at `path`, None where there is none that can be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Stamp(status.st_mtime_ns, status.st_size)
