"""The contract of deletion that leaves no copy: partials that are scrubbed, and entities that are forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from mlforge.core.forgotten import Entity, Forgotten
from mlforge.store import Store
from mlforge.store.file_tasks import PartialWrite, TileWrite, read_file
from mlforge.testing.store_values import StoreFixtures, events, partial_of

FORGOTTEN = Forgotten("5a17").with_entities([Entity("user", "7"), Entity("card", "7")])


def write(store: Store, names: Iterable[str]) -> None:
    """Write partials of these names: the first has one event, the second two, and so on."""
    writes = [
        PartialWrite(partial_of(frame, name), frame)
        for number, name in enumerate(names, 1)
        for frame in (events(*range(number)),)
    ]
    with store.lock("spend"):
        store.write_partials("spend", writes)


class ErasureContract(StoreFixtures):
    """Scrubbed partials are gone, and the forgotten are known to every machine."""

    def test_scrubbed_partials_are_gone_with_their_tiles_and_others_stay(
        self, store: Store
    ) -> None:
        write(store, ("a1", "b2", "c3"))
        write(store, ("d4",))
        write(store, ("e5",))
        [task] = store.plan_files("spend", [partial_of(events(0), "d4")])
        with store.lock("spend"):
            store.write_tiles("spend", "days", [TileWrite(task.file, events(1), {})])
            [other] = store.plan_files("spend", [partial_of(events(0), "e5")])
            of_all = {"covers": ["a1", "e5"]}
            store.write_tiles("spend", "months", [TileWrite(other.file, events(1), of_all)])
        assert list(store.tiles("spend", "days")) == [task.file]
        with store.lock("spend"):
            store.scrub("spend", ["a1", "d4", "0f"])
            store.scrub("spend", ["a1", "d4"])
        for opened in (store, self.beside(store)):
            assert opened.partials("spend") == {"b2", "c3", "e5"}
            assert opened.find_partial("spend", "a1") is None
            for place, users in zip(
                opened.locate("spend", ["b2", "c3"]), ((0, 1), (0, 1, 2)), strict=True
            ):
                assert read_file(place)[place.number or 0].equals(events(*users))
            assert opened.tiles("spend", "days") == opened.tiles("spend", "months") == {}

    def test_the_forgotten_come_back_as_they_were_written(self, store: Store) -> None:
        assert store.forgotten() == Forgotten()
        store.write_forgotten(FORGOTTEN)
        more = FORGOTTEN.with_entities([Entity("user", "8")])
        assert self.again(store).forgotten() == FORGOTTEN
        store.write_forgotten(more)
        for opened in (store, self.again(store)):
            known = opened.forgotten()
            assert known == more
            assert known.holds("user", "8")
            assert known.holds("card", "7")
            assert not known.holds("card", "8")
        begun = more.begun(["spend", "users"])
        store.write_forgotten(begun)
        store.end_forgetting(["spend"], FORGOTTEN)  # which is less than was forgotten by now
        assert self.again(store).forgotten() == begun
        store.end_forgetting(["spend", "gone"], more)
        for opened in (store, self.again(store)):
            assert opened.forgotten().unfinished == {"users"}
        assert store.features() == []
