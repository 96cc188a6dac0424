"""The contract of pushes to an online store: fences, and what becomes of rows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import polars as pl
import pytest

from mlforge.core import clock
from mlforge.errors import (
    DataError,
    RetrievalError,
    StalePush,
)
from mlforge.frames.encoding import key_hashes
from mlforge.online import OnlineBooks, OnlineStore, Target
from mlforge.online.requests import RowRequest
from mlforge.online.steps import answered_async
from mlforge.testing.online_values import (
    COLUMNS,
    KEYS,
    NEW,
    NOON,
    OLD,
    OnlineFixtures,
    books,
    entities,
    frame,
    push,
)


class PushContract(OnlineFixtures):
    """A push writes rows and books, and a stale one changes nothing.

    streamed: the number of rows of a put that is long under way.
    """

    streamed = 50_000

    def test_a_push_writes_rows_and_books(self, store: OnlineStore) -> None:
        with clock.fixed(NOON):
            push(store, OLD, 1, 2)
        assert store.books("spend") == OnlineBooks(
            target=OLD,
            pending=(),
            rows=2,
            pushed_at=NOON,
            renewed_at=NOON,
            keys=KEYS,
            columns=COLUMNS,
            empty={"amount__sum__7d": None, "n": 0},
            ttl=store.ttl,
        )
        assert store.read("spend", {"user_id": 2}) == {"amount__sum__7d": 1.5, "n": 1}
        for look in (store.read, store.exists):
            with pytest.raises(RetrievalError, match="'user_id' is missing, 'user' is no key"):
                look("spend", {"user": 2})
        assert store.features() == ["spend"]

    def test_put_counts_its_rows_and_streams_more_than_a_chunk(self, store: OnlineStore) -> None:
        store.begin("spend", OLD)
        rows = min(9_001, self.streamed)
        many = frame(*range(rows))
        assert store.put("spend", OLD, many, ["user_id"]) == rows
        assert store.put("spend", OLD, many.head(0), ["user_id"]) == 0
        users = (0, 249, 250, rows // 2, rows - 2, rows - 1, rows)
        answers = store.read_batch("spend", entities(*users))
        assert [row is not None for row in answers] == [True] * 6 + [False]

    def test_a_target_is_pending_from_begin_to_finish(self, store: OnlineStore) -> None:
        begun = store.begin("spend", OLD)
        assert begun == OnlineBooks(target=None, pending=(OLD,))
        assert store.books("spend") == begun
        push(store, OLD, 1)
        assert store.begin("spend", NEW).pending == (NEW,)
        stored = store.books("spend")
        assert stored is not None
        assert (stored.target, stored.pending, stored.rows) == (OLD, (NEW,), 1)

    def test_unfinished_targets_stay_pending_until_a_later_one_is_done(
        self, store: OnlineStore
    ) -> None:
        later, last = Target("1.0.0", 1, NOON + 1), Target("1.0.1", 2, NOON)
        for target in (OLD, later, later, last):
            stored = store.begin("spend", target)
        assert stored.pending == (OLD, later, last)
        store.finish("spend", last, books(0))
        done = store.books("spend")
        assert done is not None
        assert (done.target, done.pending) == (last, ())

    @pytest.mark.parametrize(
        ("newer", "older"),
        [
            (Target("1.0.1", 2, NOON), Target("1.0.0", 1, NOON + 5)),
            (Target("1.0.0", 1, NOON + 1), Target("1.0.0", 1, NOON)),
            (Target("1.0.0", 1, -5), Target("1.0.0", 1, -6)),
            (Target("1.0.0", 1, NOON), Target("1.0.0", 1, None)),
            (Target("1.0.0", 10, None), Target("1.0.0", 9, None)),
        ],
        ids=str,
    )
    def test_a_stale_pusher_changes_nothing(
        self, store: OnlineStore, newer: Target, older: Target
    ) -> None:
        store.begin("spend", older)
        store.put("spend", older, frame(1, 2, amount=1.0), ["user_id"])
        store.begin("spend", newer)
        store.put("spend", newer, frame(1, amount=2.0), ["user_id"])
        stale: list[Callable[[], object]] = [
            lambda: store.begin("spend", older),
            lambda: store.put("spend", older, frame(1, amount=1.0), ["user_id"]),
            lambda: store.remove("spend", older, frame(1), ["user_id"]),
            lambda: store.remove_rows("spend", older, [bytes(32)]),
            lambda: store.renew("spend", older),
            lambda: store.finish("spend", older, books(2)),
        ]
        for step in stale:
            with pytest.raises(StalePush, match="push the latest version instead"):
                step()
        rows = store.read_batch("spend", entities(1, 2))
        assert [row and row["amount__sum__7d"] for row in rows] == [2.0, 1.0]
        assert store.books("spend") == OnlineBooks(target=None, pending=(older, newer))

    def test_a_stale_pusher_changes_nothing_after_the_newer_push_has_finished(
        self, store: OnlineStore
    ) -> None:
        store.begin("spend", OLD)
        push(store, NEW, 1)
        before = store.books("spend")
        stale: list[Callable[[], object]] = [
            lambda: store.begin("spend", OLD),
            lambda: store.put("spend", OLD, frame(1, 2, amount=9.0), ["user_id"]),
            lambda: store.remove("spend", OLD, frame(1), ["user_id"]),
            lambda: store.remove_rows("spend", OLD, store.list_digests("spend")),
            lambda: store.renew("spend", OLD),
            lambda: store.finish("spend", OLD, books(9)),
        ]
        for step in stale:
            with pytest.raises(StalePush):
                step()
        rows = store.read_batch("spend", entities(1, 2))
        assert [row and row["amount__sum__7d"] for row in rows] == [1.5, None]
        assert store.books("spend") == before

    def test_a_pusher_is_stopped_in_the_middle_of_a_put(self, store: OnlineStore) -> None:
        """Chunks that were not sent before the newer target began are never written."""
        store.begin("spend", OLD)
        first = self.streamed * 4 // 5
        blocks = frame(*range(self.streamed)).iter_slices(first)
        store.put("spend", OLD, next(blocks), ["user_id"])
        store.begin("spend", NEW)
        with pytest.raises(StalePush):
            store.put("spend", OLD, next(blocks), ["user_id"])
        assert store.read("spend", {"user_id": first - 1}) is not None
        assert store.read("spend", {"user_id": first}) is None
        assert store.ping()

    def test_a_pusher_that_is_overtaken_by_a_thread_never_overwrites(
        self, store: OnlineStore
    ) -> None:
        """The slow one writes over and over; once the fast one has begun, nothing of it arrives."""
        begun = threading.Event()
        outcome: list[BaseException] = []

        def slow() -> None:
            store.begin("spend", OLD)
            try:
                while True:
                    store.put("spend", OLD, frame(*range(500), amount=1.0), ["user_id"])
                    begun.set()
            except StalePush as stale:
                outcome.append(stale)

        thread = threading.Thread(target=slow, daemon=True)
        thread.start()
        assert begun.wait(60)
        store.begin("spend", NEW)
        store.put("spend", NEW, frame(*range(500), amount=2.0), ["user_id"])
        thread.join(60)
        rows = store.read_batch("spend", entities(*range(500)))
        assert len(outcome) == 1
        assert {row and row["amount__sum__7d"] for row in rows} == {2.0}

    def test_a_push_whose_beginning_was_lost_must_begin_again(self, store: OnlineStore) -> None:
        store.begin("spend", OLD)
        store.forget("spend")
        with pytest.raises(StalePush, match="push again from the start"):
            store.put("spend", OLD, frame(1), ["user_id"])
        with pytest.raises(StalePush, match="push again from the start"):
            store.finish("spend", OLD, books(0))
        assert store.books("spend") is None

    def test_fences_are_per_feature(self, store: OnlineStore) -> None:
        push(store, NEW, 1)
        push(store, OLD, 1, feature="spend2")
        assert store.features() == ["spend", "spend2"]

    def test_remove_deletes_these_entities(self, store: OnlineStore) -> None:
        push(store, OLD, 1, 2, 3)
        store.begin("spend", NEW)
        gone = frame(2, 3, 4).select("user_id")
        assert store.remove("spend", NEW, gone, ["user_id"]) == 2
        rows = store.read_batch("spend", entities(1, 2, 3))
        assert [row is not None for row in rows] == [True, False, False]

    def test_rows_found_that_a_put_does_not_write_can_be_removed(self, store: OnlineStore) -> None:
        push(store, OLD, *range(2_000))
        push(store, OLD, 5, feature="spend-2")
        store.begin("spend", NEW)
        unwritten = store.list_digests("spend")
        assert len(unwritten) == 2_000
        store.put("spend", NEW, frame(*range(0, 2_001, 2)), ["user_id"], unwritten)
        assert store.remove_rows("spend", NEW, unwritten) == 1_000
        rows = store.read_batch("spend", entities(*range(2_001)))
        assert [row is not None for row in rows] == [True, False] * 1_000 + [True]
        assert store.exists("spend-2", {"user_id": 5})
        assert store.books("spend") is not None

    def test_others_are_the_rows_beyond_those_named(self, store: OnlineStore) -> None:
        push(store, OLD, 1, 2, 3)
        assert store.count_other_rows("spend", key_hashes(frame(2, 9), ["user_id"])) == 2
        assert store.count_other_rows("spend", ()) == 3

    def test_those_of_some_hashes_that_have_rows_are_counted(self, store: OnlineStore) -> None:
        push(store, OLD, 1, 2, 3)
        assert store.count_rows("spend", key_hashes(frame(2, 9, 3), ["user_id"]).to_list()) == 2
        assert store.count_rows("spend", []) == 0

    def test_an_event_loop_is_answered_as_a_thread_is(self, store: OnlineStore) -> None:
        push(store, OLD, 1, 2)
        requests = [
            RowRequest.of("spend", entities(2, 1, 9)),
            RowRequest.of("none", entities(1)),
            RowRequest.of("spend", []),
        ]

        async def asked() -> object:
            try:
                return await answered_async(store.reading(requests)), await store.evidence_async()
            finally:
                await store.aclose()

        answers = store.fetch([(each.feature, each.entities) for each in requests])
        assert asyncio.run(asked()) == (answers, store.evidence())

    def test_rows_of_several_features_are_counted_together(self, store: OnlineStore) -> None:
        push(store, OLD, *range(2_000))
        push(store, OLD, 1, 2, feature="spend-2")
        push(store, OLD, 1, feature="other")
        store.delete("spend", {"user_id": 7})
        assert store.rows_by_feature(["spend", "spend-2", "none"]) == {
            "spend": 1_999,
            "spend-2": 2,
            "none": 0,
        }
        assert store.rows_by_feature([]) == {}

    def test_renew_counts_the_rows_that_live(self, store: OnlineStore) -> None:
        push(store, OLD, *range(3_000))
        store.delete("spend", {"user_id": 7})
        with clock.fixed(clock.now() + 1_000_000):
            assert store.renew("spend", OLD) == 2_999
            stored = store.books("spend")
            assert stored is not None
            assert stored.renewed_at == clock.now() > stored.pushed_at

    def test_drop_leaves_nothing_of_the_feature(self, store: OnlineStore) -> None:
        push(store, OLD, *range(2_500))
        push(store, OLD, 1, feature="spend2")
        assert store.drop("spend") == 2_500
        assert store.books("spend") is None
        assert not store.exists("spend", {"user_id": 1})
        assert store.features() == ["spend2"]
        assert store.exists("spend2", {"user_id": 1})
        assert store.drop("spend") == 0

    def test_a_forgotten_feature_takes_any_target_and_can_be_dropped(
        self, store: OnlineStore
    ) -> None:
        push(store, NEW, 1)
        store.forget("spend")
        assert store.books("spend") is None
        assert store.features() == ["spend"]
        push(store, OLD, 1)
        assert store.drop("spend") == 1

    def test_a_frame_that_cannot_be_encoded_writes_nothing(self, store: OnlineStore) -> None:
        store.begin("spend", OLD)
        with pytest.raises(DataError, match="'user_id' has nulls"):
            store.put("spend", OLD, pl.DataFrame({"user_id": [1, None], "n": [1, 2]}), ["user_id"])
        with pytest.raises(DataError, match="'n' is Binary"):
            store.put("spend", OLD, pl.DataFrame({"user_id": [1], "n": [b"x"]}), ["user_id"])
        assert not store.exists("spend", {"user_id": 1})

    def test_a_feature_of_keys_alone_has_empty_rows(self, store: OnlineStore) -> None:
        store.begin("seen", OLD)
        assert store.put("seen", OLD, frame(1, 2).select("user_id"), ["user_id"]) == 2
        assert store.read_batch("seen", entities(1, 3)) == [{}, None]
