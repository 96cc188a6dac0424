"""Partials and source files as JSON, read many at a time."""

from __future__ import annotations

from typing import Any

import pytest

from mlforge.core.manifest import Partial, SourceRecord
from mlforge.core.values import LAST_INSTANT, TimeRange
from mlforge.store import partial_json
from mlforge.store.partial_json import (
    each_partial_from_json,
    each_source_from_json,
    partial_to_json,
    source_to_json,
)

TIMES = [None, TimeRange(0, 1), TimeRange(-62_135_596_800_000_000, LAST_INSTANT), TimeRange(-1, 5)]


@pytest.fixture(params=[1, 1_000], ids=["many", "few"], autouse=True)
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_json, "_MANY", request.param)


def test_what_was_written_is_read() -> None:
    partials = [Partial(f"a{n}", n, times, (), {}, n << 100) for n, times in enumerate(TIMES)]
    files = [SourceRecord(f"{n}", n, n, "b", n, t, f"a{n}") for n, t in enumerate(TIMES)]
    assert each_partial_from_json([*map(partial_to_json, partials)]) == partials
    assert each_source_from_json([*map(source_to_json, files)]) == files
    assert each_partial_from_json([]) == each_source_from_json([]) == []


def of_instant(text: Any) -> dict[str, Any]:
    file = SourceRecord("a", 1, 0, "b", 1, TimeRange(0, 1), "c")
    return {**source_to_json(file), "max_time": text}


def test_instants_as_others_write_them_are_read() -> None:
    texts = ["1970-01-01T02:00:00+02:00", "1970-01-01T00:00:00.5Z", "1970-01-01 00:00:01"]
    ends = [file.times.end for file in each_source_from_json([*map(of_instant, texts)]) if file.times]  # fmt: skip
    assert ends == [0, 500_000, 1_000_000]


@pytest.mark.parametrize("text", ["soon", "1970-02-30T00:00:00.000000Z", 7])
def test_what_is_no_instant_is_an_error(text: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        each_source_from_json([of_instant("1970-01-01T00:00:00.000000Z"), of_instant(text)])
