"""States of files: which files are read before it is their turn."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mlforge.ingest.file_states import FileStates
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SourceReading
from mlforge.store import FileState, FileStateMap

LARGE = 4 << 30


@pytest.fixture
def files(tmp_path: Path) -> list[SourceFile]:
    for number in range(6):
        pl.DataFrame({"n": [number]}).write_parquet(tmp_path / f"{number}.parquet")
    return [SourceFile.under(tmp_path, f"{number}.parquet") for number in range(6)]


def states_of(
    before: FileStateMap | None = None, most: int | None = LARGE, *, careful: bool = False
) -> FileStates:
    known = FileStateMap() if before is None else before
    return FileStates(known, (), careful=careful, reading=SourceReading(most, keep_bytes=0))


def read_ahead(states: FileStates, files: list[SourceFile], *but: str, new: bool = True) -> set[str]:  # fmt: skip
    """The paths of files that were read before it was their turn."""
    early = set()
    with states.ahead(files, lambda hash_: new, but) as in_turn:
        for file in in_turn:
            ahead = states._reading._ahead
            assert ahead is not None
            if ahead.take(file) is not None:
                early.add(file.path)
    return early


def test_new_files_are_read_ahead_but_for_those_named(files: list[SourceFile]) -> None:
    every = {file.path for file in files}
    assert read_ahead(states_of(), files) == every
    assert read_ahead(states_of(), files, "2.parquet") == every - {"2.parquet"}


def test_a_file_as_it_was_is_read_ahead_if_its_content_is_to_be_decoded(
    files: list[SourceFile],
) -> None:
    seen = states_of()
    for file in files[:3]:
        seen.content(file)
    before = FileStateMap(seen.now)
    for file in files[:3]:
        before[file.path] = before[file.path]._replace(mtime_ns=file.stat.mtime_ns)
    assert read_ahead(states_of(before), files, new=False) == {f.path for f in files[3:]}
    assert read_ahead(states_of(before), files) == {f.path for f in files}


def test_a_content_is_known_as_long_as_some_file_has_it() -> None:
    states = FileStateMap({path: FileState(1, 2, 3, 4, "old", rows=5) for path in "ab"})
    assert states.of_content("old") == states["b"]
    states["b"] = FileState(1, 2, 3, 4, "new", rows=6)
    assert states.of_content("old") == states["a"]
    del states["a"]
    assert states.of_content("old") is None


@pytest.mark.parametrize("most", [None, LARGE])
def test_files_decoded_in_processes_of_their_own_are_not_read_ahead(
    files: list[SourceFile], most: int | None
) -> None:
    with states_of(most=most, careful=True).ahead(files, lambda hash_: True, ()) as in_turn:
        assert in_turn is files


def test_no_file_is_read_ahead_where_little_memory_is_allowed(files: list[SourceFile]) -> None:
    with states_of(most=1 << 20).ahead(files, lambda hash_: True, ()) as in_turn:
        assert in_turn is files
    assert read_ahead(states_of(most=None), files)
