"""The contract of every offline store. A backend subclasses `StoreContract` and gives `store`."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial as bound
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import ChangeSummary, Manifest, Partial
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Column
from mlforge.core.time_model import Window
from mlforge.core.values import Duration, TimeRange, Version
from mlforge.engines import Events
from mlforge.errors import (
    ColumnNotFound,
    FeatureNotFound,
    StoreError,
    VersionConflict,
    VersionNotFound,
)
from mlforge.frames.digest import digest
from mlforge.store import Books, FileState, Pointer, Quarantined, Store, TablePiece, Transaction
from mlforge.store.file_tasks import PartialWrite, TileWrite, read_file

FIRST, SECOND, THIRD = Version(1, 0, 0), Version(1, 0, 1), Version(1, 1, 0)
EVENTS = (Column("user", "Int64"), Column("at", "Datetime(us, UTC)"), Column("x", "Float64"))
SPEC = FeatureSpec(
    name="spend",
    keys=("user",),
    timestamp="at",
    interval=None,
    columns=(MetricColumn("x", "sum", Window(Duration.parse("7d"), None, "both")),),
)


def events(*users: int) -> pl.DataFrame:
    """An event a user, a microsecond apart."""
    instants = pl.Series("at", range(len(users)), dtype=pl.Int64)
    return pl.DataFrame({"user": users, "at": instants, "x": [float(user) for user in users]}).cast(
        {"user": pl.Int64, "at": pl.Datetime("us", "UTC"), "x": pl.Float64}
    )


def partial_of(frame: pl.DataFrame, name: str = "a1") -> Partial:
    """A description that is true of the frame."""
    times = TimeRange(0, frame.height - 1) if frame.height else None
    return Partial(name, frame.height, times, EVENTS, {"null_key": 2}, digest(frame))


def described(version: Version, rows: pl.DataFrame, name: str = "spend") -> Manifest:
    """The manifest of a version without parts."""
    return Manifest(
        spec=replace(SPEC, name=name),
        events=EVENTS,
        columns=EVENTS,
        code_hash="c0de",
        partials=(partial_of(rows),),
        engine="polars",
        rowwise=True,
        version=version,
        change=ChangeSummary("patch", "data_refresh", ("2 rows",), {"rows_changed": 2}),
        created_at=1_700_000_000_000_000,
    )


def version_of(
    tx: Transaction, version: Version, rows: pl.DataFrame, name: str = "spend", **changes: Any
) -> Manifest:
    """Write a table of one part; returns its manifest."""
    parts = tx.write_table([TablePiece(rows, TimeRange(0, 9))])
    return replace(described(version, rows, name), parts=parts, **changes)


def publish(
    store: Store, version: Version, *users: int, name: str = "spend", **changes: Any
) -> Pointer:
    """Publish a version as a refresh does."""
    with store.open(name) as snapshot, store.transaction(snapshot) as tx:
        return tx.commit(version_of(tx, version, events(*users), name, **changes))


class StoreContract:
    """The suite; `store` is an empty one, `again` opens the same one anew."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        raise NotImplementedError

    def again(self, store: Store) -> Store:
        raise NotImplementedError

    # Identity

    def test_the_first_write_gives_a_store_the_identity_that_it_keeps(self, store: Store) -> None:
        assert store.identity() is None
        assert store.features() == []
        assert store.identity() is None
        publish(store, FIRST, 1)
        identity = store.identity()
        assert identity is not None
        publish(store, SECOND, 1, 2)
        for opened in (store, self.again(store)):
            assert opened.identity() == opened.establish() == identity

    # Versions

    def test_an_empty_store_has_nothing_and_says_so(self, store: Store) -> None:
        assert store.features() == []
        assert store.versions("spend") == []
        assert store.pointer("spend") is None
        assert store.latest("spend") is None
        assert store.partials("spend") == set()
        assert store.find_partial("spend", "a1") is None
        assert store.books("spend") == Books()
        assert store.file_states("spend") == {}
        assert store.index() == {}
        assert store.regenerate_index() == []
        for ask in (store.read, store.read_metadata, store.list_versions, store.resolve):
            with pytest.raises(FeatureNotFound, match=r"no feature 'spend'.*mlforge build"):
                ask("spend")

    def test_a_published_version_is_served(self, store: Store) -> None:
        assert publish(store, FIRST, 1, 2) == Pointer(FIRST, 1)
        for opened in (store, self.again(store)):
            assert opened.features() == ["spend"]
            assert opened.versions("spend") == [FIRST]
            assert opened.list_versions("spend") == ["1.0.0"]
            assert opened.pointer("spend") == Pointer(FIRST, 1)
            assert opened.read("spend").equals(events(1, 2))

    def test_a_manifest_comes_back_as_it_was_published(self, store: Store) -> None:
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            made = version_of(tx, FIRST, events(1, 2))
            tx.commit(made)
        for found in (
            store.manifest("spend", FIRST),
            store.latest("spend"),
            store.resolve("spend"),
            store.resolve("spend", "1.0.0"),
            store.read_metadata("spend", "1.0.0"),
        ):
            assert found == made
        assert store.check_manifest(made) == []

    def test_versions_are_listed_by_number_not_by_text(self, store: Store) -> None:
        numbers = [Version(1, 0, 2), Version(1, 0, 10), Version(1, 2, 0), Version(10, 0, 0)]
        for number in numbers:
            publish(store, number, 1)
        assert store.versions("spend") == numbers
        assert store.list_versions("spend") == ["1.0.2", "1.0.10", "1.2.0", "10.0.0"]

    def test_old_versions_stay_readable(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        assert store.read("spend").height == 2
        assert store.read("spend", version="1.0.0").equals(events(1))
        assert store.read("spend", "1.0.1", columns=["x", "user"]).columns == ["x", "user"]

    def test_every_publish_and_rollback_raises_the_generation(self, store: Store) -> None:
        publish(store, FIRST, 1)
        assert publish(store, SECOND, 1, 2) == Pointer(SECOND, 2)
        assert store.serve("spend", FIRST) == Pointer(FIRST, 3)
        assert store.serve("spend", FIRST) == Pointer(FIRST, 4)
        assert self.again(store).pointer("spend") == Pointer(FIRST, 4)
        assert store.read("spend").height == 1
        assert store.index()["spend"]["version"] == "1.0.0"
        assert publish(store, THIRD, 1) == Pointer(THIRD, 5)

    def test_what_was_rolled_back_from_is_not_served_again_by_itself(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        store.serve("spend", FIRST)
        with store.lock("spend"):
            assert store.pointer("spend") == Pointer(FIRST, 3)
        assert store.pointer("spend") == Pointer(FIRST, 3)

    def test_features_do_not_know_of_each_other(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2, name="spend2")
        assert store.features() == ["spend", "spend2"]
        assert store.versions("spend") == [FIRST]
        assert store.pointer("spend2") == Pointer(SECOND, 1)

    # Errors

    def test_a_missing_version_is_named_with_those_there_are(self, store: Store) -> None:
        publish(store, FIRST, 1)
        for ask in (store.read, store.read_metadata, store.resolve):
            with pytest.raises(VersionNotFound, match=r"spend has no version 1\.0\.1.*1\.0\.0"):
                ask("spend", "1.0.1")
        with pytest.raises(VersionNotFound):
            store.serve("spend", SECOND)
        assert store.pointer("spend") == Pointer(FIRST, 1)

    def test_a_missing_feature_is_named_with_those_there_are(self, store: Store) -> None:
        publish(store, FIRST, 1)
        with pytest.raises(FeatureNotFound, match="no feature 'spent'; there are: spend"):
            store.read("spent")
        with pytest.raises(FeatureNotFound, match="no feature 'spent'"):
            store.manifest("spent", FIRST)

    @pytest.mark.parametrize("text", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0-a", "latest", ""])
    def test_text_that_is_no_version_is_refused(self, store: Store, text: str) -> None:
        publish(store, FIRST, 1)
        with pytest.raises(StoreError, match="is not a version"):
            store.read("spend", version=text)

    def test_columns_are_read_in_the_order_asked_and_unknown_ones_are_named(
        self, store: Store
    ) -> None:
        publish(store, FIRST, 1)
        assert store.read("spend", columns=["x", "at"]).columns == ["x", "at"]
        with pytest.raises(
            ColumnNotFound, match=r"spend 1\.0\.0: no column 'y'; there are at, user, x"
        ):
            store.read("spend", columns=["x", "y"])

    # Publishing

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
        seen = {"a.parquet": FileState(1, 2, 3, 4, "aa", 7)}
        store.write_books("spend", Books(hold="a reason"))
        store.write_file_states("spend", seen)
        with store.open("spend") as snapshot:
            assert snapshot.pointer == Pointer(FIRST, 3)
            assert snapshot.latest == store.manifest("spend", FIRST)
            assert snapshot.versions == (FIRST, SECOND)
            assert (snapshot.books, snapshot.file_states) == (Books(hold="a reason"), seen)

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
            tx.commit(replace(described(FIRST, events(1)), parts=parts))
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            assert tx.scan_served(parts[1:]).collect().equals(pl.concat([events(2, 3), events(4)]))
            shared = tx.write_table([piece(9)], parts[:1], parts[2:])
            assert [part.hash for part in shared][::2] == [part.hash for part in parts][::2]
            tx.commit(replace(described(SECOND, events(1)), parts=shared))
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

    def test_any_reader_of_parquet_reads_a_versions_files(self, store: Store) -> None:
        publish(store, FIRST, 1, 2)
        publish(store, SECOND, 3)
        for version, rows in ((FIRST, events(1, 2)), (SECOND, events(3))):
            files = store.files("spend", version)
            assert pl.concat(map(pl.read_parquet, files)).equals(rows)
            assert store.scan_table(store.manifest("spend", version)).collect().equals(rows)
            assert pl.read_parquet(store.location("spend", version)).equals(rows)
        with pytest.raises(VersionNotFound):
            store.files("spend", THIRD)
        with pytest.raises(FeatureNotFound):
            store.files("other", FIRST)

    # Removal

    def test_a_removed_version_is_gone_and_the_others_are_not(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        with store.lock("spend"):
            store.remove("spend", FIRST)
        assert store.versions("spend") == [SECOND]
        assert store.read("spend").height == 2
        with pytest.raises(VersionNotFound):
            store.read("spend", "1.0.0")
        with store.lock("spend"), pytest.raises(VersionNotFound):
            store.remove("spend", FIRST)

    def test_the_served_version_is_not_removed(self, store: Store) -> None:
        publish(store, FIRST, 1)
        with store.lock("spend"), pytest.raises(StoreError, match=r"1\.0\.0 is served"):
            store.remove("spend", FIRST)
        assert store.read("spend").height == 1

    # Partials

    def test_a_partial_comes_back_with_its_description(self, store: Store) -> None:
        frame = events(1, 2, 3)
        made = partial_of(frame)
        with store.lock("spend"):
            store.write_partials("spend", [PartialWrite(made, frame)])
            store.write_partials("spend", [PartialWrite(made, frame)])
        for opened in (store, self.again(store)):
            assert opened.find_partial("spend", "a1") == made
            assert opened.partials("spend") == {"a1"}
            [place] = opened.locate("spend", ["a1"])
            assert read_file(place)[place.number or 0].equals(frame)
        assert store.features() == []

    def test_a_partial_without_rows_or_columns_is_one_too(self, store: Store) -> None:
        for name, frame in (("e0", events()), ("e1", pl.DataFrame())):
            made = replace(partial_of(events(), name), schema=())
            with store.lock("spend"):
                store.write_partials("spend", [PartialWrite(made, frame)])
            assert store.find_partial("spend", name) == made

    def test_a_removed_partial_is_gone(self, store: Store) -> None:
        with store.lock("spend"):
            store.write_partials("spend", [PartialWrite(partial_of(events(1), "a1"), events(1))])
            store.write_partials("spend", [PartialWrite(partial_of(events(2), "b2"), events(2))])
            store.remove_partials("spend", ["a1"])
            store.remove_partials("spend", ["a1"])
        assert store.partials("spend") == {"b2"}
        assert store.find_partial("spend", "a1") is None

    def test_tiles_are_those_of_a_file_and_go_with_it(self, store: Store) -> None:
        with store.lock("spend"):
            for users in ((1,), (1, 2)):
                described = partial_of(events(*users), f"{users[-1]}f")
                store.write_partials("spend", [PartialWrite(described, events(*users))])
            one, two = (
                store.plan_files("spend", [partial_of(events(1), name)])[0].file
                for name in ("1f", "2f")
            )
            writes = [TileWrite(of, events(*range(n)), {"n": n}) for n, of in enumerate((one, two))]
            store.write_tiles("spend", "days", writes)
        tiles = self.again(store).tiles("spend", "days")
        assert sorted(tiles) == sorted([one, two])
        assert pl.read_parquet(tiles[two]).height == 1
        notes = store.tile_notes("spend", tiles[two], two)
        assert notes is not None
        assert notes["n"] == 1
        assert store.tile_notes("spend", tiles[two], one) is None
        assert store.tile_notes("spend", "nowhere", one) is None
        assert store.is_whole("spend", one)
        assert not store.is_whole("spend", "nowhere")
        assert store.tiles("spend", "hours") == store.tiles("other", "days") == {}
        assert store.partials("spend") == {"1f", "2f"}
        with store.lock("spend"):
            store.write_tiles("spend", "hours", [TileWrite(one, events(1), {})])
            store.remove_partials("spend", ["1f"])
        assert list(store.tiles("spend", "days")) == [two]
        assert store.tiles("spend", "hours") == {}

    @pytest.mark.parametrize("since", [-5, 1, 2, 9])
    def test_what_is_kept_in_memory_reads_as_it_does_from_its_file(
        self, store: Store, since: int
    ) -> None:
        frames = {
            name: events(1, 2, 3).with_columns(pl.col("x") * n) for n, name in enumerate("abc")
        }
        made = [PartialWrite(partial_of(frame, name), frame) for name, frame in frames.items()]
        with store.lock("spend"):
            store.write_partials("spend", made[:2], "at")
        partials = [partial for partial, _ in made]

        def read(asked: list[Partial], times: TimeRange | None, columns: list[str]) -> pl.DataFrame:
            of = Events(SPEC, EVENTS, tuple(asked), bound(store.plan_files, "spend"))
            return of.scan(columns, times).collect().sort(columns)

        store.keep("spend", partials[:2], ["user", "at"], "at", since)
        with store.lock("spend"):
            store.write_partials("spend", made[2:], "at")
        for columns in (["user", "at"], ["user", "at", "x"]):
            for times in (None, *(TimeRange(start, 2) for start in range(3))):
                for asked in (partials, partials[:1], partials[1:], [partials[0]] * 2):
                    found = pl.concat([frames[partial.hash] for partial in asked])
                    if times is not None:
                        micros = pl.col("at").to_physical()
                        found = found.filter(micros.is_between(times.start, times.end))
                    expected = found.select(columns).sort(columns)
                    assert read(asked, times, columns).equals(expected)

    # Books

    def test_books_come_back_and_are_the_features_own(self, store: Store) -> None:
        books = Books(
            quarantine={"ä/b.parquet": Quarantined("ä/b.parquet", "bad\nthing", "memo", 17)},
            ignored={"c.csv": "not parquet"},
            hold="3 of 4 files are gone",
            pins=("1.0.0", "1.2.0"),
            description="what they spent “lately”",
            tags=("users", "money"),
        )
        with store.lock("spend"):
            store.write_books("spend", books)
        assert self.again(store).books("spend") == books
        assert store.books("spend2") == Books()
        with store.lock("spend"):
            store.write_books("spend", Books())
        assert store.books("spend") == Books()
        assert store.features() == []

    def test_file_states_come_back(self, store: Store) -> None:
        seen = {
            "a.parquet": FileState(10, 1_700_000_000_123_456_789, 5, 2**63, "aa", 7),
            "b.parquet": FileState(0, -1, 0, 0, "bb"),
        }
        with store.lock("spend"):
            store.write_file_states("spend", seen)
        assert self.again(store).file_states("spend") == seen
        with store.lock("spend"):
            store.write_file_states("spend", {})
        assert store.file_states("spend") == {}

    # Index

    def test_the_index_says_what_is_served(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, FIRST, 1, name="other")
        publish(store, SECOND, 1, 2)
        index = store.index()
        assert list(index) == ["other", "spend"]
        assert index["spend"]["version"] == "1.0.1"
        assert index["spend"]["row_count"] == 2
        assert index["spend"]["entity_keys"] == ["user"]
        assert store.regenerate_index() == ["other", "spend"]
        assert store.index() == index

    # Locks

    def test_one_holds_the_lock_at_a_time_and_features_do_not_wait_for_each_other(
        self, store: Store
    ) -> None:
        order: list[str] = []
        asked, inside = threading.Event(), threading.Event()

        def second() -> None:
            asked.set()
            with self.again(store).lock("spend"):
                order.append("second")
                inside.set()

        thread = threading.Thread(target=second)
        with store.lock("spend"):
            with store.lock("other"):
                order.append("other")
            thread.start()
            asked.wait(10)
            assert not inside.wait(0.1)
            order.append("first")
        thread.join(10)
        assert order == ["other", "first", "second"]

    def test_a_lock_is_free_again_after_an_error(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.lock("spend"):
            raise ZeroDivisionError
        publish(store, FIRST, 1)
