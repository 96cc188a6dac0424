"""Pieces of long lists read as columns: as JSON's reader understands them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from mlforge.core.manifest import Partial, SourceRecord
from mlforge.core.schema import Column
from mlforge.core.values import LAST_INSTANT, TimeRange
from mlforge.store.local import piece_columns
from mlforge.store.partial_json import (
    each_partial_from_json,
    each_source_from_json,
    partial_to_json,
    source_to_json,
)

EVENTS = (Column("at", "Datetime"),)
TIMES = [None, TimeRange(0, 1), TimeRange(-62_135_596_800_000_000, LAST_INSTANT), TimeRange(-1, 5)]
PARTIALS = [Partial(f"a{n}", n, t, EVENTS, {}, n << 100) for n, t in enumerate(TIMES)]
FILES = [SourceRecord(f"a}},{n}", n, 10**15 + n, "b", n, t, f"a{n}") for n, t in enumerate(TIMES)]


def piece(entries: Sequence[Any]) -> bytes:
    lines = [json.dumps(entry, sort_keys=True) for entry in entries]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def test_pieces_are_read_as_they_are_one_by_one() -> None:
    files = [source_to_json(file) for file in FILES]
    texts = [piece(files[:1]), piece(files[1:])]
    assert [*map(piece_columns.length, texts)] == [1, 3]
    columns = piece_columns.columns(texts, piece_columns.SOURCES)
    assert columns is not None
    assert piece_columns.sources_of(columns) == each_source_from_json(files) == FILES
    partials = [partial_to_json(each, EVENTS) for each in PARTIALS]
    columns = piece_columns.columns([piece(partials)], piece_columns.PARTIALS)
    assert columns is not None
    read = piece_columns.partials_of(columns, EVENTS)
    assert read == each_partial_from_json(partials, EVENTS) == PARTIALS


@pytest.mark.parametrize(
    "change",
    [
        {"path": "a\ud800"},
        {"path": "é"},
        {"path": None},
        {"rows": None},
        {"rows": "5"},
        {"rows": 2**70},
        {"mtime": None},
        {"mtime": "1970-01-01T02:00:00+02:00"},
        {"max_time": "soon"},
    ],
)
def test_files_that_are_written_otherwise_are_left_to_json(change: dict[str, Any]) -> None:
    entries = [source_to_json(FILES[1]), source_to_json(FILES[2]) | change]
    assert piece_columns.columns([piece(entries)], piece_columns.SOURCES) is None


def test_pieces_of_another_form_are_left_to_json() -> None:
    entries = [source_to_json(file) for file in FILES]
    assert piece_columns.columns([json.dumps(entries).encode()], piece_columns.SOURCES) is None
    several = json.dumps(entries, indent=1).encode() + b"\n"
    assert piece_columns.columns([several], piece_columns.SOURCES) is None
    assert piece_columns.columns([b"[\n{}\n]\n"], piece_columns.SOURCES) is None


@pytest.mark.parametrize("change", [{"dropped": {"null_key": 2}}, {"schema": EVENTS[:0]}])
def test_partials_that_say_more_are_left_to_json(change: dict[str, Any]) -> None:
    odd = PARTIALS[2]._replace(**change)
    entries = [partial_to_json(each, EVENTS) for each in (PARTIALS[1], odd)]
    assert piece_columns.columns([piece(entries)], piece_columns.PARTIALS) is None


def test_a_name_that_leads_out_of_the_folder_is_refused() -> None:
    entries = [partial_to_json(PARTIALS[1]._replace(hash="../a"), EVENTS)]
    columns = piece_columns.columns([piece(entries)], piece_columns.PARTIALS)
    assert columns is not None
    with pytest.raises(ValueError, match="not the name of a file"):
        piece_columns.partials_of(columns, EVENTS)
