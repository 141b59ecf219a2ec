"""Parquet and Arrow: columns from a file that become rows of plain Python values."""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from ....foundation.text import one_line
from ..examples import Fault, Place
from .batches import BATCH_BYTES, BATCH_ROWS, LONGEST_ROW_BYTES, Batch

_READ_AHEAD_BYTES = 2**20
_ARROW_HEAD_BYTES = 8
Clean = Callable[[Any], Any]


class Columns:
    """The rows of one Parquet or Arrow file; Arrow both as a file and as a stream."""

    def __init__(self, path: Path, kind: str, name: str, read_before: int) -> None:
        """Take the file at `path`, of the kind `parquet` or `arrow`; nothing is read yet."""
        self.path = path
        self.kind = kind
        self.name = name
        self.read_before = read_before
        self.size = path.stat().st_size
        self.row = 0
        """How many rows were read."""
        self.arrow: Any = importlib.import_module("pyarrow")

    def read(self) -> Iterator[Batch]:
        """Yield the rows in batches; where the file is damaged, what is readable and a fault."""
        try:
            for batch, done in self._read_parquet() if self.kind == "parquet" else self._read_arrow():
                read_bytes = self.read_before + int(self.size * done)
                if isinstance(batch, Fault):
                    yield Batch(self.name, self.row + 1, "row", faults=(batch,), read_bytes=read_bytes)
                    self.row = batch.place.number
                else:
                    yield from self._batches(batch, read_bytes)
        except (self.arrow.ArrowException, OSError, ValueError) as error:
            yield self._broken(error)

    def count(self) -> Iterator[tuple[int, float]]:
        """Yield the number of rows up to here and the share of the file that was seen; the last share is 1."""
        try:
            if self.kind == "parquet":
                yield importlib.import_module("pyarrow.parquet").read_metadata(self.path).num_rows, 1.0
                return
            rows = 0
            for batch, done in self._read_arrow(validate=False):
                rows += 0 if isinstance(batch, Fault) else batch.num_rows
                yield rows, done
            yield rows, 1.0
        except (self.arrow.ArrowException, OSError, ValueError):
            return

    def _broken(self, error: Exception) -> Batch:
        reason = one_line(str(error).partition("\n")[0], 160)
        fault = Fault(Place(self.row, "row", self.name), "truncated_file", f"{reason}; readable up to row {self.row}")
        return Batch(self.name, self.row + 1, "row", faults=(fault,), read_bytes=self.read_before + self.size)

    def _read_parquet(self) -> Iterator[tuple[Any, float]]:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        with parquet.ParquetFile(self.path, buffer_size=_READ_AHEAD_BYTES, page_checksum_verification=True) as file:
            metadata = file.metadata
            groups: int = metadata.num_row_groups
            end = 0
            for group in range(groups):
                facts = metadata.row_group(group)
                rows = min(BATCH_ROWS, max(1, BATCH_BYTES * facts.num_rows // max(1, facts.total_byte_size)))
                begin, end = end, end + facts.num_rows
                done = 0
                try:
                    for batch in file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
                        self._validate(batch)
                        done += batch.num_rows
                        yield batch, (group + done / max(1, facts.num_rows)) / groups
                except (self.arrow.ArrowException, OSError, ValueError) as error:
                    words = f"rows {begin + done + 1} to {end} cannot be read: {_reason(error)}"
                    yield Fault(Place(end, "row", self.name), "truncated_file", words), (group + 1) / groups

    def _read_arrow(self, validate: bool = True) -> Iterator[tuple[Any, float]]:
        """Yield record batches; a file whose end is missing is read as the stream that it holds."""
        ipc: Any = importlib.import_module("pyarrow.ipc")
        with self.arrow.OSFile(str(self.path)) as file:
            if file.read(6) == b"ARROW1":
                try:
                    whole = ipc.open_file(file)
                except self.arrow.ArrowInvalid:
                    file.seek(_ARROW_HEAD_BYTES)
                else:
                    for index in range(whole.num_record_batches):
                        done = (index + 1) / whole.num_record_batches
                        try:
                            batch = whole.get_batch(index)
                            if validate:
                                self._validate(batch)
                        except (self.arrow.ArrowException, OSError, ValueError) as error:
                            words = f"piece {index + 1} of {whole.num_record_batches} cannot be read: {_reason(error)}"
                            yield Fault(Place(self.row, "row", self.name), "truncated_file", words), done
                        else:
                            yield batch, done
                    return
                is_cut = True
            else:
                file.seek(0)
                is_cut = False
            for batch in ipc.open_stream(file):
                if validate:
                    self._validate(batch)
                yield batch, file.tell() / max(1, self.size)
            if is_cut:
                raise self.arrow.ArrowInvalid("the end of the file is missing")

    def _validate(self, batch: Any) -> None:
        """Raise ArrowInvalid when the batch leads outside of its buffers, which would end the process.

        Text that is not UTF-8 is no reason: it is found row by row.
        """
        for column in batch.columns:
            try:
                column.validate(full=True)
            except self.arrow.ArrowInvalid as error:
                if "UTF8" not in str(error):
                    raise
                column.view(_bytes_for_text(self.arrow, column.type)).validate(full=True)

    def _batches(self, table: Any, read_bytes: int) -> Iterator[Batch]:
        """Yield the rows of a record batch of any size."""
        step = min(BATCH_ROWS, max(1, BATCH_BYTES * table.num_rows // max(1, table.nbytes)))
        for start in range(0, table.num_rows, step):
            piece = table.slice(start, step)
            values = self._values(piece)
            yield Batch(self.name, self.row + 1, "row", values=tuple(values), read_bytes=read_bytes)
            self.row += len(values)

    def _values(self, piece: Any) -> list[dict[str, Any] | Fault]:
        if piece.num_rows == 1 and piece.nbytes > LONGEST_ROW_BYTES:
            return [Fault(Place(self.row + 1, "row", self.name), "row_too_long", f"{piece.nbytes / 2**20:.0f} MiB")]
        names: list[str] = piece.schema.names
        try:
            columns = [_plain(column) for column in piece.columns]
        except (UnicodeDecodeError, self.arrow.ArrowException, OverflowError) as error:
            if piece.num_rows > 1:
                values: list[dict[str, Any] | Fault] = []
                for index in range(piece.num_rows):
                    single = self._values(piece.slice(index, 1))
                    values += [
                        Fault(Place(each.place.number + index, "row", self.name), each.code, each.problem)
                        if isinstance(each, Fault)
                        else each
                        for each in single
                    ]
                return values
            is_text = isinstance(error, UnicodeDecodeError)
            words = "text that is not UTF-8" if is_text else one_line(f"not readable: {error}", 160)
            return [Fault(Place(self.row + 1, "row", self.name), "not_utf8" if is_text else "not_json", words)]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else []


def _reason(error: Exception) -> str:
    return one_line(str(error).partition("\n")[0], 160).rstrip(".")


def _bytes_for_text(arrow: Any, kind: Any) -> Any:
    """Return the Arrow type `kind` with bytes wherever it has text, which lies the same way in memory."""
    types = arrow.types
    for is_text, instead in (
        (types.is_string, arrow.binary),
        (types.is_large_string, arrow.large_binary),
        (types.is_string_view, arrow.binary_view),
    ):
        if is_text(kind):
            return instead()
    if types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return arrow.struct([field.with_type(_bytes_for_text(arrow, field.type)) for field in fields])
    for is_list, of in ((types.is_list, arrow.list_), (types.is_large_list, arrow.large_list)):
        if is_list(kind):
            return of(kind.value_field.with_type(_bytes_for_text(arrow, kind.value_type)))
    return kind


def _plain(column: Any) -> list[Any]:
    clean = _cleaner(column.type)
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    return values if clean is None else [None if value is None else clean(value) for value in values]


def _cleaner(kind: Any) -> Clean | None:
    """Return what makes plain values of the Python values of an Arrow type; None where they are plain already.

    Fields of structs that are null are left out: Arrow puts them in wherever rows of one column have different keys.
    """
    types: Any = importlib.import_module("pyarrow.types")
    if types.is_struct(kind):
        fields = [(kind.field(index).name, _cleaner(kind.field(index).type)) for index in range(kind.num_fields)]
        cleaned = {name: clean for name, clean in fields if clean is not None}

        def clean_struct(value: dict[str, Any]) -> dict[str, Any]:
            if not cleaned:
                return {key: each for key, each in value.items() if each is not None}
            return {
                key: cleaned[key](each) if key in cleaned else each for key, each in value.items() if each is not None
            }

        return clean_struct
    if types.is_map(kind):
        return _of_each_value(_cleaner(kind.item_type))
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _cleaner(kind.value_type)
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return _of_each(_cleaner(kind.value_type))
    if hasattr(kind, "storage_type"):
        return _cleaner(kind.storage_type)
    if any(is_so(kind) for is_so in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)):
        return _text_of_bytes
    if types.is_binary_view(kind):
        return _text_of_bytes
    if types.is_temporal(kind) or types.is_decimal(kind):
        return _words
    return None


def _of_each(clean: Clean | None) -> Clean | None:
    if clean is None:
        return None
    return lambda values: [None if value is None else clean(value) for value in values]


def _of_each_value(clean: Clean | None) -> Clean | None:
    if clean is None:
        return None
    return lambda values: {key: None if value is None else clean(value) for key, value in values.items()}


def _text_of_bytes(value: Any) -> str | bytes:
    """Return the text in `value`; the bytes themselves, such as a picture, where they are none."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _words(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
