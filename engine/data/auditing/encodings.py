"""Text that was decoded wrongly, and characters that have no business in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ....foundation.text import one_line

# What the bytes 80 to BF of UTF-8 become when they are read as Latin-1 or as Windows-1252.
_WINDOWS = {bytes((each,)).decode("cp1252", "ignore") or chr(each): each for each in range(0x80, 0xA0)}
_BYTES: dict[str, int] = {chr(each): each for each in range(0x80, 0x100)} | _WINDOWS
_CONTINUED = "[" + "".join(re.escape(character) for character, byte in _BYTES.items() if byte < 0xC0) + "]"
# A quick look first: where no such two characters follow one another, nothing is wrong.
_LIKELY = re.compile(f"[\u00c2-\u00f4]{_CONTINUED}")
_SEQUENCE = re.compile(f"[\u00c2-\u00df]{_CONTINUED}|[\u00e0-\u00ef]{_CONTINUED}{{2}}|[\u00f0-\u00f4]{_CONTINUED}{{3}}")
_QUOTES = frozenset("\"'`“”‘’„‚«»‹›()[]<>|")
# What may follow a capital letter in correct text and be taken for the second half of a sequence.
_CLOSING = frozenset("“”‘’„‚«»‹›…–—™ \u00a0°·")
_PLAUSIBLE: tuple[tuple[int, int], ...] = (
    (0xA0, 0x180), (0x1A0, 0x1A2), (0x1AF, 0x1B1), (0x218, 0x21C), (0x391, 0x3CF), (0x410, 0x458), (0x490, 0x492), (0x5D0, 0x5EB),
    (0x621, 0x660), (0x67E, 0x6D4), (0x901, 0x970), (0xE01, 0xE5C), (0x1EA0, 0x1EFA), (0x2010, 0x2028), (0x2030, 0x203B), (0x20AC, 0x20AD),
    (0x2122, 0x2123), (0x2190, 0x2200), (0x2200, 0x2300), (0x2500, 0x2800), (0x3001, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4),
    (0xFF01, 0xFF5F), (0xFE0F, 0xFE10), (0x1F300, 0x1FB00),
)  # fmt: skip
_BROKEN_CHARACTER = "\ufffd"
_SHOWN = 24


def broken_encoding(text: str) -> str | None:
    """Return the first word that was decoded wrongly (such as “cafÃ©”), clean for the terminal; None where none was.

    A text that quotes such a word, or that has more letters decoded rightly than wrongly, is not broken.
    """
    if text.isascii():
        return None
    if found := _find_mojibake(text):
        start, end = _token(text, found[0][0])
    elif _BROKEN_CHARACTER in text and (place := _find_replaced(text)) is not None:
        start, end = _token(text, place)
    else:
        return None
    return one_line(text[start:end], _SHOWN)


def mend_encoding(text: str) -> str:
    """Return `text` with what was UTF-8 read as Latin-1 or Windows-1252 read rightly; what is lost (�) stays."""
    # Text may have been broken twice.
    for _ in range(3):
        found = [] if text.isascii() else _find_mojibake(text)
        if not found:
            break
        parts: list[str] = []
        end = 0
        for start, stop, meant in found:
            parts += (text[end:start], meant)
            end = stop
        text = "".join((*parts, text[end:]))
    return text


def _find_mojibake(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, what it was) of every wrong sequence; none where they may be meant."""
    first = _LIKELY.search(text)
    if first is None:
        return []
    found = list(_sequences(text, first.start()))
    if not found:
        return []
    # Chinese, and correct French as in « café », need more of a proof: such sequences one after another.
    wide = [each for each in found if "\u00e0" <= text[each[0]] <= "\u00ef" and text[each[0]] != "â"]
    narrow = len(found) - len(wide)
    proofs = (
        sum(one[1] == other[0] for one, other in pairwise(wide))
        + sum(text[end : end + 1].isalpha() for _, end, _ in wide) // 2
    )
    if not narrow and not proofs:
        return []
    wrong = sum(end - start for start, end, _ in found)
    right = len(text) - len(text.encode("ascii", "ignore")) - wrong
    if right > len(found):
        return []
    if len(found) > 1:
        return found
    return found if _is_sure(text, *found[0]) else []


def _sequences(text: str, start: int) -> Iterator[tuple[int, int, str]]:
    for each in _SEQUENCE.finditer(text, start):
        sequence = each.group()
        try:
            meant = bytes(map(_BYTES.__getitem__, sequence)).decode()
        except UnicodeDecodeError:
            continue
        begin, end = each.span()
        code = ord(meant)
        if not any(low <= code < high for low, high in _PLAUSIBLE):
            continue
        # MENÜ“ is a word in capitals and a closing quotation mark.
        if (
            sequence[-1] in _CLOSING
            and len(sequence) == 2
            and sequence[0] not in "ÃÂ"
            and text[begin - 1 : begin].isupper()
        ):
            continue
        if sequence[0] in "ÃÂ" and sequence[-1] in "“”‘’»" and text[begin - 1 : begin].isupper():
            continue
        if not _is_quoted(text, begin):
            yield begin, end, meant


def _is_sure(text: str, start: int, end: int, meant: str) -> bool:
    """Tell whether a sequence that is the only one can hardly be meant."""
    lead = text[start]
    inside = text[start - 1 : start].isalpha() or text[end : end + 1].isalpha()
    if lead == "Ã":
        return inside and meant.isalpha()
    if lead == "Â":
        return not text[start - 1 : start].isupper()
    if lead == "ð":
        return len(meant.encode()) == 4
    return lead == "â" and text[start + 1] in "€\x80„™\x84†\x86‰ˆ" and 0x2010 <= ord(meant) < 0x2800


def _token(text: str, place: int) -> tuple[int, int]:
    """Return where the word around a place begins and ends."""
    start = end = place
    while start > 0 and place - start < 40 and text[start - 1] not in " \t\r\n":
        start -= 1
    while end < len(text) and end - place < 40 and text[end] not in " \t\r\n":
        end += 1
    return start, end


def _is_quoted(text: str, place: int) -> bool:
    """Tell whether the word at a place stands alone in quotation marks, as an example of something."""
    start, end = _token(text, place)
    word = text[start:end].rstrip(".,;:!?")
    return len(word) > 2 and word[0] in _QUOTES and word[-1] in _QUOTES


def _find_replaced(text: str) -> int | None:
    """Return where the first replacement character stands in for lost text, unless it is only spoken of."""
    places = [each.start() for each in re.finditer(_BROKEN_CHARACTER, text)]
    lost = [each for each in places if not _is_quoted(text, each)]
    for place in lost:
        if len(lost) > 1 or text[place - 1 : place].isalpha() or text[place + 1 : place + 2].isalpha():
            return place
    return None


# Characters that a text should not have.

_CONTROLS = bytes((*range(9), 11, 12, *range(14, 32), 127))
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def control_characters(text: str) -> bool:
    """Tell whether there are control characters (but tab and line ends), terminal escapes or reordering marks."""
    if text.isascii():
        return len(text.encode().translate(None, _CONTROLS)) != len(text)
    return _CONTROL.search(text) is not None
