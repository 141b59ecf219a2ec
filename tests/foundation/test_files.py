"""A file is there whole, or it is not there; and every refusal says what to do."""

import errno
import os
from pathlib import Path

import pytest
from tunewright.foundation.errors import TunewrightError, explain_os_error, nearest
from tunewright.foundation.files import read_text, write_atomically


def test_write_replaces_whole_files_and_leaves_nothing_beside_them(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    write_atomically(target, "first")
    write_atomically(target, "second ✓")
    assert target.read_text(encoding="utf-8") == "second ✓"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_explained_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.txt"
    write_atomically(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TunewrightError, match="disk is full"):
        write_atomically(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("make", "title"),
    [
        (lambda path: None, "File not found"),
        (lambda path: path.mkdir(), "A folder, not a file"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "Not UTF-8 text"),
    ],
)
def test_reading_what_is_no_text_file_says_why(tmp_path: Path, make: object, title: str) -> None:
    path = tmp_path / "thing"
    make(path)  # type: ignore[operator]
    with pytest.raises(TunewrightError) as caught:
        read_text(path)
    assert caught.value.title == title
    assert caught.value.remedy


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EISDIR, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_every_error_of_the_system_has_three_parts(number: int) -> None:
    error = explain_os_error(OSError(number, os.strerror(number)), Path("/x"), "Writing")
    assert error.title and error.message and error.remedy
    assert "/x" in error.message


def test_nearest_finds_the_typing_error_and_nothing_far() -> None:
    assert nearest("learnin_rate", ["learning_rate", "epochs"]) == "learning_rate"
    assert nearest("zzz", ["learning_rate", "epochs"]) is None
