"""Untrusted text loses everything that a terminal would obey."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.foundation.text import clean, one_line


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b]52;c;ZXZpbA==\x07name", "name"),  # sets the clipboard
        ("\x1b]0;title\x1b\\name", "name"),
        ("\x9d0;title\x9cname", "name"),  # the same as C1 bytes
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("safe\u202egnp.exe", "safegnp.exe"),  # reorders what follows
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("line\r\nnext\rlast", "line\nnext\nlast"),
        ("\x1bPqsixel\x1b\\done", "done"),
        ("\udcff", "?"),
    ],
)
def test_clean_removes_what_a_terminal_would_obey(hostile: str, harmless: str) -> None:
    assert clean(hostile) == harmless


@given(st.text())
def test_clean_text_holds_no_control_character_and_stays_clean(text: str) -> None:
    cleaned = clean(text)
    assert not [character for character in cleaned if ord(character) < 32 and character not in "\n\t"]
    assert not [character for character in cleaned if 0x7F <= ord(character) <= 0x9F]
    assert clean(cleaned) == cleaned


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert "\n" not in line
    assert len(line) <= limit


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Zoë ordered 3 mugs\n\t— für Malmö: 注文 🎉"
    assert clean(text) == text
