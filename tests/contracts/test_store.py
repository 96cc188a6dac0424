"""The local store: the shared contract, and what is its own."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import polars as pl
import pytest

from mlforge.core.forgotten import Entity
from mlforge.errors import (
    BuildError,
    FeatureNotFound,
    IntegrityError,
    StoreError,
    UnsupportedStore,
    VersionNotFound,
)
from mlforge.maintenance.operations import verify
from mlforge.registry.forgetting import entities_of
from mlforge.store import Books, FileState, FileStateMap, LocalStore, Pointer, Store
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.local import version_folders
from mlforge.testing.store_contract import StoreContract
from mlforge.testing.store_values import (
    FIRST,
    SECOND,
    THIRD,
    events,
    partial_of,
    publish,
    version_of,
)
from tests.support.projects import Project, rows


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "not" / "there" / "yet")

    def again(self, store: Store) -> Store:
        assert isinstance(store, LocalStore)
        return LocalStore(store.path)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_reading_leaves_no_trace(store):
    store.features(), store.versions("spend"), store.books("spend"), store.index()
    assert not store.path.exists()


def test_the_layout_is_as_documented(store):
    publish(store, FIRST, 1)
    folder = store.path / "spend"
    assert names(folder / "1.0.0") == [".meta.json", "data.parquet"]
    assert json.loads((folder / "_latest.json").read_text()) == {
        "format": 1,
        "version": "1.0.0",
        "generation": 1,
        "highest": "1.0.0",
    }
    assert store.files("spend", "1.0.0") == [str(folder / "1.0.0" / "data.parquet")]
    assert pl.read_parquet(folder / "1.0.0" / "data.parquet").equals(events(1))
    assert names(store.path / "_metadata") == ["manifest.json", "store.json"]


def test_a_relative_path_is_resolved_against_the_definitions(tmp_path):
    assert LocalStore("store").located_at(tmp_path).path == tmp_path / "store"
    assert LocalStore(tmp_path / "store").located_at(Path("/elsewhere")).path == tmp_path / "store"


def test_a_version_that_was_made_but_not_pointed_to_is_served_by_the_next_writer(store):
    publish(store, FIRST, 1)
    pointer = (store.path / "spend" / "_latest.json").read_text()
    publish(store, SECOND, 1, 2)
    (store.path / "spend" / "_latest.json").write_text(pointer)
    assert store.read("spend").height == 1
    with store.lock("spend"):
        assert store.pointer("spend") == Pointer(SECOND, 2)
    assert store.index()["spend"]["version"] == "1.0.1"


def test_a_feature_without_a_pointer_gets_one(store):
    publish(store, FIRST, 1)
    (store.path / "spend" / "_latest.json").unlink()
    assert store.features() == ["spend"]
    assert store.versions("spend") == [FIRST]
    with pytest.raises(FeatureNotFound, match=r"versions up to 1\.0\.0, and none is served"):
        store.read("spend")
    assert entities_of(store, ["user=7"]) == [Entity("user", "7")]
    [problem] = verify(store, store.features())
    assert (problem.version, "is not served" in problem.what) == ("1.0.0", True)
    with store.lock("spend"):
        assert store.pointer("spend") == Pointer(FIRST, 1)
    assert verify(store, store.features()) == []


def test_the_pointer_of_a_held_feature_is_not_moved(store):
    publish(store, FIRST, 1)
    pointer = (store.path / "spend" / "_latest.json").read_text()
    publish(store, SECOND, 1, 2)
    (store.path / "spend" / "_latest.json").write_text(pointer)
    store.write_books("spend", Books(hold="half of it is gone"))
    with store.lock("spend"):
        assert store.pointer("spend") == Pointer(FIRST, 1)
    store.write_books("spend", Books())
    with store.lock("spend"):
        assert store.pointer("spend") == Pointer(SECOND, 2)


def test_a_version_below_one_that_was_rolled_back_from_is_not_taken_for_unserved(store):
    publish(store, FIRST, 1)
    publish(store, THIRD, 1, 2)
    store.serve("spend", FIRST)
    publish(store, SECOND, 3)
    with store.lock("spend"):
        assert store.pointer("spend") == Pointer(SECOND, 4)


def test_what_a_killed_writer_left_goes_with_the_next_one(store):
    publish(store, FIRST, 1)
    folder = store.path / "spend"
    (folder / "_partials").mkdir()
    (folder / f".staged-{socket.gethostname()}-999999999-0" / "data.parquet").mkdir(parents=True)
    for litter in ("._latest.json.dead", "._books.json.dead", "_partials/.ab.parquet.dead"):
        (folder / litter).write_text("half")
    (store.path / "_metadata" / ".manifest.json.dead").write_text("half")
    publish(store, SECOND, 1, 2)
    assert [*store.path.rglob("*dead*"), *store.path.rglob(".staged-*")] == []


def test_an_index_that_is_behind_damaged_or_lost_is_mended_by_the_next_writer(store):
    publish(store, FIRST, 1)
    publish(store, FIRST, 1, name="other")
    path = store.path / "_metadata" / "manifest.json"
    right = store.index()
    behind = json.loads(path.read_text())
    behind["features"]["spend"]["version"] = "0.9.0"
    for content in (json.dumps(behind), "{", '{"format": 1}', '{"format": 1, "features": [3]}'):
        path.write_text(content)
        with store.lock("spend"):
            pass
        assert store.index() == right
    path.unlink()
    with store.lock("spend"), store.lock("other"):
        pass
    assert store.index() == right


def test_versions_that_are_published_in_one_go_come_into_the_index_together(store):
    publish(store, FIRST, 1)
    with store.listing_later():
        publish(store, SECOND, 1, 2)
        publish(store, FIRST, 1, name="other")
        with store.lock("spend"):  # which mends no line that is going to come
            pass
        assert {name: line["version"] for name, line in store.index().items()} == {
            "spend": "1.0.0",
            "other": "1.0.0",  # the first of a feature is not waited for
        }
        store.serve("spend", FIRST)
        publish(store, THIRD, 1, 3)
    assert store.index()["spend"]["version"] == "1.1.0"


def test_the_next_writer_puts_into_the_index_what_a_killed_one_was_going_to(store):
    publish(store, FIRST, 1)
    with store.listing_later():
        publish(store, SECOND, 1, 2)
        with LocalStore(store.path).lock("spend"):
            pass
        assert store.index()["spend"]["version"] == "1.0.1"


def test_an_index_that_cannot_be_written_at_the_end_of_a_block_harms_nobody(store):
    publish(store, FIRST, 1)
    with store.listing_later():
        publish(store, SECOND, 1, 2)
        (store.path / "_metadata" / "manifest.json").unlink()
        (store.path / "_metadata" / "manifest.json").mkdir()
    assert store.pointer("spend").version == SECOND


def test_a_damaged_index_is_an_error_that_names_it(store):
    publish(store, FIRST, 1)
    (store.path / "_metadata" / "manifest.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"manifest\.json is damaged"):
        store.index()
    assert store.regenerate_index() == ["spend"]
    assert store.index()["spend"]["version"] == "1.0.0"


def test_a_folder_that_only_looks_like_a_version_is_none(store):
    publish(store, FIRST, 1)
    folder = store.path / "spend"
    (folder / "9.9.9").mkdir()
    (folder / "9.9.8").write_text("")
    (folder / "1.0").mkdir()
    assert store.versions("spend") == [FIRST]
    with store.lock("spend"):
        assert store.pointer("spend") == Pointer(FIRST, 1)


def test_a_version_is_not_written_over_something_in_its_place(store):
    publish(store, FIRST, 1)
    (store.path / "spend" / "1.0.1").mkdir()
    with pytest.raises(StoreError, match=r"1\.0\.1 exists; versions are never overwritten"):
        publish(store, SECOND, 1)
    assert names(store.path / "spend" / "1.0.1") == []


def test_a_damaged_partial_is_as_good_as_none(store):
    with store.lock("spend"):
        store.write_partials("spend", [PartialWrite(partial_of(events(1)), events(1))])
    path = Path(store.locate("spend", ["a1"])[0].file)
    whole = path.read_bytes()
    for content in (b"", b"PAR1PAR1", whole[:-20], whole[:-30] + b"x" * 22 + whole[-8:]):
        path.write_bytes(content)
        assert store.find_partial("spend", "a1") is None
    events(1).write_parquet(path)
    assert store.find_partial("spend", "a1") is None
    with store.lock("spend"):
        store.write_partials(
            "spend", [PartialWrite(partial_of(events(1))._replace(hash="b2"), events(1))]
        )
    Path(store.locate("spend", ["b2"])[0].file).rename(path)
    assert store.find_partial("spend", "a1") is None


def test_damaged_data_is_an_error_that_names_the_version(store):
    publish(store, FIRST, 1)
    path = Path(store.location("spend", FIRST))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=r"spend 1\.0\.0 cannot be read.*mlforge verify"):
        store.read("spend")
    path.unlink()
    with pytest.raises(IntegrityError, match=r"spend 1\.0\.0 cannot be read"):
        store.read("spend")


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format": 1}', "\x00", '"format"'])
def test_a_damaged_manifest_is_an_error_that_names_it(store, content):
    publish(store, FIRST, 1)
    (store.path / "spend" / "1.0.0" / ".meta.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"1\.0\.0/\.meta\.json is damaged"):
        store.read("spend")


def test_a_manifest_of_another_version_is_refused(store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    folder = store.path / "spend"
    (folder / "1.0.0" / ".meta.json").write_text((folder / "1.0.1" / ".meta.json").read_text())
    with pytest.raises(IntegrityError, match=r"1\.0\.0/\.meta\.json is that of spend 1\.0\.1"):
        store.read("spend", "1.0.0")


def test_damaged_books_are_an_error_and_a_damaged_memory_of_files_is_none(store):
    publish(store, FIRST, 1)
    folder = store.path / "spend"
    for content in ("{", "[]", "{}", '{"quarantine": 3}'):
        (folder / "_books.json").write_text(content)
        with pytest.raises(IntegrityError, match=r"_books\.json is damaged"):
            store.books("spend")
        (folder / "_sources.json").write_text(content)
        assert store.file_states("spend") == {}


def test_what_is_seen_is_appended_and_written_anew_before_it_grows(store):
    path = store.path / "spend" / "_sources.json"
    seen = {f"{n}.parquet": FileState(n, 1, 2, 3, "aa", 7) for n in range(50)}
    with store.lock("spend"):
        store.write_file_states("spend", FileStateMap(seen))
        first = path.stat().st_ino
        for turn in range(300):
            seen = {**seen, "7.parquet": FileState(turn, 1, 2, 3, "bb")}
            if turn != 7:
                seen.pop(f"{turn}.parquet", None)
            store.write_file_states("spend", FileStateMap(seen))
            assert store.file_states("spend") == seen
            assert LocalStore(store.path).file_states("spend") == seen
    assert path.stat().st_ino != first
    assert len(path.read_text().splitlines()) < 250


def test_a_line_that_a_killed_writer_left_is_passed_over(store):
    path = store.path / "spend" / "_sources.json"
    seen = {"a.parquet": FileState(1, 1, 1, 1, "aa"), "b.parquet": FileState(2, 2, 2, 2, "bb")}
    with store.lock("spend"):
        store.write_file_states("spend", FileStateMap(seen))
        with path.open("a") as file:
            file.write('["a.parquet", 9, 9')
        again = LocalStore(store.path)
        assert again.file_states("spend") == seen
        seen["b.parquet"] = FileState(3, 3, 3, 3, "cc")
        again.write_file_states("spend", FileStateMap(seen))
    assert LocalStore(store.path).file_states("spend") == seen


def test_lines_of_an_earlier_release_and_lines_that_are_no_states_lie_among_others(store):
    path = store.path / "spend" / "_sources.json"
    seen = {name: FileState(1, 1, 1, 1, "aa", 7, "aa", "user") for name in ("a", "b", "c")}
    with store.lock("spend"):
        store.write_file_states("spend", FileStateMap(seen))
    odd = (
        ["b"], ["c", 2, 2, 2, 2, "cc"], ["d", 3, 3, 3, 3, "dd", 1, "dd"], 7, [], [["e"]],
        ["a", 9, 9, 9, 9, "zz", 1, "zz", ["user"]], [8, 9, 9, 9, 9, "zz", 1, "zz", "user", 1],
    )  # fmt: skip
    path.write_text(path.read_text() + "".join(f"{json.dumps(line)}\n" for line in odd))
    assert LocalStore(store.path).file_states("spend") == {
        "a": seen["a"], "c": FileState(2, 2, 2, 2, "cc"), "d": FileState(3, 3, 3, 3, "dd", 1, "dd"),
    }  # fmt: skip


@pytest.mark.parametrize("found", [3, 99, 0, "1", None])
def test_another_format_is_refused_by_name(store, found):
    publish(store, FIRST, 1)
    path = store.path / "spend" / "1.0.0" / ".meta.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": found, "mlforge_version": "7.1.0"}))
    with pytest.raises(UnsupportedStore, match=r"format.*reads up to 2.*mlforge 7\.1\.0: upgrade"):
        store.read("spend")


def test_a_newer_index_is_refused_and_left_alone(store):
    publish(store, FIRST, 1)
    path = store.path / "_metadata" / "manifest.json"
    path.write_text('{"format": 2, "features": {}}')
    with pytest.raises(UnsupportedStore, match="written by another mlforge"):
        store.index()
    publish(store, SECOND, 1)
    assert path.read_text() == '{"format": 2, "features": {}}'


def test_a_publisher_without_the_lock_still_loses_to_a_faster_one(store):
    with store.lock("spend"):
        pass
    with store.open("spend") as snapshot:
        pass
    with store.transaction(snapshot) as slow:
        late = version_of(slow, FIRST, events(9))
        with store.transaction(snapshot) as fast:
            fast.commit(version_of(fast, FIRST, events(1)))
        with pytest.raises(StoreError, match="another publisher was faster"):
            slow.commit(late)
    assert store.read("spend").equals(events(1))


def test_versions_are_not_listed_by_whoever_published_the_last_one(store, monkeypatch):
    publish(store, FIRST, 1)
    monkeypatch.setattr(version_folders, "entries_of", None)
    publish(store, THIRD, 1, 2)
    publish(store, SECOND, 3)
    assert store.versions("spend") == [FIRST, SECOND, THIRD]


def test_what_others_publish_and_remove_at_once_is_seen(store):
    other = LocalStore(store.path)
    for publisher, reader in ((store, other), (other, store)):
        publish(publisher, FIRST, 1)
        publish(publisher, SECOND, 2)
        assert reader.versions("spend") == [FIRST, SECOND]
        publish(reader, THIRD, 3)
        assert publisher.versions("spend") == [FIRST, SECOND, THIRD]
        reader.remove("spend", FIRST)
        assert publisher.versions("spend") == [SECOND, THIRD]
        shutil.rmtree(store.path / "spend" / "1.0.1")
        assert publisher.versions("spend") == reader.versions("spend") == [THIRD]
        publisher.erase("spend")


# Other layouts


@pytest.fixture
def old(tmp_path: Path) -> Project:
    """A project whose store is of the flat layout of v0.4, as its folder was left."""
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    root = project.store.path
    (root / "_metadata").mkdir(parents=True)
    document = {"name": "spend", "last_updated": "2024-01-01T00:00:00Z", "row_count": 1}
    rows((1, 0, 1.0)).write_parquet(root / "spend.parquet")
    (root / "spend.meta.json").write_text(json.dumps(document))
    (root / "_metadata" / "spend.json").write_text(json.dumps(document))
    (root / "_metadata" / "manifest.json").write_text(json.dumps({"features": {"spend": document}}))
    return project


def test_the_flat_layout_is_recognised_and_the_message_says_what_to_run(old):
    for ask in (old.store.read, old.store.read_metadata, old.store.list_versions):
        with pytest.raises(
            UnsupportedStore,
            match=r"spend\.parquet is of the flat layout of v0\.4: run 'mlforge build'.*"
            r"'mlforge manifest --regenerate'",
        ):
            ask("spend")
    with pytest.raises(UnsupportedStore, match=r"mlforge manifest --regenerate"):
        old.store.index()
    assert old.store.features() == []


def test_a_build_beside_the_flat_layout_leaves_its_files_alone(old):
    before = {p: p.read_bytes() for p in old.store.path.rglob("*") if p.is_file()}
    assert old.build().version == "1.0.0"
    assert old.store.read("spend").height == 1
    assert {path: path.read_bytes() for path in before} == before
    assert old.store.regenerate_index() == ["spend"]
    assert old.store.index()["spend"]["version"] == "1.0.0"
    index = old.store.path / "_metadata" / "manifest.json"
    assert {p: p.read_bytes() for p in before if p != index} == {
        p: content for p, content in before.items() if p != index
    }


def test_a_manifest_of_the_old_kind_is_recognised_in_a_version(store):
    publish(store, FIRST, 1)
    path = store.path / "spend" / "1.0.0" / ".meta.json"
    path.write_text('{"name": "spend", "last_updated": "2024-01-01"}')
    with pytest.raises(UnsupportedStore, match=r"v0\.4; rebuild with 'mlforge build'"):
        store.read("spend")


def test_a_build_on_a_version_of_a_newer_format_is_refused_and_changes_nothing(tmp_path):
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    path = project.store.path / "spend" / "1.0.0" / ".meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 3}))
    project.drop("b", rows((2, 0, 1.0)))
    with pytest.raises(BuildError, match="has format 3, this mlforge reads up to 2"):
        project.build()
    assert project.store.list_versions("spend") == ["1.0.0"]


def test_a_build_on_damaged_events_goes_back_to_the_sources(tmp_path):
    project = Project(tmp_path / "project")
    project.drop("a", rows(*((user, 0, 1.0) for user in range(9))))
    project.build()
    [partial] = project.store.read_metadata("spend").partials
    path = Path(project.store.locate("spend", [partial.hash])[0].file)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    project.drop("b", rows((2, 1, 1.0)))
    assert project.build().version == "1.0.1"
    assert project.store.read("spend").height == 10
    assert verify(project.store, ["spend"]) == []


def test_a_version_that_comes_back_is_looked_into_again(store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    folder = store.path / "spend"
    assert store.versions("spend") == [FIRST, SECOND]
    (folder / "1.0.0").rename(folder / "aside")
    (folder / "1.0.0").mkdir()
    assert store.versions("spend") == [SECOND]
    (folder / "1.0.0").rmdir()
    (folder / "1.0.0").symlink_to(folder / "aside")
    assert store.versions("spend") == [SECOND]
    (folder / "1.0.0").unlink()
    (folder / "aside").rename(folder / "1.0.0")
    assert store.versions("spend") == [FIRST, SECOND]


def test_a_version_whose_document_vanished_is_none_any_more(store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    assert store.versions("spend") == [FIRST, SECOND]
    (store.path / "spend" / "1.0.0" / ".meta.json").unlink()
    with pytest.raises(VersionNotFound, match=r"no version 1\.0\.0; there are: 1\.0\.1"):
        store.manifest("spend", FIRST)
    assert store.versions("spend") == [SECOND]


def test_documents_are_read_again_once_another_process_has_replaced_them(store):
    publish(store, FIRST, 1)
    assert store.books("spend") == Books()
    other = LocalStore(store.path)
    other.write_books("spend", Books(pins=("1.0.0",)))
    publish(other, SECOND, 1, 2)
    assert store.books("spend").pins == ("1.0.0",)
    assert store.pointer("spend") == other.pointer("spend")
