"""Packed rows: a row as few bytes, whose columns a schema beside the rows names.

A row is, all numbers little-endian:

    1 byte      1, the version of this format; a row that begins with `{` is a JSON object instead
    4 bytes     the schema's id: the first bytes of SHA-256 over its text
    n/8 bytes   nulls, rounded up: bit i % 8 of byte i // 8 is set where column i is null
    slots       a value of fixed width for each column, in the schema's order; zero where it is null
    the rest    the bytes of the columns without a width, in order: their slots hold their lengths

Numbers are as they are, a Date is its days since 1970, a Time its nanoseconds, an instant its microseconds. Text is
UTF-8. All else is the JSON that the wire format gives it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Any, NamedTuple, Self, TypeAlias

import polars as pl

from mlforge.core.feature_spec import SOURCE
from mlforge.core.schema import FLOATS, INSTANT, Schema
from mlforge.core.values import from_us
from mlforge.frames.encoding import json_texts, json_value, key_hashes
from mlforge.frames.polars_schema import dtype_text
from mlforge.online.chunks import ENCODED_AT_ONCE, Rows, slices
from mlforge.online.decoding import Misfit, Row, SameDtype, decode_rows, decoder, parse_rows

FORMAT = 1
ID_BYTES = 4
_HEAD = 1 + ID_BYTES
_JSON = b"{"
_LENGTH = "I"
_SLOTS: Mapping[str, str] = {
    "Int8": "b",
    "Int16": "h",
    "Int32": "i",
    "Int64": "q",
    "UInt8": "B",
    "UInt16": "H",
    "UInt32": "I",
    "UInt64": "Q",
    "Float32": "f",
    "Float64": "d",
    "Boolean": "?",
    "Date": "i",
    "Time": "q",
    INSTANT: "q",
}
_DAY_ZERO = date(1970, 1, 1).toordinal()
_MIDNIGHT = datetime(1970, 1, 1)  # noqa: DTZ001 - a time of day has no zone
_READERS_KEPT = 64
Decode: TypeAlias = Callable[[Any], Any]
Read: TypeAlias = Callable[[bytes], Row]


def _date(days: int) -> date:
    return date.fromordinal(days + _DAY_ZERO)


def _time(nanoseconds: int) -> time:
    if not 0 <= nanoseconds < 86_400 * 10**9:
        raise ValueError(nanoseconds)
    return (_MIDNIGHT + timedelta(microseconds=nanoseconds // 1_000)).time()


_FIXED: Mapping[str, Decode] = {"Date": _date, "Time": _time, INSTANT: from_us}


def _text(piece: bytes) -> str:
    return piece.decode()


def _of_json(dtype: str) -> Decode:
    """The value of a JSON text; plain JSON for a dtype that no column of training has."""
    try:
        decode = decoder(dtype)
    except KeyError:
        return json.loads
    return lambda piece: decode([json.loads(piece)])[0]


class NamedDtype(NamedTuple):
    """A column's name and dtype."""

    name: str
    dtype: str


