"""Columns, partials and source files as JSON, as manifests, packs and chunks list them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl

from mlforge.core.manifest import Partial, SourceRecord
from mlforge.core.named_tuples import each_of_columns
from mlforge.core.schema import Column, Schema, shared
from mlforge.core.values import TimeRange, from_iso, to_iso
from mlforge.errors import IntegrityError, MlforgeError

_HASH = re.compile(r"[0-9A-Za-z]+")
AS_WRITTEN = "%Y-%m-%dT%H:%M:%S%.6fZ"
"""The form of instants as `to_iso` writes them."""
_MANY = 1_000  # texts that take longer one by one than a plan of polars does


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turn errors of decoding into IntegrityError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, MlforgeError) as error:
        raise IntegrityError(
            f"{where} is damaged ({type(error).__name__}: {error}); restore it from a backup, or rebuild"
        ) from error


def partial_to_json(partial: Partial, events: Schema = ()) -> dict[str, Any]:
    """A partial's description; its schema is left out where it is that of the events around it."""
    own_columns = (
        {}
        if events and partial.schema == events
        else {"schema": [column_to_json(c) for c in partial.schema]}
    )
    return {
        "hash": partial.hash,
        "rows": partial.rows,
        **times_to_json(partial.times),
        "dropped": dict(partial.dropped),
        "digest": f"{partial.digest:032x}",
        **own_columns,
    }


def partial_from_json(document: Mapping[str, Any], events: Schema = ()) -> Partial:
    """Read what `partial_to_json` wrote."""
    [partial] = each_partial_from_json([document], events)
    return partial


def each_partial_from_json(
    documents: Sequence[Mapping[str, Any]], events: Schema = ()
) -> list[Partial]:
    """Read what `partial_to_json` wrote of each of many partials, column by column."""
    return [
        *each_of_columns(
            Partial,
            safe_hashes([document["hash"] for document in documents]),
            [document["rows"] for document in documents],
            _each_times_from_json(documents),
            [schema_from_json(d["schema"]) if "schema" in d else events for d in documents],
            [document["dropped"] for document in documents],
            [int(document["digest"], 16) for document in documents],
        )
    ]


def partials_to_json(partials: Sequence[Partial]) -> list[Any]:
    """Compact descriptions of partials of one schema."""
    schema = [column_to_json(column) for column in partials[0].schema]
    return [
        schema,
        [
            [p.hash, p.rows, [p.times.start, p.times.end] if p.times else None, p.digest, p.dropped]
            for p in partials
        ],
    ]


def partials_from_json(document: Sequence[Any]) -> list[Partial]:
    """Read what `partials_to_json` wrote."""
    columns, entries = document
    schema = schema_from_json(columns)
    return [
        Partial(
            hash=safe_name(name, _HASH),
            rows=rows,
            times=TimeRange(*times) if times else None,
            schema=schema,
            dropped=dropped,
            digest=digest,
        )
        for name, rows, times, digest, dropped in entries
    ]


def events_to_json(events: Schema, partials: Sequence[Partial]) -> dict[str, Any]:
    """The columns of events, and the partials that they lie in."""
    return {
        "event_columns": [column_to_json(column) for column in events],
        "partials": [partial_to_json(partial, events) for partial in partials],
    }


def events_from_json(document: Any, where: str) -> tuple[Schema, tuple[Partial, ...]]:
    """Read what `events_to_json` wrote; raises IntegrityError for anything else."""
    with decoding(where):
        events = events_of(document)
        return events, tuple(each_partial_from_json(document["partials"], events))


def events_of(document: Mapping[str, Any]) -> Schema:
    """The columns of a document's events."""
    return schema_from_json(document["event_columns"])


def source_to_json(record: SourceRecord) -> dict[str, Any]:
    """A file in a manifest's list."""
    return {
        "path": record.path,
        "size": record.size,
        "mtime": to_iso(record.mtime),
        "hash": record.hash,
        "rows": record.rows,
        **times_to_json(record.times),
        "partial": record.partial,
    }


def each_source_from_json(entries: Sequence[Mapping[str, Any]]) -> list[SourceRecord]:
    """Read what `source_to_json` wrote of each of many files, column by column."""
    return [
        *each_of_columns(
            SourceRecord,
            [entry["path"] for entry in entries],
            [entry["size"] for entry in entries],
            [us or 0 for us in _each_from_iso([entry["mtime"] for entry in entries])],
            [entry["hash"] for entry in entries],
            [entry["rows"] for entry in entries],
            _each_times_from_json(entries),
            [entry["partial"] for entry in entries],
        )
    ]


def column_to_json(column: Column) -> dict[str, str | bool]:
    """A column; what it does not have is left out."""
    more = {
        "aggregation": column.aggregation,
        "window": column.window,
        "narrow": column.narrow,
        "listed": column.listed,
    }
    return {"name": column.name, "dtype": column.dtype, **{k: v for k, v in more.items() if v}}


def schema_from_json(document: Sequence[Mapping[str, Any]]) -> Schema:
    """The schema of columns that `column_to_json` wrote; equal ones are one object."""
    return shared(tuple(_column(column) for column in document))


def _column(document: Mapping[str, Any]) -> Column:
    return Column(
        document["name"],
        document["dtype"],
        document.get("aggregation"),
        document.get("window"),
        bool(document.get("narrow")),
        bool(document.get("listed")),
    )


def times_to_json(times: TimeRange | None) -> dict[str, str | None]:
    """The first and the last instant as entries of a document; both null where there is no time."""
    return {
        "min_time": to_iso(times.start if times else None),
        "max_time": to_iso(times.end if times else None),
    }


def times_from_json(document: Mapping[str, Any]) -> TimeRange | None:
    """Read what `times_to_json` wrote."""
    [times] = _each_times_from_json([document])
    return times


def _each_times_from_json(
    documents: Sequence[Mapping[str, Any]],
) -> Sequence[TimeRange | None]:
    starts = _each_from_iso([document["min_time"] for document in documents])
    return time_ranges(starts, _each_from_iso([document["max_time"] for document in documents]))


def time_ranges(
    starts: Sequence[int | None], ends: Sequence[int | None]
) -> Sequence[TimeRange | None]:
    """The ranges between instants; None where one of both is."""
    if None not in starts and None not in ends:
        return [*each_of_columns(TimeRange, starts, ends)]
    return [
        None if start is None or end is None else TimeRange(start, end)
        for start, end in zip(starts, ends, strict=True)
    ]


def _each_from_iso(texts: Sequence[str | None]) -> list[int | None]:
    """The instants of many texts, as `from_iso` gives each; those that `to_iso` wrote are read together."""
    if len(texts) >= _MANY:
        written = pl.Series(texts, dtype=pl.String)
        read = written.str.to_datetime(AS_WRITTEN, time_unit="us", time_zone="UTC", strict=False)
        if read.null_count() == written.null_count():
            return read.to_physical().to_list()
    return [*map(from_iso, texts)]


def safe_hashes(hashes: Sequence[str]) -> Sequence[str]:
    """The hashes; ValueError where one may lead out of the folder."""
    if not all(map(_HASH.fullmatch, hashes)):
        for hash_ in hashes:
            safe_name(hash_, _HASH)
    return hashes


def safe_name(name: str, allowed: re.Pattern[str]) -> str:
    """The name, which is to match the pattern; ValueError for any other, which may lead out of the folder."""
    if allowed.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a file of a version")
    return name
