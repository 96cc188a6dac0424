"""Unchanged files: what is known of them from one refresh to the next."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlforge.core.list_diff import alike, differing
from mlforge.core.manifest import Partial, SourceRecord
from mlforge.ingest import unchanged
from mlforge.ingest.unchanged import FilePartial, UnchangedFiles
from mlforge.sources.listing import Listing
from mlforge.sources.source_file import Stat
from mlforge.store import FileState, FileStateMap

NAMES = ("a", "c", "e")
NOTHING = UnchangedFiles()


def pair(path: str) -> FilePartial:
    partial = Partial(f"of {path}", 1, None, (), {}, 0)
    return SourceRecord(path, 1, 7, path, 1, None, partial.hash), partial


def state_of(path: str) -> FileState:
    return FileState(1, 7_000, 8_000, 9, path, 1, path)


def grown(*paths: str, start: UnchangedFiles = NOTHING, **other: FileState) -> UnchangedFiles:
    found = [pair(path) for path in paths]
    states = {path: state_of(path) for path in (*start.stats, *paths)} | other
    return start.grown(found, start.joined(found), FileStateMap(states))


def paths(of: UnchangedFiles) -> list[str]:
    assert [record.partial for record in of.records] == [partial.hash for partial in of.partials]
    assert of.stats.keys() == {record.path for record in of.records}
    return [record.path for record in of.records]


def listing(stats: Mapping[str, Stat]) -> Listing:
    return Listing(Path(), True, stats)


def test_files_with_the_same_stats_are_the_very_same_beside_others() -> None:
    known = grown(*NAMES)
    assert known.among(listing({**known.stats, "new": (1, 2, 3, 4)})) is known


def test_files_that_changed_or_went_are_at_rest_no_more() -> None:
    known = grown(*NAMES)
    assert paths(known.among(listing({**known.stats, "c": (2, 7_000, 8_000, 9)}))) == ["a", "e"]
    assert paths(known.among(listing({path: known.stats[path] for path in "ac"}))) == ["a", "c"]


def test_others_take_their_places_by_path() -> None:
    assert paths(grown("f", "d", "b", start=grown(*NAMES))) == [*"abcdef"]


@pytest.mark.parametrize(
    "unsettled",
    [
        {"good": ""},  # set aside
        {"good": "older", "hash": "newer"},
        {"mtime_ns": -1},  # too young to tell the next change
        {"mtime_ns": 9_000},  # touched since
    ],
)
def test_a_file_that_is_not_settled_is_not_at_rest(unsettled: dict[str, str]) -> None:
    start = grown(*NAMES)
    assert paths(grown("b", "d", start=start, b=state_of("b")._replace(**unsettled))) == [*"acde"]


def test_files_kept_with_the_states_hold_for_the_very_same_records_and_states_alone() -> None:
    unchanged_files, states = grown(*NAMES), FileStateMap({path: state_of(path) for path in NAMES})
    records = unchanged_files.records
    unchanged.keep(records, states, unchanged_files)

    version: Any = SimpleNamespace(sources=records, partials=unchanged_files.partials)
    assert unchanged.of_version(version, states) is unchanged_files
    others = FileStateMap({**states, "c": states["c"]._replace(good="")})
    assert paths(unchanged.of_version(version, others)) == ["a", "e"]
    assert unchanged.of_version(version, states) is unchanged_files
    version.sources = (records[0]._replace(hash="another"), *records[1:])
    assert paths(unchanged.of_version(version, states)) == ["c", "e"]


@pytest.mark.parametrize("gone", [(), ("a",), ("e",), ("c", "e"), NAMES], ids="".join)
def test_a_copy_of_the_states_lacks_some_paths_and_what_was_kept_with_them(
    gone: tuple[str, ...],
) -> None:
    states = FileStateMap({path: state_of(path) for path in NAMES})
    unchanged.keep((), states, grown(*NAMES))
    copy = states.without(gone)
    assert copy == {path: state_of(path) for path in NAMES if path not in gone}
    assert (copy.memo, copy.before, copy.touched) == (None, states, {*gone})
    assert states == {path: state_of(path) for path in NAMES}


SHORT = [list(some) for length in range(5) for some in product([None, *NAMES[:2]], repeat=length)]


def test_lists_without_what_they_share_at_their_ends_differ_at_both() -> None:
    for old, new in product(SHORT, SHORT):
        check_ends(old, new)


def check_ends(old: list[str | None], new: list[str | None]) -> None:
    head = alike(old, new)
    assert old[:head] == new[:head]
    assert head == min(len(old), len(new)) or old[head] is not new[head]
    went, came = differing(old, new)
    start = head
    end = len(old) - start - len(went)
    assert [*old[:start], *came, *old[len(old) - end :]] == new
    if went and came:
        assert went[0] is not came[0]
        assert went[-1] is not came[-1]