@dataclass(frozen=True)
class RowSchema:
    """The columns of packed rows, in the order of their slots."""

    columns: tuple[NamedDtype, ...]

    @classmethod
    def of(cls, frame: pl.DataFrame, values: Sequence[str]) -> Self:
        """The schema of these columns of a frame; all instants are of one dtype."""
        dtypes = ((name, frame.schema[name]) for name in values)
        return cls(
            tuple(
                NamedDtype(name, INSTANT if isinstance(dtype, pl.Datetime) else dtype_text(dtype))
                for name, dtype in dtypes
            )
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The schema of a text; ValueError for a text that is none."""
        columns = json.loads(text)
        if not isinstance(columns, list) or not all(
            isinstance(column, list) and [type(part) for part in column] == [str, str]
            for column in columns
        ):
            raise ValueError("it is no list of names and dtypes")
        return cls(tuple(NamedDtype(*column) for column in columns))

    @cached_property
    def text(self) -> str:
        """The schema as JSON: a list of names and dtypes."""
        return json.dumps(self.columns, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def id(self) -> bytes:
        """The first bytes of the hash of its text, by which rows name it."""
        return sha256(self.text.encode()).digest()[:ID_BYTES]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def width(self) -> int:
        """The bytes of a row without its columns of no fixed width."""
        return self._slots.size

    @cached_property
    def _slots(self) -> struct.Struct:
        return struct.Struct(f"<B{ID_BYTES}s{'B' * self._masks}{self._codes}")

    @cached_property
    def _values(self) -> struct.Struct:
        return struct.Struct(f"<{_HEAD + self._masks}x{self._codes}")

    @cached_property
    def _codes(self) -> str:
        return "".join(_SLOTS.get(column.dtype, _LENGTH) for column in self.columns)

    @cached_property
    def _masks(self) -> int:
        return -(-len(self.columns) // 8)

    @cached_property
    def _variable(self) -> tuple[tuple[int, Decode], ...]:
        return tuple(
            (position, _text if column.dtype == "String" else _of_json(column.dtype))
            for position, column in enumerate(self.columns)
            if column.dtype not in _SLOTS
        )

    @cached_property
    def _converted(self) -> tuple[tuple[int, Decode], ...]:
        return tuple(
            (position, _FIXED[column.dtype])
            for position, column in enumerate(self.columns)
            if column.dtype in _FIXED
        )

    @cached_property
    def _floats(self) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
        floats = [at for at, column in enumerate(self.columns) if column.dtype in FLOATS]
        if not floats:
            return None
        # Of one index, itemgetter gives the item itself; twice the same, a pair.
        return itemgetter(*(floats * 2 if len(floats) == 1 else floats))

    def pack(self, frame: pl.DataFrame) -> list[bytes]:
        """Each row of a frame that has this schema's columns; DataError for a value without JSON where it takes that."""
        fixed: list[pl.Expr | pl.Series] = []
        tails: list[list[bytes]] = []
        nulls: list[pl.Expr] = []
        for name, dtype in self.columns:
            if dtype in _SLOTS:
                fixed.append(_physical(name, dtype).fill_null(0))
            else:
                pieces = _pieces(frame, name, dtype)
                fixed.append(pieces.bin.size().cast(pl.UInt32).alias(name))
                tails.append(pieces.to_list())
            value = pl.col(name)
            is_value = (
                value.is_finite().fill_null(False) if dtype in FLOATS else value.is_not_null()
            )
            nulls.append(is_value.not_())
        masks = [
            pl.sum_horizontal(
                null.cast(pl.UInt16) * (1 << bit)
                for bit, null in enumerate(nulls[start : start + 8])
            ).alias(f"\0{start}")
            for start in range(0, len(nulls), 8)
        ]
        if not masks:
            return [self._slots.pack(FORMAT, self.id)] * frame.height
        pack, id = self._slots.pack, self.id
        heads = [pack(FORMAT, id, *row) for row in frame.select(*masks, *fixed).iter_rows()]
        return [b"".join(parts) for parts in zip(heads, *tails, strict=True)] if tails else heads

    def reader(self, columns: Schema | None) -> Read:
        """The function that makes a row of this schema one by these columns; plain JSON for None."""
        known = self._readers.get(id(columns))
        if known is None or known[0] is not columns:
            if len(self._readers) >= _READERS_KEPT:
                self._readers.clear()
            known = self._readers[id(columns)] = (columns, self._reader(columns))
        return known[1]

    def _reader(self, columns: Schema | None) -> Read:
        names, unpack = self.names, self.unpack

        def as_json(row: bytes) -> Row:
            return {name: json_value(value) for name, value in zip(names, unpack(row), strict=True)}

        if columns is None:
            return as_json
        if {(column.name, column.dtype) for column in columns} <= set(map(tuple, self.columns)):
            return lambda row: dict(zip(names, unpack(row), strict=True))
        kinds = SameDtype.of(columns)

        def converted(row: bytes) -> Row:
            values = as_json(row)
            decode_rows([values], kinds)
            return values

        return converted

    @cached_property
    def _readers(self) -> dict[int, tuple[Schema | None, Read]]:
        return {}

    def unpack(self, row: bytes) -> list[Any]:
        """The values of a row, as training gives them; ValueError for a row that is not of this schema."""
        try:
            values = list(self._values.unpack_from(row))
        except struct.error:
            raise ValueError(f"it has {len(row)} bytes, fewer than its {self.width}") from None
        nulls = int.from_bytes(row[_HEAD : _HEAD + self._masks], "little")
        if self._floats is not None:
            floats = self._floats(values)
            if not math.isfinite(sum(floats)) and not all(map(math.isfinite, floats)):
                raise ValueError("a number of it is not finite")
        for position, decode in self._converted:
            values[position] = decode(values[position])
        end = self.width
        for position, decode in self._variable:
            start, end = end, end + values[position]
            is_null = nulls >> position & 1
            values[position] = None if is_null else decode(row[start:end])
        if end != len(row):
            raise ValueError(f"it has {len(row)} bytes, and not {end}")
        if nulls:
            values = [None if nulls >> at & 1 else value for at, value in enumerate(values)]
        return values


def _physical(name: str, dtype: str) -> pl.Expr:
    """A column of fixed width as the numbers of its slots."""
    value = pl.col(name)
    if dtype in FLOATS:
        return pl.when(value.is_finite()).then(value).alias(name)
    if dtype == INSTANT:
        return value.dt.cast_time_unit("us").to_physical()
    return value.to_physical() if dtype in _FIXED else value


def _pieces(frame: pl.DataFrame, name: str, dtype: str) -> pl.Series:
    """The bytes of a column without a width; none for null."""
    texts = frame[name] if dtype == "String" else json_texts(frame, name)
    return (
        texts.cast(pl.Binary)
        .zip_with(frame[name].is_not_null(), pl.Series([None], dtype=pl.Binary))
        .fill_null(b"")
    )


@dataclass(frozen=True, slots=True)
class PackedRows(Rows):
    """Packed rows of one schema; JSON texts as bytes where there is none. among: how many rows the frame has that they are of."""

    packed: Sequence[bytes] = ()
    schema: RowSchema | None = None
    among: int = 0

    @classmethod
    def of_json(cls, rows: Rows) -> Self:
        """Rows of JSON texts, which are no less rows."""
        return cls(rows.hashes, (), [text.encode() for text in rows.texts])


def packed(frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[PackedRows]:
    """The frame in chunks, packed as they are asked for: the server works meanwhile.

    Rows come by the bits of their digest's first four bytes, the last bit first: so rows of one bucket come together, whatever
    power of two the number of buckets is near.
    """
    values = [name for name in frame.columns if name not in (*keys, SOURCE)]
    schema, among = RowSchema.of(frame, values), frame.height
    hashes = key_hashes(frame, keys)
    order = _bits_reversed(hashes.str.head(8).str.to_integer(base=16, dtype=pl.UInt32)).arg_sort()
    for start in range(0, among, ENCODED_AT_ONCE):
        some = order.slice(start, ENCODED_AT_ONCE)
        own, rows = hashes.gather(some).to_list(), schema.pack(frame[some])
        for their_hashes, their_rows in zip(slices(own), slices(rows), strict=True):
            yield PackedRows(their_hashes, (), their_rows, schema, among)


def _bits_reversed(numbers: pl.Series) -> pl.Series:
    """Numbers of 32 bits, each with its bits in the opposite order."""
    for width, mask in (
        (1, 0x55555555),
        (2, 0x33333333),
        (4, 0x0F0F0F0F),
        (8, 0x00FF00FF),
        (16, 0x0000FFFF),
    ):
        shift = 1 << width
        numbers = ((numbers // shift) & mask) | ((numbers & mask) * shift)
    return numbers


def unpacked(
    stored: Sequence[bytes | None], schemas: Mapping[bytes, RowSchema], columns: Schema | None
) -> list[Row | None]:
    """The rows with the values of training by these columns; plain JSON for None. Misfit for a damaged row.

    schemas: those that rows may name, by id. Columns of a row that are not among the columns are left out.
    """
    readers: dict[bytes, Read] = {}
    rows: list[Row | None] = []
    for position, row in enumerate(stored):
        if row is None:
            rows.append(None)
            continue
        head = row[:_HEAD]
        try:
            read = readers.get(head)
            if read is None:
                read = readers[head] = _reader(head, schemas, columns)
            rows.append(read(row))
        except Misfit as misfit:
            raise Misfit(position, str(misfit), misfit.incomplete) from None
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Misfit(position, f"it cannot be unpacked: {error}") from None
    return rows


def _reader(head: bytes, schemas: Mapping[bytes, RowSchema], columns: Schema | None) -> Read:
    """The function that makes a row of the bytes that begin with a head."""
    if head[:1] == _JSON:
        return lambda row: _of_text(row, columns)
    if head[:1] != bytes([FORMAT]):
        raise Misfit(0, f"it begins with {head[:1]!r}, which this mlforge does not read")
    schema = schemas.get(head[1:])
    if schema is None:
        raise Misfit(0, f"nothing names the columns of its schema {head[1:].hex()}")
    return schema.reader(columns)


def _of_text(row: bytes, columns: Schema | None) -> Row:
    [values] = parse_rows([row.decode("utf-8", "surrogateescape")])
    assert values is not None
    if columns is not None:
        decode_rows([values], _kinds(columns))
    return values


@lru_cache(maxsize=256)
def _kinds(columns: Schema) -> tuple[SameDtype, ...]:
    return SameDtype.of(columns)
