"""Long lists of files are kept in pieces that versions share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core import failpoints
from mlforge.core.schema import Column
from mlforge.errors import IntegrityError
from mlforge.maintenance.operations import prune, verify
from mlforge.maintenance.retention import Retention
from mlforge.store import LocalStore
from mlforge.store.local import io, manifest_chunks, piece_columns
from mlforge.store.local.manifest_chunks import ManifestChunks
from tests.support.projects import Project, rows


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Pieces of a few files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_chunks, "_INLINE", 5)
        patch.setattr(manifest_chunks, "_PIECE", 4)
        yield


@pytest.fixture(scope="module")
def built(short: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("built") / "p")
    for day in range(40):
        project.drop(f"d{day:03d}", rows((day % 3, day, 1.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "p")


def pieces(project: Project) -> dict[str, int]:
    folder = project.store.path / "spend" / "_lineage"
    return {path.name: path.stat().st_ino for path in folder.glob("*.json")}


def test_a_version_names_pieces_and_reads_as_if_it_listed_all(project: Project) -> None:
    meta = json.loads((project.store.path / "spend" / "1.0.0" / ".meta.json").read_text())
    assert meta["sources"]["count"] == 40
    manifest = project.store.read_metadata("spend")
    assert [record.path for record in manifest.sources] == [f"d{d:03d}.parquet" for d in range(40)]
    assert len(manifest.partials) == 40
    assert verify(project.store, ["spend"]) == []


def test_pieces_read_some_at_a_time_by_threads_give_what_each_gives(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.drop("d017-é", rows((1, 17, 5.0), (None, 17, 5.0)))
    project.build()
    expected = LocalStore(project.store.path).read_metadata("spend")
    read: list[bool] = []
    columns = piece_columns.columns

    def noted(texts: Sequence[bytes], dtypes: piece_columns.Dtypes) -> pl.DataFrame | None:
        frame = columns(texts, dtypes)
        read.append(frame is not None)
        return frame

    monkeypatch.setattr(piece_columns, "columns", noted)
    for name, value in (("_VERY_MANY", 1), ("_LONG_BYTES", 1), ("_AT_ONCE", 3)):
        monkeypatch.setattr(manifest_chunks, name, value)
    assert LocalStore(project.store.path).read_metadata("spend") == expected
    assert read.count(False) == 2, "dropped rows, and a name that is written escaped"
    assert read.count(True) >= 4


def test_lists_of_versions_whose_events_have_other_columns_are_read_with_their_own(
    project: Project, tmp_path: Path
) -> None:
    first = project.store.read_metadata("spend")
    wider = replace(first, events=(*first.events, Column("note", "String")))
    folder = tmp_path / "_lineage"
    chunks = ManifestChunks(folder)
    for manifest in (first, wider):
        document = json.loads(io.json_text(chunks.written(manifest)))
        lists = ManifestChunks(folder).lists(document)
        assert lists is not None
        assert tuple(lists.partials) == tuple(manifest.partials)


def test_one_more_file_makes_few_new_pieces(project: Project) -> None:
    before = pieces(project)
    project.drop("d017b", rows((1, 17, 5.0)))
    project.build()
    after = pieces(project)
    assert before.items() <= after.items()
    assert len(after) - len(before) <= 2


def test_what_is_half_written_of_a_piece_goes_without_a_listing_of_all_pieces(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, half_written = project.store.path / "spend", list[str]()

    def look() -> None:
        half_written.extend(path.name for path in folder.glob("**/.*.json.*"))
        assert [*(folder / "_lineage").glob(".*")] == []

    project.drop("d017b", rows((1, 17, 5.0)))
    failpoints.arm("file.synced", look)
    try:
        project.build()
    finally:
        failpoints.disarm()
    of_pieces = [name for name in half_written if f"{name[1:65]}.json" in pieces(project)]
    assert of_pieces
    (folder / of_pieces[0]).write_text("[")  # as a killed writer leaves it
    monkeypatch.setattr(manifest_chunks, "entries_of", None)
    project.drop("d018b", rows((1, 18, 5.0)))
    project.on(LocalStore(project.store.path)).build()
    assert [*folder.glob("**/.*.json.*")] == []


def test_pieces_go_with_the_last_version_that_names_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        project.drop("d000", rows((1, 0, 10.0 + number)))
        project.build()
    folder = project.store.path / "spend" / "_lineage"
    half_written = folder / f".{'0' * 64}.json.{'1' * 32}"
    half_written.write_text("[")  # as a killed writer of an earlier release left it
    sweep, swept = ManifestChunks.sweep, list[ManifestChunks]()

    def sweeping(chunks: ManifestChunks, documents: Iterable[Mapping[str, Any]]) -> None:
        swept.append(chunks)
        sweep(chunks, documents)

    monkeypatch.setattr(ManifestChunks, "sweep", sweeping)
    [pruned] = prune(project.store, ["spend"], Retention(newest=1))
    assert pruned.versions == ("1.0.0", "1.0.1", "1.0.2")
    assert len(swept) == 1  # it asks all other versions, however many went
    named = manifest_chunks.named(
        json.loads((project.store.path / "spend" / "1.0.3" / ".meta.json").read_text())
    )
    assert {path.name for path in folder.iterdir()} == {f"{name}.json" for name in named}
    assert project.store.read("spend").height == 40


def test_no_piece_goes_while_a_version_cannot_say_which_it_names(project: Project) -> None:
    for number in range(2):
        project.drop("d000", rows((1, 0, 10.0 + number)))
        project.build()
    (project.store.path / "spend" / "1.0.1" / ".meta.json").write_text("{")
    before = pieces(project)
    [pruned] = prune(project.store, ["spend"], Retention(newest=1))
    assert pruned.versions == ("1.0.0",)
    assert pieces(project) == before


def test_a_damaged_piece_is_found(project: Project) -> None:
    folder = project.store.path / "spend" / "_lineage"
    path = min(folder.glob("*.json"))
    path.write_text(path.read_text().replace("0", "1", 1))
    afresh = LocalStore(project.store.path)
    with pytest.raises(IntegrityError, match="missing or damaged"):
        afresh.read_metadata("spend")
    assert verify(afresh, ["spend"]) != []
