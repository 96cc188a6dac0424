"""Pieces of long lists read as columns: no dictionary is made of any entry, and the interpreter is free meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import polars as pl

from mlforge.core.manifest import Partial, SourceRecord
from mlforge.core.named_tuples import each_of_columns
from mlforge.core.schema import Schema
from mlforge.sources.damage import POLARS_FAULTS
from mlforge.store.partial_json import AS_WRITTEN, safe_hashes, time_ranges

Dtypes = Mapping[str, type[pl.DataType]]
SOURCES: Dtypes = {
    **dict.fromkeys(("path", "hash", "partial", "mtime", "min_time", "max_time"), pl.String),
    **dict.fromkeys(("size", "rows"), pl.Int64),
}
"""The entries of source files."""
PARTIALS: Dtypes = {
    **dict.fromkeys(("hash", "digest", "min_time", "max_time"), pl.String),
    "rows": pl.Int64,
}
"""The entries of partials of which no row was left out, and whose schema is that of the events around them."""
_BEGIN, _END, _BETWEEN = b"[\n{", b"}\n]\n", b"},\n"
_NOTHING_DROPPED, _ESCAPE = b'"dropped": {}', b"\\"
_INSTANTS, _OPTIONAL = {"mtime", "min_time", "max_time"}, {"min_time", "max_time"}


def columns(texts: Sequence[bytes], dtypes: Dtypes) -> pl.DataFrame | None:
    """The entries of pieces, instants in UTC microseconds; None where some may be written otherwise, which JSON's reader is to understand."""
    if not all(text.startswith(_BEGIN) and text.endswith(_END) for text in texts):
        return None
    lines = b"\n".join([text[2:-3].replace(_BETWEEN, b"}\n") for text in texts])
    if _ESCAPE in lines:  # of surrogates polars makes other characters
        return None
    instants = pl.col(*_INSTANTS & dtypes.keys()).str.to_datetime(AS_WRITTEN, time_unit="us")
    try:
        frame = pl.read_ndjson(BytesIO(lines), schema=dtypes).with_columns(instants.to_physical())
    except POLARS_FAULTS:
        return None
    is_plain = frame.height == sum(map(length, texts))
    if dtypes is PARTIALS:
        is_plain &= lines.count(_NOTHING_DROPPED) == frame.height and b'"schema"' not in lines
    has_gaps = any(frame[name].null_count() for name in dtypes.keys() - _OPTIONAL)
    return frame if is_plain and not has_gaps else None


def length(text: bytes) -> int:
    """How many entries a piece holds that is written an entry a line."""
    return text.count(b"\n") - 2


def partials_of(frame: pl.DataFrame, events: Schema) -> list[Partial]:
    """The partials in columns; ValueError for a name that may lead out of the folder."""
    many = frame.height
    return [
        *each_of_columns(
            Partial,
            safe_hashes(frame["hash"].to_list()),
            frame["rows"].to_list(),
            time_ranges(frame["min_time"].to_list(), frame["max_time"].to_list()),
            [events] * many,
            [{}] * many,
            [int(digest, 16) for digest in frame["digest"].to_list()],
        )
    ]


def sources_of(frame: pl.DataFrame) -> list[SourceRecord]:
    """The source files in columns."""
    return [
        *each_of_columns(
            SourceRecord,
            *[frame[name].to_list() for name in ("path", "size", "mtime", "hash", "rows")],
            time_ranges(frame["min_time"].to_list(), frame["max_time"].to_list()),
            frame["partial"].to_list(),
        )
    ]
