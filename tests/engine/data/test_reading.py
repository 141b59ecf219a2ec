"""Every kind of file gives its rows, and what is wrong with one is told with its place; nothing is lost silently."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import random
import re
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from tunewright.engine.data.examples import Fault, Place, Record
from tunewright.engine.data.findings import CATALOGUE
from tunewright.engine.data.reading import (
    count_rows,
    open_source,
    parse_batch,
    read_batches,
    read_records,
    sample_records,
)
from tunewright.engine.data.reading.batches import BATCH_ROWS, DEEPEST, FILE_CODES, LONGEST_ROW_BYTES

ROWS: list[dict[str, Any]] = [
    {"prompt": f"Wie heißt Nummer {number}? 你好 🙂", "completion": f"“{number}”,\n\tso; heißt | sie", "n": number}
    for number in range(1, 31)
]


def jsonl(rows: Sequence[Any] = ROWS, end: str = "\n", ascii: bool = False) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=ascii) + end for row in rows).encode()


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path | str) -> list[Record | Fault]:
    return list(read_records(open_source(str(path))))


def values(path: Path | str) -> list[dict[str, Any]]:
    found = read(path)
    assert not [each for each in found if isinstance(each, Fault)], found
    return [each.value for each in found if isinstance(each, Record)]


def faults(path: Path | str) -> list[Fault]:
    found = [each for each in read(path) if isinstance(each, Fault)]
    assert all(each.code in CATALOGUE for each in found)
    assert all(each.problem and each.problem.isprintable() for each in found)
    return found


def codes(path: Path | str) -> list[tuple[str, str]]:
    return [(each.code, str(each.place)) for each in faults(path)]


def kept(path: Path | str) -> list[dict[str, Any]]:
    return [each.value for each in read(path) if isinstance(each, Record)]


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstd,
    "bz2": bz2.compress,
    "xz": lambda content: lzma.compress(content, preset=0),
}


# Formats


@pytest.mark.parametrize(
    "content",
    [
        jsonl(),
        jsonl(ascii=True),
        jsonl().rstrip(),
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
        b"[\n" + b",\n".join(jsonl([row]).strip() for row in ROWS) + b"\n]\n",
        json.dumps({"data": ROWS}).encode(),
        json.dumps({"version": "1.0", "meta": {"x": [1, {"y": 2}]}, "rows": ROWS, "n": 3}, indent=1).encode(),
        "\n".join(json.dumps(row, indent=4) for row in ROWS).encode(),
        "".join(json.dumps(row) for row in ROWS).encode(),
        json.dumps(ROWS[:10]).encode() + b"\n" + json.dumps(ROWS[10:]).encode(),
        ",\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    ],
    ids=["lines", "ascii", "no end", "list", "pretty list", "list by lines", "data", "rows", "pretty", "glued", "lists", "commas"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "jsonl", "ndjson", "txt", "data"])
def test_json_is_read_by_what_it_is_and_not_by_its_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    assert values(write(tmp_path / f"rows.{suffix}", content)) == ROWS


def test_a_row_with_turns_is_not_taken_for_a_list_of_rows(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [
        {"messages": turns},
        {"conversations": [{"from": "human", "value": "a"}]},
        {"dialog": turns},
        {"id": 1, "functions": [{"name": "f", "parameters": {}}], "chat": turns},
        {"question": "q", "documents": [{"title": "t"}], "answer": "a"},
        {"documents": [{"title": "t"}], "answer": "a"},
        {"tags": ["a"], "n": 1},
    ]
    for row in rows:
        for indent in (None, 2):
            path = write(tmp_path / "one.json", json.dumps(row, indent=indent))
            assert values(path) == [row]
            path = write(tmp_path / "two.json", json.dumps(row, indent=indent) * 2)
            assert values(path) == [row, row]


def test_json_rows_are_numbered_by_line_or_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\n" + jsonl(ROWS[:1]) + b"  \n\r\n" + jsonl(ROWS[1:2]))
    assert [str(each.place) for each in read(path)] == ["line 2", "line 5"]
    path = write(tmp_path / "a.json", json.dumps(ROWS[:2], indent=2))
    assert [str(each.place) for each in read(path)] == ["row 1", "row 2"]


def test_a_second_list_of_rows_in_one_object_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"train": ROWS, "test": ROWS[:3]}))
    assert kept(path) == ROWS
    (fault,) = faults(path)
    assert fault.code == "unknown_format" and "test" in fault.problem


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", ""])
def test_tables_are_read_with_any_separator(tmp_path: Path, delimiter: str, suffix: str) -> None:
    lines = [delimiter.join(("prompt", "completion", "n"))]
    for row in ROWS:
        lines.append(delimiter.join(f'"{row[key]}"' if key != "n" else str(row[key]) for key in row))
    if suffix == "txt" and delimiter != "\t":
        lines = [line.replace("\n\t", " ") for line in lines]
    path = write(tmp_path / f"table.{suffix}".rstrip("."), "\n".join(lines))
    if suffix in ("csv", "tsv"):
        assert values(path) == [{**row, "n": str(row["n"])} for row in ROWS]


def test_a_table_without_a_telling_name_is_known_by_its_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "part-0000", "a\tb\tc\n" + "1\t2\t3\n" * 5)
    assert values(path) == [{"a": "1", "b": "2", "c": "3"}] * 5


def test_ragged_rows_are_named_with_their_physical_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'q,a\n1,"two\nlines"\nonly\n\n1,2,3\n1,2,\n4,5\n')
    assert kept(path) == [{"q": "1", "a": "two\nlines"}, {"q": "1", "a": "2"}, {"q": "4", "a": "5"}]
    assert codes(path) == [("ragged_row", "line 4"), ("ragged_row", "line 6")]
    assert "3 cells where the header has 2" in faults(path)[1].problem


def test_quotes_astray_cost_one_row_each(tmp_path: Path) -> None:
    good = [f'{number},"answer, {number}"' for number in range(100)]
    for stray in ('x,"never closed', '"x" y,z', 'a,"b" c', '"he said, no'):
        for place in (0, 40, 99):
            lines = good.copy()
            lines[place] = stray
            path = write(tmp_path / "a.csv", "q,a\n" + "\n".join(lines) + "\n")
            assert [(each.code, each.place) for each in faults(path)] == [("ragged_row", Place(place + 2))]
            assert "quotation mark" in faults(path)[0].problem
            assert len(kept(path)) == 99


def test_a_quotation_mark_that_is_never_closed_does_not_take_the_rest_of_a_large_file(tmp_path: Path) -> None:
    rest = f"some text,{'more ' * 2000}\n" * 1800  # 18 MB
    path = write(tmp_path / "a.csv", 'q,a\n1,"never closed\n' + rest)
    found = list(read_records(open_source(str(path))))
    assert [str(each.place) for each in found if isinstance(each, Fault)] == ["line 2"]
    assert len(found) == 1801


def test_backslashes_before_quotes_and_tabs_without_quoting_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "q,a\n" + '"say \\"hi\\", now","b"\n' * 20)
    assert values(path) == [{"q": 'say "hi", now', "a": "b"}] * 20
    path = write(tmp_path / "a.tsv", "q\ta\n" + '"hi\tthere\n' * 20)
    assert values(path) == [{"q": '"hi', "a": "there"}] * 20


def test_columns_without_or_with_equal_names_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",text,text\n0,a,b\n")
    assert values(path) == [{"column 1": "0", "text": "a", "text 2": "b"}]


def test_a_table_without_header_is_named_and_keeps_its_first_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,2\n3,4\n")
    assert codes(path) == [("unknown_format", "line 1")]
    assert kept(path) == [{"column 1": "1", "column 2": "2"}, {"column 1": "3", "column 2": "4"}]


def test_large_cells_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "q,a\nx," + "y" * 2_000_000 + "\n")
    assert len(values(path)[0]["a"]) == 2_000_000


TABLE: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"frage {n}"}, {"role": "assistant", "content": "ja"}], "n": n, "x": None}
    for n in range(2000)
]


def _arrow_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def _arrow_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def _parquet(path: Path, table: pa.Table) -> None:
    pyarrow.parquet.write_table(table, path, row_group_size=700)


def _feather(path: Path, table: pa.Table) -> None:
    pyarrow.feather.write_feather(table, str(path), compression="zstd", chunksize=300)


@pytest.mark.parametrize("save", [_parquet, _arrow_file, _arrow_stream, _feather])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl"])
def test_columns_become_rows(tmp_path: Path, save: Callable[[Path, pa.Table], None], name: str) -> None:
    save(tmp_path / name, pa.Table.from_pylist(TABLE))
    assert values(tmp_path / name) == TABLE
    source = open_source(str(tmp_path / name))
    assert count_rows(source) == (2000, True)
    assert max(len(batch.values) for batch in read_batches(source)) <= BATCH_ROWS
    assert [str(each.place) for each in read(tmp_path / name)[:2]] == ["row 1", "row 2"]


def test_nulls_that_arrow_puts_into_structs_are_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"tools": [{"a": {"x": 1}}, {"b": {"y": None}}], "text": None},
        {"tools": [None, {"b": {"y": "z"}}], "text": "t"},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [
        {"tools": [{"a": {"x": 1}}, {"b": {}}], "text": None},
        {"tools": [None, {"b": {"y": "z"}}], "text": "t"},
    ]


def test_columns_of_every_type_become_plain_values(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    table = pa.table(
        {
            "map": pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int64())),
            "day": pa.array([datetime.date(2024, 5, 1)]),
            "time": pa.array([datetime.datetime(2024, 5, 1, 12)]),
            "price": pa.array([Decimal("1.50")]),
            "bytes": pa.array([b"text"]),
            "picture": pa.array([b"\xff\xd8"]),
            "category": pa.array(["x"]).dictionary_encode(),
            "large": pa.array(["y"], pa.large_string()),
            "view": pa.array(["z"], pa.string_view()),
            "days": pa.array([[datetime.date(2024, 5, 1), None]]),
            "struct": pa.array([{"day": datetime.date(2024, 5, 1), "none": None}]),
        }
    )
    _arrow_file(tmp_path / "a.arrow", table)
    assert values(tmp_path / "a.arrow") == [
        {
            "map": {"a": 1, "b": None},
            "day": "2024-05-01",
            "time": "2024-05-01T12:00:00",
            "price": 1.5,
            "bytes": "text",
            "picture": b"\xff\xd8",
            "category": "x",
            "large": "y",
            "view": "z",
            "days": ["2024-05-01", None],
            "struct": {"day": "2024-05-01"},
        }
    ]


def test_text_is_a_row_a_line_or_a_row_a_paragraph(tmp_path: Path) -> None:
    path = write(tmp_path / "lines.txt", "First line.\n\nSecond line, ä.\nThird.\n")
    assert [(str(each.place), each.value) for each in read(path) if isinstance(each, Record)] == [
        ("line 1", {"text": "First line."}),
        ("line 3", {"text": "Second line, ä."}),
        ("line 4", {"text": "Third."}),
    ]
    path = write(tmp_path / "wrapped.txt", "\n\nOne\ntwo\nthree\n\n  \nFour\nfive\n")
    assert values(path) == [{"text": "One\ntwo\nthree"}, {"text": "Four\nfive"}]
    path = write(tmp_path / "[music].txt", "[Music] la la\n[Music] lo lo\n")
    assert values(path) == [{"text": "[Music] la la"}, {"text": "[Music] lo lo"}]


# Encodings and compression


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("named", [True, False])
def test_compression_is_known_by_content(tmp_path: Path, ending: str, named: bool) -> None:
    pack = PACKERS[ending]
    path = write(tmp_path / (f"a.jsonl.{ending}" if named else "a.jsonl"), pack(jsonl()))
    assert values(path) == ROWS
    assert values(write(tmp_path / f"two.json.{ending}", pack(jsonl(ROWS[:9])) + pack(jsonl(ROWS[9:])))) == ROWS
    assert values(write(tmp_path / f"list.json.{ending}", pack(json.dumps(ROWS, indent=1).encode()))) == ROWS
    assert len(values(write(tmp_path / f"a.csv.{ending}", pack(b"a,b\n" + b"1,2\n" * 99)))) == 99
    assert count_rows(open_source(str(path))) == (30, True)


@pytest.mark.parametrize("ending", PACKERS)
def test_a_large_compressed_file_is_read_whole(tmp_path: Path, ending: str) -> None:
    number = random.Random(1)
    rows = [{"text": number.randbytes(500).hex() + "x" * 2000, "n": n} for n in range(4000)]
    path = write(tmp_path / "a.jsonl", PACKERS[ending](jsonl(rows)))
    assert values(path) == rows
    last = list(read_batches(open_source(str(path))))[-1]
    assert last.read_bytes == path.stat().st_size


@pytest.mark.parametrize("ending", PACKERS)
def test_a_truncated_archive_is_named_with_its_row(tmp_path: Path, ending: str) -> None:
    number = random.Random(1)
    rows = [{"text": number.randbytes(200).hex(), "n": n} for n in range(5000)]
    packed = PACKERS[ending](jsonl(rows))
    path = write(tmp_path / "a.jsonl", packed[: len(packed) * 2 // 3])
    found = kept(path)
    assert found == rows[: len(found)]
    assert len(found) > (2000 if ending in ("gz", "zst") else 1)
    (fault,) = faults(path)
    assert fault.code == "truncated_file"
    assert fault.place == Place(len(found))
    assert f"readable up to line {len(found)}" in fault.problem


@pytest.mark.parametrize("ending", PACKERS)
def test_a_damaged_archive_is_named(tmp_path: Path, ending: str) -> None:
    number = random.Random(1)
    packed = bytearray(PACKERS[ending](jsonl([{"text": number.randbytes(200).hex()} for _ in range(5000)])))
    packed[len(packed) // 2 : len(packed) // 2 + 200] = b"\x55" * 200
    path = write(tmp_path / "a.jsonl", bytes(packed))
    # Without a checksum a damaged piece may unpack to something, and its rows are no JSON.
    assert faults(path)[-1].code in ("truncated_file", *(("not_json", "not_utf8") if ending == "zst" else ()))


def test_zeros_after_an_archive_are_padding_and_other_bytes_are_damage(tmp_path: Path) -> None:
    assert values(write(tmp_path / "a.gz", gzip.compress(jsonl()) + bytes(1000))) == ROWS
    path = write(tmp_path / "b.gz", gzip.compress(jsonl()) + b"garbage")
    assert kept(path) == ROWS
    assert [code for code, _ in codes(path)] == ["truncated_file"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("kind", ["lines", "list", "table"])
def test_other_encodings_are_read_and_told(tmp_path: Path, encoding: str, mark: bool, kind: str) -> None:
    if encoding.startswith("utf-32") and not mark:
        pytest.skip("UTF-32 is only known by its mark")
    text = jsonl().decode() if kind == "lines" else json.dumps(ROWS, ensure_ascii=False, indent=1)
    if kind == "table":
        text = "prompt,completion\n" + "你好 🙂,“ja”\n" * 30
    path = write(tmp_path / f"a.{'csv' if kind == 'table' else 'json'}", ("\ufeff" * mark + text).encode(encoding))
    expected = [{"prompt": "你好 🙂", "completion": "“ja”"}] * 30 if kind == "table" else ROWS
    assert kept(path) == expected
    assert codes(path) == ([] if encoding == "utf-8" else [("utf16", "the file")])


def test_half_a_character_at_the_end_of_utf16_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ("\ufeff" + jsonl().decode()).encode("utf-16-le") + b"{")
    assert kept(path) == ROWS
    assert [code for code, _ in codes(path)] == ["utf16", "truncated_file"]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\r\n", "\n\n"])
def test_every_line_end_is_understood(tmp_path: Path, end: str) -> None:
    assert values(write(tmp_path / "a.jsonl", jsonl(end=end))) == ROWS
    assert values(write(tmp_path / "a.csv", end.join(["a,b", *["1,2"] * 40]))) == [{"a": "1", "b": "2"}] * 40
    assert values(write(tmp_path / "a.txt", f"one{end}two{end}")) == [{"text": "one"}, {"text": "two"}]
    assert count_rows(open_source(str(tmp_path / "a.jsonl"))) == (30, True)


def test_zeros_of_preallocated_files_are_padding(tmp_path: Path) -> None:
    for content in (
        jsonl() + bytes(5_000_000),
        bytes(3_000_000) + jsonl(),
        jsonl(ROWS[:3]) + bytes(99) + b"\n" + jsonl(ROWS[3:]),
    ):
        path = write(tmp_path / "a.jsonl", content)
        assert values(path) == ROWS
        assert count_rows(open_source(str(path))) == (30, True)


def test_a_byte_order_mark_in_the_middle_of_joined_files_is_passed_over(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert values(write(tmp_path / "a.jsonl", mark + jsonl(ROWS[:9]) + mark + jsonl(ROWS[9:]))) == ROWS


# What is wrong


@pytest.mark.parametrize(
    ("line", "code", "problem"),
    [
        (b'{"a": 1', "not_json", "column 8"),
        (b"{'a': 1}", "not_json", "Python's way"),
        (b'{"a": 1} {"b": 2}', "not_json", "more text after the object"),
        (b"hello", "not_json", "Expecting value"),
        (b"[1]", "not_object", "a list"),
        (b'"x"', "not_object", "a text"),
        (b"17", "not_object", "a number"),
        (b"null", "not_object", "null"),
        (b'{"a": "\xff"}', "not_utf8", "0xff"),
        (b'{"a": "\xed\xa0\x80"}', "not_utf8", "0xed"),
        (b'{"a": "\\ud83d"}', "not_utf8", "surrogate"),
        (b'{"a": "\\uDE00"}', "not_utf8", "surrogate"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested_too_deeply", "64"),
        (b'{"a": ' * 100_000, "nested_too_deeply", "64"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_json", "not JSON"),
        (b'{"a": "\x1b[2J"}', "not_json", "control character"),
    ],
)
@pytest.mark.parametrize("in_list", [False, True])
def test_each_bad_row_is_named_and_costs_no_other(
    tmp_path: Path, line: bytes, code: str, problem: str, in_list: bool
) -> None:
    lines = [jsonl([row]).strip() for row in ROWS]
    lines.insert(17, line)
    if in_list:
        path = write(tmp_path / "a.json", b"[\n" + b",\n".join(lines) + b"\n]")
        if line == b'{"a": 1} {"b": 2}':
            assert len(kept(path)) == 32  # A forgotten comma between two rows.
            return
    else:
        path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    (fault,) = faults(path)
    assert (fault.code, fault.place) == (code, Place(18, "row" if in_list else "line"))
    if not in_list:
        assert problem in fault.problem
    assert kept(path) == ROWS


def test_pairs_of_surrogates_and_nesting_up_to_the_limit_are_fine(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(DEEPEST - 1):
        deep = [deep]
    rows = [{"a": "🙂" * 3}, {"a": deep}, {"a": [[]] * 500}]
    assert values(write(tmp_path / "a.jsonl", jsonl(rows, ascii=True))) == rows


def test_a_list_that_is_cut_is_named_with_its_last_row(tmp_path: Path) -> None:
    for indent in (None, 2):
        whole = json.dumps(ROWS, indent=indent)
        path = write(tmp_path / "a.json", whole[: whole.index('"n": 20')])
        assert kept(path) == ROWS[:19]
        assert codes(path) == [("truncated_file", "row 19")]
        path = write(tmp_path / "a.json", whole.rstrip("]\n"))
        assert kept(path) == ROWS
        assert codes(path) == [("truncated_file", "row 30")]


@pytest.mark.parametrize("save", [_parquet, _arrow_file, _arrow_stream])
def test_a_truncated_table_gives_what_is_readable(tmp_path: Path, save: Callable[[Path, pa.Table], None]) -> None:
    path = tmp_path / "a.table"
    save(path, pa.Table.from_pylist(TABLE))
    write(path, path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = kept(path)
    assert found == TABLE[: len(found)]
    assert codes(path) == [("truncated_file", f"row {len(found)}" if found else "the file")]
    assert found or save is _parquet


def test_a_damaged_group_of_rows_costs_only_that_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(TABLE)
    pyarrow.parquet.write_table(table, path, row_group_size=500, compression="none", use_dictionary=False, write_page_checksum=True)  # fmt: skip
    content = bytearray(path.read_bytes())
    at = content.index(b"frage 600")
    content[at : at + 9] = b"\xff" * 9
    write(path, bytes(content))
    found = kept(path)
    assert found[:500] == TABLE[:500] and found[-1000:] == TABLE[1000:]
    (fault,) = faults(path)
    assert (fault.code, fault.place.number) == ("truncated_file", 1000)
    assert [each.place.number for each in read(path) if isinstance(each, Record)][-1] == 2000


def test_a_table_that_leads_outside_of_its_buffers_does_not_end_the_process(tmp_path: Path) -> None:
    table = pa.table({"x": [[{"text": "first"}]] * 9, "y": ["second"] * 9})
    for save in (_arrow_file, _arrow_stream):
        save(tmp_path / "a.arrow", table)
        whole = (tmp_path / "a.arrow").read_bytes()
        number = random.Random(11)
        for _ in range(150):
            content = bytearray(whole)
            for _ in range(number.choice([1, 3, 10])):
                content[number.randrange(8, len(content))] = number.choice([0, 1, 127, 255])
            for each in read(write(tmp_path / "b.arrow", bytes(content))):
                assert isinstance(each, Record) or each.code in CATALOGUE


def test_text_in_a_column_that_is_not_utf8_is_named_with_its_row(tmp_path: Path) -> None:
    column = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    _arrow_file(tmp_path / "a.arrow", pa.table({"text": column}))
    assert kept(tmp_path / "a.arrow") == [{"text": "good"}, {"text": "fine"}]
    assert codes(tmp_path / "a.arrow") == [("not_utf8", "row 2")]


@pytest.mark.parametrize("content", [b"", b"\n\n  \r\n", b"\0" * 5000, b"\xef\xbb\xbf", b"[]", b"[\n]\n", gzip.compress(b"", mtime=0), b"[ ]"])  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "txt", "parquet"])
def test_a_file_without_rows_is_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", content)
    if content.startswith(b"[") and suffix not in ("json", "jsonl"):
        return
    assert [code for code, _ in codes(path)] == ["empty_file"]
    assert count_rows(open_source(str(path))) == (0, True)


def test_tables_without_rows_are_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert [code for code, _ in codes(tmp_path / "a.parquet")] == ["empty_file"]
    assert [code for code, _ in codes(write(tmp_path / "a.csv", "a,b\n"))] == ["empty_file"]


def test_one_empty_file_among_others_is_nothing_special(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b"")
    write(tmp_path / "b.jsonl", jsonl())
    assert values(tmp_path) == ROWS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(50), "ZIP"),
        (b"\x80\x04\x95" + pickle.dumps({"a": 1}), "pickle"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (gzip.compress(b"name" + bytes(253) + b"ustar" + bytes(300), mtime=0), "tar"),
        (random.Random(3).randbytes(5000).replace(b"\n", b""), "not text"),
    ],
)
def test_strangers_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (fault,) = faults(write(tmp_path / "a.jsonl", content))
    assert fault.code == "unknown_format"
    assert words in fault.problem


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl(ROWS * 2000))
    batches = read_batches(open_source(str(path)))
    next(batches)
    with path.open("ab") as file:
        file.write(jsonl(ROWS[:1]))
    assert [fault.code for batch in batches for fault in batch.faults] == ["file_changed"]


def test_a_file_that_is_replaced_or_deleted_while_it_is_read_is_named(tmp_path: Path) -> None:
    for change in (lambda path: os.replace(write(tmp_path / "new", jsonl()), path), Path.unlink):
        path = write(tmp_path / "a.jsonl", jsonl(ROWS * 2000))
        batches = read_batches(open_source(str(path)))
        next(batches)
        change(path)
        assert [fault.code for batch in batches for fault in batch.faults] == ["file_changed"]


# Sizes


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt"])
def test_a_row_that_is_too_long_is_passed_over_and_named(tmp_path: Path, suffix: str) -> None:
    long = "x" * (LONGEST_ROW_BYTES + 3_000_000)
    content = {
        "jsonl": f'{{"a": "b"}}\n{{"a": "{long}"}}\n{{"a": "c"}}\n',
        "json": f'[{{"a": "b"}}, {{"a": "{long}"}}, {{"a": "c"}}]',
        "csv": f"a,d\nb,e\n{long},e\nc,e\n",
        "txt": f"b\n{long}\nc\n",
    }[suffix]
    path = write(tmp_path / f"a.{suffix}", content)
    assert [next(iter(value.values())) for value in kept(path)] == ["b", "c"]
    where = {"json": "row 2", "csv": "line 3"}.get(suffix, "line 2")
    assert codes(path) == [("row_too_long", where)]


@pytest.mark.parametrize("start", ['{"a": "', '[{"a": "', '[\n{"a": "b"},\n{"a": "', "a,b\n1,"])
def test_a_line_without_end_takes_no_memory(tmp_path: Path, start: str) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(start.encode())
        for _ in range(100):
            file.write(b"x" * 2**20)
    source = open_source(str(path))
    tracemalloc.start()
    found = [
        fault.code
        for batch in read_batches(source)
        for fault in (*batch.faults, *batch.values)
        if isinstance(fault, Fault)
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "row_too_long" in found
    assert peak < 90 * 2**20


def test_a_sparse_file_of_zeros_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(300_000_000)
    assert [code for code, _ in codes(path)] == ["empty_file"]


def test_batches_are_small_in_order_and_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    rows = [{"n": n} for n in range(5000)]
    path = write(tmp_path / "a.jsonl", jsonl(rows))
    batches = [pickle.loads(pickle.dumps(batch)) for batch in read_batches(open_source(str(path)))]
    assert all(len(batch.lines) <= BATCH_ROWS for batch in batches)
    assert [row.value["n"] for batch in batches for row in parse_batch(batch)] == list(range(5000))
    assert [row.place.number for batch in batches for row in parse_batch(batch)] == list(range(1, 5001))
    done = [batch.read_bytes for batch in batches]
    assert done == sorted(done) and done[-1] == path.stat().st_size


def test_lines_across_blocks_are_whole(tmp_path: Path) -> None:
    number = random.Random(7)
    rows = [{"n": n, "text": "äx" * number.choice([1, 50, 3000, 800_000])} for n in range(60)]
    assert values(write(tmp_path / "a.jsonl", jsonl(rows))) == rows
    assert values(write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False))) == rows
    assert values(write(tmp_path / "b.json", json.dumps({"data": rows}, indent=1))) == rows


# Several files


def test_files_of_different_kinds_in_a_folder_are_read_in_order_with_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", "a,b\n1,2\n")
    write(tmp_path / "a.jsonl", '{"x": 1}\n')
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "c.json.gz", gzip.compress(b'[{"y": 1}, 3]'))
    found = read(tmp_path)
    assert [str(each.place) for each in found] == [
        "a.jsonl line 1",
        "b.csv row 1",
        "sub/c.json.gz row 1",
        "sub/c.json.gz row 2",
    ]
    assert [type(each) for each in found] == [Record, Record, Record, Fault]
    assert count_rows(open_source(str(tmp_path))) == (4, True)
    last = list(read_batches(open_source(str(tmp_path))))[-1]
    assert last.read_bytes == open_source(str(tmp_path)).total_bytes


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", jsonl())
    (tmp_path / "link").symlink_to(tmp_path / "a.jsonl")
    assert values(tmp_path / "link") == ROWS


def test_the_fingerprint_tells_content_and_names_and_not_places(tmp_path: Path) -> None:
    prints = set[str]()
    for folder, content in (("one", jsonl()), ("two", jsonl()), ("three", jsonl() + b"\n")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.jsonl", content)
        write(tmp_path / folder / "b.jsonl", content)
        prints.add(open_source(str(tmp_path / folder)).fingerprint())
    assert len(prints) == 2
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in prints)


def test_the_fingerprint_of_a_large_file_sees_its_ends_and_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    source = open_source(str(path))
    seen = {source.fingerprint()}
    for place in (0, 199_999_999):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        seen.add(source.fingerprint())
    os.truncate(path, 200_000_001)
    seen.add(source.fingerprint())
    assert len(seen) == 4


def test_the_stamp_changes_when_a_file_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl())
    source = open_source(str(path))
    before = source.stamp()
    assert source.stamp() == before
    os.utime(path, ns=(1, 1))
    assert source.stamp() != before


# Samples and counts


def test_a_sample_of_a_large_file_reaches_its_middle_and_its_end(tmp_path: Path) -> None:
    rows = [{"n": n, "text": "x" * 500} for n in range(40_000)]
    path = write(tmp_path / "a.jsonl", jsonl(rows))
    found = [each for each in sample_records(open_source(str(path)), 1000, 30) if isinstance(each, Record)]
    numbers = [each.value["n"] for each in found]
    assert 900 <= len(found) <= 1000 and len(set(numbers)) == len(numbers)
    assert numbers[:100] == list(range(100)) and numbers[-1] == 39_999
    assert any(15_000 < number < 25_000 for number in numbers)
    assert all(each.place.number == each.value["n"] + 1 for each in found)


def test_a_sample_of_many_files_looks_into_some_of_them(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"{number:02}.jsonl", jsonl([{"file": number, "n": n} for n in range(100)]))
    found = [each for each in sample_records(open_source(str(tmp_path)), 400, 30) if isinstance(each, Record)]
    assert len(found) == 400
    assert {each.value["file"] for each in found} >= {0, 29}


def test_a_sample_names_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "a.jsonl", b"")))
    assert [each.code for each in sample_records(source) if isinstance(each, Fault)] == ["empty_file"]
    source = open_source(str(write(tmp_path / "a.jsonl", b"PK\x03\x04")))
    assert [each.code for each in sample_records(source) if isinstance(each, Fault)] == ["unknown_format"]


def test_blank_lines_are_not_counted_wherever_they_stand(tmp_path: Path) -> None:
    number = random.Random(5)
    for _ in range(20):
        parts = [
            number.choice([b"{}", b" {}", b"", b"  ", b"\t{}\r", b"\r", b"\0", b" " * 700_000, b"{}" + b" " * 600_000])
            for _ in range(60)
        ]
        path = write(tmp_path / "a.jsonl", b"\n".join(parts))
        assert count_rows(open_source(str(path)), 60) == (sum(bool(part.strip(b" \t\r\0")) for part in parts), True)


def test_a_count_that_takes_too_long_is_estimated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl([{"text": "x" * 100}] * 100_000))
    rows, exact = count_rows(open_source(str(path)), seconds=0)
    assert not exact and rows == pytest.approx(100_000, rel=0.02)
    path = write(tmp_path / "a.csv", "a,b\n" + "x,y\n" * 1_000_000)
    rows, exact = count_rows(open_source(str(path)), seconds=0)
    assert not exact and rows == pytest.approx(1_000_000, rel=0.4)


def test_a_limit_stops_the_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl())
    assert len(list(read_records(open_source(str(path)), limit=7))) == 7


def test_codes_of_files_are_in_the_catalogue() -> None:
    assert set(CATALOGUE) >= FILE_CODES


def test_rows_behind_an_endless_first_line_are_sampled(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b"x" * (96 * 2**20) + b"\n")
        file.writelines(b'{"text": "row %d"}\n' % number for number in range(50))
    sample = sample_records(open_source(str(path)), seconds=0.01)
    assert sum(isinstance(each, Record) for each in sample) == 50
