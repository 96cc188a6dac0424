"""What pandas noted of an index tells why it is no column, and sets no file aside."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mlforge.sources.polars_types import pandas_ranges

INDEX = b'{"kind": "range", "name": "user_id", "start": 0, "stop": 9, "step": 1}'


def noted(text: bytes) -> pa.Schema:
    return pa.schema([("at", pa.int64())], metadata={b"pandas": text})


def test_a_named_range_is_told() -> None:
    assert list(pandas_ranges(noted(b'{"index_columns": [%b]}' % INDEX))) == ["user_id"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"index_columns": [%b' % INDEX,
        b'{"columns": [%b]}' % INDEX,
        b"[%b]" % INDEX,
        b'{"index_columns": 1, "columns": [%b]}' % INDEX,
        b'{"index_columns": [{"kind": "range"}], "columns": [%b]}' % INDEX,
        b"\xff%b" % INDEX,
    ],
)
def test_notes_of_another_form_tell_nothing(text: bytes) -> None:
    assert pandas_ranges(noted(text)) == {}
