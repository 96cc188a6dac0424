"""The contract of partials in an offline store: the events of files, and the tiles made of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import polars as pl
import pytest

from mlforge.core.manifest import Partial
from mlforge.core.values import TimeRange
from mlforge.store import Store
from mlforge.store.file_tasks import PartialWrite, TileWrite, read_file
from mlforge.store.scan import event_scan
from mlforge.testing.store_values import (
    FIRST,
    StoreFixtures,
    described,
    events,
    partial_of,
    version_of,
)


class PartialsContract(StoreFixtures):
    """Partials come back as they were written, and tiles go with their file."""

    def test_a_partial_comes_back_with_its_description(self, store: Store) -> None:
        frame = events(1, 2, 3)
        partial = partial_of(frame)
        with store.lock("spend"):
            store.write_partials("spend", [PartialWrite(partial, frame)])
            store.write_partials("spend", [PartialWrite(partial, frame)])
        for opened in (store, self.beside(store)):
            assert opened.find_partial("spend", "a1") == partial
            assert opened.partials("spend") == {"a1"}
            [place] = opened.locate("spend", ["a1"])
            assert read_file(place)[place.number or 0].equals(frame)
        assert store.features() == []

    def test_a_partial_without_rows_or_columns_is_one_too(self, store: Store) -> None:
        for name, frame in (("e0", events()), ("e1", pl.DataFrame())):
            partial = partial_of(events(), name)._replace(schema=())
            with store.lock("spend"):
                store.write_partials("spend", [PartialWrite(partial, frame)])
            assert store.find_partial("spend", name) == partial

    def test_a_removed_partial_is_gone(self, store: Store) -> None:
        with store.lock("spend"):
            store.write_partials("spend", [PartialWrite(partial_of(events(1), "a1"), events(1))])
            store.write_partials("spend", [PartialWrite(partial_of(events(2), "b2"), events(2))])
            store.remove_partials("spend", ["a1"])
            store.remove_partials("spend", ["a1"])
        assert store.partials("spend") == {"b2"}
        assert store.find_partial("spend", "a1") is None
        [left] = store.locate("spend", ["b2"])
        assert read_file(left)[left.number or 0].equals(events(2))
        assert (store.partials("spend2"), store.find_partial("spend2", "b2")) == (set(), None)

    def test_partials_that_lost_bytes_are_told(self, store: Store) -> None:
        frames = {name: events(user) for user, name in enumerate(("a1", "b2"))}
        partials = [partial_of(frame, name) for name, frame in frames.items()]
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            for partial in partials:
                store.write_partials("spend", [PartialWrite(partial, frames[partial.hash])])
            tx.commit(version_of(tx, FIRST, events(0, 1), partials=tuple(partials)))
        assert store.check_partials("spend", ["a1", "b2"]) == {}
        [place] = store.locate("spend", ["a1"])
        self.damage(place.file, "a1")
        assert list(self.beside(store).check_partials("spend", ["a1", "b2"])) == ["a1"]

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
        tiles = self.beside(store).tiles("spend", "days")
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
        writes = [PartialWrite(partial_of(frame, name), frame) for name, frame in frames.items()]
        with store.lock("spend"):
            store.write_partials("spend", writes[:2], "at")
        partials = [partial for partial, _ in writes]
        version = described(FIRST)

        def read(
            chosen: list[Partial],
            times: TimeRange | None,
            columns: list[str],
            among: pl.DataFrame | None,
        ) -> pl.DataFrame:
            scan = event_scan(store, replace(version, partials=tuple(chosen)))
            return scan.scan(columns, times, among).collect().sort(columns)

        store.keep(replace(version, partials=tuple(partials[:2])), since)
        with store.lock("spend"):
            store.write_partials("spend", writes[2:], "at")
        choices: tuple[list[Partial], ...] = (
            partials,
            partials[:1],
            partials[1:],
            [partials[0]] * 2,
            [],
        )
        users = (None, *(events(*some).select("user") for some in ((), (2,), (3, 1), (7,))))
        ranges = (None, *(TimeRange(start, 2) for start in range(4)))
        for number, (times, chosen, among) in enumerate(product(ranges, choices, users)):
            columns = ["user", "at", "x"][: 2 + number % 2]
            rows = pl.concat([frames["a"].clear(), *(frames[p.hash] for p in chosen)])
            if times is not None:
                micros = pl.col("at").to_physical()
                rows = rows.filter(micros.is_between(times.start, times.end))
            if among is not None:
                rows = rows.join(among, on="user", how="semi")
            expected = rows.select(columns).sort(columns)
            assert read(chosen, times, columns, among).equals(expected)

    def test_a_version_is_read_beside_events_that_are_in_memory_of_another(
        self, store: Store
    ) -> None:
        one, two = events(1, 2, 3), events(2, 2)
        writes = [
            PartialWrite(partial_of(one, "a1"), one),
            PartialWrite(partial_of(two, "b2"), two),
        ]
        with store.lock("spend"):
            store.write_partials("spend", writes, "at")
        version = described(FIRST)
        for kept, asked in product([[], writes[:1], writes, [*writes, writes[0]]], repeat=2):
            store.keep(replace(version, partials=tuple(p for p, _ in kept)), 0)
            manifest = replace(version, partials=tuple(p for p, _ in asked))
            expected = pl.concat([one.clear(), *(frame for _, frame in asked)])
            for user in (1, 2):
                among = events(user).select("user")
                rows = event_scan(store, manifest).scan(None, TimeRange(0, 9), among).collect()
                found = expected.filter(pl.col("user") == user)
                assert rows.sort(rows.columns).equals(found.sort(found.columns))
        store.keep(version, None)
        assert store.resident(version) is None
