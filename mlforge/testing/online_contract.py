"""The contract of every online store. A backend's tests subclass this and provide the fixture `store`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal

import polars as pl
import pytest

from mlforge.core import clock
from mlforge.core.schema import Column
from mlforge.errors import (
    DataError,
    DefinitionError,
    OnlineError,
    OwnedElsewhere,
    RetrievalError,
    StalePush,
)
from mlforge.frames.encoding import key_hash, key_hashes
from mlforge.online import OnlineBooks, OnlineStore, Owner, Target
from mlforge.online.books import Claim

KEYS = (Column("user_id", "Int64"),)
COLUMNS = (Column("amount__sum__7d", "Float64", "sum", "7d"), Column("n", "Int64"))
NOON = 1_704_110_400_000_000
OLD, NEW = Target("1.0.0", 1, NOON, "r0"), Target("1.0.1", 2, NOON, "r1")


def frame(*users: int, amount: float = 1.5) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": users, "amount__sum__7d": amount, "n": 1},
        schema={"user_id": pl.Int64, "amount__sum__7d": pl.Float64, "n": pl.Int64},
    )


def books(rows: int) -> OnlineBooks:
    now = clock.now()
    return OnlineBooks(
        target=None,
        rows=rows,
        pushed_at=now,
        renewed_at=now,
        keys=KEYS,
        columns=COLUMNS,
        empty={"amount__sum__7d": None, "n": 0},
    )


def push(store: OnlineStore, target: Target, *users: int, feature: str = "spend") -> None:
    store.begin(feature, target)
    store.put(feature, target, frame(*users), ["user_id"])
    store.finish(feature, target, books(len(users)))


def entities(*users: int) -> list[dict[str, object]]:
    return [{"user_id": user} for user in users]


class OnlineStoreContract:
    """The suite; every test gets an empty store."""

    @pytest.fixture
    def store(self) -> OnlineStore:
        raise NotImplementedError

    # Single rows

    def test_what_is_written_is_read(self, store: OnlineStore) -> None:
        values = {"amount": 0.1, "big": 2**63 - 1, "name": "é\u2028😀", "none": None}
        store.write("spend", {"user_id": 1}, values)
        assert store.read("spend", {"user_id": 1}) == values
        assert store.read("spend", {"user_id": 2}) is None
        assert store.read("other", {"user_id": 1}) is None

    def test_an_entity_is_the_same_as_text(self, store: OnlineStore) -> None:
        store.write("spend", {"user_id": 1, "day": date(2024, 1, 2)}, {"n": 1})
        assert store.read("spend", {"day": "2024-01-02", "user_id": "1"}) == {"n": 1}

    def test_a_batch_is_written_and_read_in_the_order_asked(self, store: OnlineStore) -> None:
        records = [{"user_id": user, "n": user * 10} for user in range(600)]
        store.write_batch("spend", records, ["user_id"])
        asked = entities(599, 7, 1000, 7)
        assert store.read_batch("spend", asked) == [{"n": 5990}, {"n": 70}, None, {"n": 70}]
        assert store.read_batch("spend", []) == []

    def test_write_batch_equals_put(self, store: OnlineStore) -> None:
        rows = pl.DataFrame({"user_id": [1], "at": [date(2024, 1, 2)], "x": [float("nan")]})
        store.write_batch("single", rows.to_dicts(), ["user_id"])
        store.begin("pushed", OLD)
        store.put("pushed", OLD, rows, ["user_id"])
        single = store.read("single", {"user_id": 1})
        assert single == store.read("pushed", {"user_id": 1}) == {"at": "2024-01-02", "x": None}

    def test_delete_and_exists_tell_whether_there_is_a_row(self, store: OnlineStore) -> None:
        store.write("spend", {"user_id": 1}, {"n": 1})
        assert store.exists("spend", {"user_id": 1})
        assert store.delete("spend", {"user_id": 1})
        assert not store.exists("spend", {"user_id": 1})
        assert not store.delete("spend", {"user_id": 1})

    def test_ping_answers(self, store: OnlineStore) -> None:
        assert store.ping() is True

    def test_a_store_works_again_after_close(self, store: OnlineStore) -> None:
        store.ping()
        store.close()
        assert store.ping() is True

    def test_a_null_key_and_an_unsafe_name_are_refused(self, store: OnlineStore) -> None:
        with pytest.raises(RetrievalError, match="'user_id' is null"):
            store.read("spend", {"user_id": None})
        with pytest.raises(DefinitionError, match="not allowed"):
            store.write("spend:*", {"user_id": 1}, {"n": 1})

    # A push

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
        assert store.features() == ["spend"]

    def test_put_counts_its_rows_and_streams_more_than_a_chunk(self, store: OnlineStore) -> None:
        store.begin("spend", OLD)
        many = frame(*range(9_001))
        assert store.put("spend", OLD, many, ["user_id"]) == 9_001
        assert store.put("spend", OLD, many.head(0), ["user_id"]) == 0
        found = store.read_batch("spend", entities(0, 249, 250, 3_999, 4_000, 9_000, 9_001))
        assert [row is not None for row in found] == [True] * 6 + [False]

    def test_an_untimed_target_goes_there_and_back(self, store: OnlineStore) -> None:
        target = Target("1.0.0", 3, None)
        push(store, target, 1)
        found = store.books("spend")
        assert found is not None
        assert found.target == target

    def test_books_are_none_before_the_first_push(self, store: OnlineStore) -> None:
        assert store.books("spend") is None
        assert store.features() == []

    def test_a_target_is_pending_from_begin_to_finish(self, store: OnlineStore) -> None:
        begun = store.begin("spend", OLD)
        assert begun == OnlineBooks(target=None, pending=(OLD,))
        assert store.books("spend") == begun
        push(store, OLD, 1)
        assert store.begin("spend", NEW).pending == (NEW,)
        found = store.books("spend")
        assert found is not None
        assert (found.target, found.pending, found.rows) == (OLD, (NEW,), 1)

    def test_unfinished_targets_stay_pending_until_a_later_one_is_done(
        self, store: OnlineStore
    ) -> None:
        later, last = Target("1.0.0", 1, NOON + 1), Target("1.0.1", 2, NOON)
        for target in (OLD, later, later, last):
            found = store.begin("spend", target)
        assert found.pending == (OLD, later, last)
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
        found = store.read_batch("spend", entities(1, 2))
        assert [row and row["amount__sum__7d"] for row in found] == [2.0, 1.0]
        assert store.books("spend") == OnlineBooks(target=None, pending=(older, newer))

    def test_a_pusher_is_stopped_in_the_middle_of_a_put(self, store: OnlineStore) -> None:
        """Chunks that were not sent before the newer target began are never written."""
        store.begin("spend", OLD)
        blocks = frame(*range(50_000)).iter_slices(40_000)
        store.put("spend", OLD, next(blocks), ["user_id"])
        store.begin("spend", NEW)
        with pytest.raises(StalePush):
            store.put("spend", OLD, next(blocks), ["user_id"])
        assert store.read("spend", {"user_id": 39_999}) is not None
        assert store.read("spend", {"user_id": 40_000}) is None
        assert store.ping()

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
        found = store.read_batch("spend", entities(1, 2, 3))
        assert [row is not None for row in found] == [True, False, False]

    def test_rows_found_that_a_put_does_not_write_can_be_removed(self, store: OnlineStore) -> None:
        push(store, OLD, *range(2_000))
        push(store, OLD, 5, feature="spend-2")
        store.begin("spend", NEW)
        unwritten = store.list_digests("spend")
        assert len(unwritten) == 2_000
        store.put("spend", NEW, frame(*range(0, 2_001, 2)), ["user_id"], unwritten)
        assert store.remove_rows("spend", NEW, unwritten) == 1_000
        found = store.read_batch("spend", entities(*range(2_001)))
        assert [row is not None for row in found] == [True, False] * 1_000 + [True]
        assert store.exists("spend-2", {"user_id": 5})
        assert store.books("spend") is not None

    def test_others_are_the_rows_beyond_those_named(self, store: OnlineStore) -> None:
        push(store, OLD, 1, 2, 3)
        assert store.count_other_rows("spend", key_hashes(frame(2, 9), ["user_id"])) == 2
        assert store.count_other_rows("spend", ()) == 3

    def test_renew_counts_the_rows_that_live(self, store: OnlineStore) -> None:
        push(store, OLD, *range(3_000))
        store.delete("spend", {"user_id": 7})
        with clock.fixed(clock.now() + 1_000_000):
            assert store.renew("spend", OLD) == 2_999
            found = store.books("spend")
            assert found is not None
            assert found.renewed_at == clock.now() > found.pushed_at

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

    # Owners

    def test_rows_are_of_the_store_that_pushed_them_first(self, store: OnlineStore) -> None:
        mine, theirs = (replace(OLD, store=name) for name in ("store-a", "store-b"))
        store.begin("spend", mine, Claim(Owner("store-a", "shop", "/a", "here", "host", NOON)))
        store.put("spend", mine, frame(1), ["user_id"])
        store.finish("spend", mine, books(1))
        found = store.books("spend")
        assert found is not None
        assert found.owner == Owner("store-a", "shop", "/a", "here", "host", NOON)
        assert found.target == mine
        newer = replace(theirs, generation=9)
        for refused in (
            lambda: store.begin("spend", newer, Claim(Owner("store-b"))),
            lambda: store.begin("spend", newer, Claim(Owner("store-b"), takes_from="store-c")),
            lambda: store.drop("spend", "store-b"),
            lambda: store.forget("spend", "store-b"),
        ):
            with pytest.raises(OwnedElsewhere, match="store-a"):
                refused()
        assert store.books("spend") == found
        assert store.drop("spend", "store-a") == 1

    @pytest.mark.parametrize("afresh", [True, False])
    def test_who_takes_rows_from_another_bars_its_pushes_whatever_their_fence(
        self, store: OnlineStore, afresh: bool
    ) -> None:
        before, after = replace(NEW, store="store-a"), replace(OLD, store="store-b")
        same = replace(NEW, store="store-b")
        for target in (after, same):  # one fence is lower than the other's, one is the same
            store.forget("spend")
            store.begin("spend", before, Claim(Owner("store-a")))
            store.finish("spend", before, books(0))
            found = store.begin("spend", target, Claim(Owner("store-b"), "store-a", afresh))
            assert found.owner is not None
            assert found.owner.store == "store-b"
            assert (found.target is None) is afresh
            for step in (
                lambda: store.put("spend", before, frame(1), ["user_id"]),
                lambda: store.remove("spend", before, frame(1), ["user_id"]),
                lambda: store.renew("spend", before),
                lambda: store.finish("spend", before, books(0)),
            ):
                with pytest.raises(StalePush):
                    step()
            assert store.put("spend", target, frame(1), ["user_id"]) == 1

    def test_readers_that_mean_another_store_get_an_error(self, store: OnlineStore) -> None:
        target = replace(OLD, store="store-a")
        store.begin("spend", target, Claim(Owner("store-a")))
        store.put("spend", target, frame(1), ["user_id"])
        store.finish("spend", target, books(1))
        push(store, OLD, 1, feature="unnamed")
        store.owner = "store-b"
        with pytest.raises(OwnedElsewhere, match=r"spend: .*store-a"):
            store.read("spend", {"user_id": 1})
        assert store.read("unnamed", {"user_id": 1}), "nobody says whose they are"
        store.owner = "store-a"
        assert store.read("spend", {"user_id": 1})

    # Requests

    def test_values_are_read_by_the_dtypes_in_the_books(self, store: OnlineStore) -> None:
        columns = (Column("price", "Decimal(38, 2)"), Column("day", "Date"), Column("f", "Float32"))
        values = {"price": Decimal("1.50"), "day": date(2024, 1, 2), "f": 2.0}
        store.write("spend", {"user_id": 1}, values)
        assert store.read("spend", {"user_id": 1}) == {
            "price": "1.50",
            "day": "2024-01-02",
            "f": 2.0,
        }
        store.begin("spend", OLD)
        empty = dict.fromkeys(values)
        store.finish("spend", OLD, replace(books(1), columns=columns, empty=empty))
        assert store.read("spend", {"user_id": 1}) == values
        store.write("spend", {"user_id": 2}, {"price": "much", "day": None, "f": None})
        with pytest.raises(
            OnlineError, match=r"spend: the row of {'user_id': 2}.*'price' is 'much'"
        ):
            store.read("spend", {"user_id": 2})

    def test_fetch_answers_several_features_in_the_order_asked(self, store: OnlineStore) -> None:
        push(store, OLD, 1, 2)
        store.begin("other", NEW)
        store.write("plain", {"city": "x"}, {"n": 5})
        answers = store.fetch(
            [
                ("other", entities(1)),
                ("spend", entities(2, 9, 2, 1)),
                ("plain", [{"city": "x"}]),
                ("spend", []),
            ]
        )
        row = {"amount__sum__7d": 1.5, "n": 1}
        assert [rows for _, rows in answers] == [[None], [row, None, row, row], [{"n": 5}], []]
        assert answers[0][0] == OnlineBooks(target=None, pending=(NEW,))
        assert answers[1][0] == answers[3][0] == store.books("spend")
        assert answers[2][0] is None
        assert store.fetch([]) == []

    def test_rows_lie_under_the_hash_of_their_entity(self, store: OnlineStore) -> None:
        push(store, OLD, 41)
        assert store.list_digests("spend") == {bytes.fromhex(key_hash({"user_id": "41"}))}
