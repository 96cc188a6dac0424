"""The contract of publishing in an offline store: one wins, nobody sees half of it."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from mlforge.core.values import TimeRange
from mlforge.errors import (
    FeatureNotFound,
    VersionConflict,
    VersionNotFound,
)
from mlforge.store import Books, FileState, FileStateMap, Pointer, Store, TablePiece
from mlforge.testing.store_values import (
    FIRST,
    SECOND,
    THIRD,
    StoreFixtures,
    described,
    events,
    publish,
    version_of,
)


class PublishingContract(StoreFixtures):
    """A version comes in one step, in a transaction of its own."""

    def test_a_version_is_never_overwritten(self, store: Store) -> None:
        publish(store, FIRST, 1)
        with pytest.raises(VersionConflict, match=r"1\.0\.0 exists; versions are never overw"):
            publish(store, FIRST, 1, 2, 3)
        assert store.read("spend").equals(events(1))
        assert store.pointer("spend") == Pointer(FIRST, 1)

    @pytest.mark.parametrize(
        "expected",
        [None, Pointer(FIRST, 1), Pointer(SECOND, 1), Pointer(FIRST, 2)],
        ids=["none", "older", "another generation", "another version"],
    )
    def test_a_publisher_whose_pointer_moved_loses(
        self, store: Store, expected: Pointer | None
    ) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        with store.open("spend") as snapshot:
            late = replace(snapshot, pointer=expected)
            with (
                store.transaction(late) as tx,
                pytest.raises(VersionConflict, match="another publisher was faster"),
            ):
                tx.commit(version_of(tx, THIRD, events(3)))
        assert store.versions("spend") == [FIRST, SECOND]
        assert store.pointer("spend") == Pointer(SECOND, 2)

    def test_a_snapshot_holds_all_that_a_refresh_asks_of_the_store(self, store: Store) -> None:
        with store.open("spend") as empty:
            assert (empty.pointer, empty.latest, empty.versions) == (None, None, ())
            assert (empty.books, empty.file_states) == (Books(), {})
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        store.serve("spend", FIRST)
        states = FileStateMap({"a.parquet": FileState(1, 2, 3, 4, "aa", 7)})
        store.write_books("spend", Books(hold="a reason"))
        store.write_file_states("spend", states)
        with store.open("spend") as snapshot:
            assert snapshot.pointer == Pointer(FIRST, 3)
            assert snapshot.latest == store.manifest("spend", FIRST)
            assert snapshot.versions == (FIRST, SECOND)
            assert (snapshot.books, snapshot.file_states) == (Books(hold="a reason"), states)

    def test_what_is_not_committed_is_seen_by_nobody_and_leaves_nothing(self, store: Store) -> None:
        publish(store, FIRST, 1)
        with store.open("spend") as snapshot:
            with store.transaction(snapshot) as tx:
                version_of(tx, SECOND, events(1, 2))
                assert tx.scan_table().collect().equals(events(1, 2))
                assert store.versions("spend") == [FIRST]
                assert store.features() == ["spend"]
            assert store.versions("spend") == [FIRST]
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            tx.commit(version_of(tx, SECOND, events(3)))
        assert store.read("spend").equals(events(3))

    def test_a_transaction_whose_work_fails_leaves_nothing(self, store: Store) -> None:
        def work() -> None:
            with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
                version_of(tx, FIRST, events(1))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        assert store.features() == []
        assert store.versions("spend") == []
        publish(store, FIRST, 1)
        assert store.read("spend").equals(events(1))

    def test_transactions_of_one_feature_are_apart(self, store: Store) -> None:
        with store.open("spend") as snapshot:
            with store.transaction(snapshot) as one, store.transaction(snapshot) as other:
                version = version_of(one, FIRST, events(1))
                version_of(other, FIRST, events(2, 3))
                one.commit(version)
            assert store.read("spend").equals(events(1))

    def test_a_table_shares_parts_with_the_version_before(self, store: Store) -> None:
        def piece(*users: int) -> TablePiece:
            return TablePiece(events(*users), TimeRange(0, len(users) - 1))

        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            parts = tx.write_table([piece(1), piece(2, 3), piece(4)])
            assert [part.rows for part in parts] == [1, 2, 1]
            assert tx.scan_table().collect().equals(pl.concat([events(1), events(2, 3), events(4)]))
            tx.commit(replace(described(FIRST), parts=parts))
        files = store.files("spend", FIRST)
        assert store.files("spend", FIRST, parts[1:]) == files[1:]
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            assert tx.scan_served(parts[1:]).collect().equals(pl.concat([events(2, 3), events(4)]))
            shared = tx.write_table([piece(9)], parts[:1], parts[2:])
            assert [part.hash for part in shared][::2] == [part.hash for part in parts][::2]
            tx.commit(replace(described(SECOND), parts=shared))
        store.remove("spend", FIRST)
        assert store.read("spend").equals(pl.concat([events(1), events(9), events(4)]))
        assert store.check_manifest(store.resolve("spend")) == []

    def test_books_of_a_commit_are_written_with_it(self, store: Store) -> None:
        with store.lock("spend"):
            store.write_books("spend", Books(hold="a reason", pins=("1.0.0",)))
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            tx.commit(version_of(tx, FIRST, events(1)), replace(snapshot.books, hold=None))
        assert store.books("spend") == Books(pins=("1.0.0",))
        publish(store, SECOND, 2)
        assert store.books("spend") == Books(pins=("1.0.0",))

    def test_a_table_that_lost_bytes_is_told(self, store: Store) -> None:
        for version, users in ((FIRST, (1,)), (SECOND, (1, 2))):
            publish(store, version, *users)
        for version, wrong in ((FIRST, False), (SECOND, True)):
            manifest = store.manifest("spend", version)
            assert store.check_manifest(manifest) == []
            if wrong:
                [file], [part] = store.files("spend", version), manifest.parts
                self.damage(file, part.hash)
                assert self.beside(store).check_manifest(manifest) != []

    def test_any_reader_of_parquet_reads_a_versions_files(self, store: Store) -> None:
        publish(store, FIRST, 1, 2)
        publish(store, SECOND, 3)
        for version, rows in ((FIRST, events(1, 2)), (SECOND, events(3))):
            files = store.files("spend", version)
            assert pl.concat(map(pl.read_parquet, files)).equals(rows)
            assert store.scan_table(store.manifest("spend", version)).collect().equals(rows)
            assert self.read_location(store.location("spend", version)).equals(rows)
        with pytest.raises(VersionNotFound):
            store.files("spend", THIRD)
        with pytest.raises(FeatureNotFound):
            store.files("other", FIRST)
