"""The contract of rows in an online store: written, read, and of one owner."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import polars as pl
import pytest

from mlforge.core.schema import Column
from mlforge.errors import (
    DefinitionError,
    OnlineError,
    OwnedElsewhere,
    RetrievalError,
    StalePush,
)
from mlforge.frames.encoding import key_hash
from mlforge.online import OnlineBooks, OnlineStore, Owner
from mlforge.online.books import Claim
from mlforge.testing.online_values import (
    NEW,
    NOON,
    OLD,
    OnlineFixtures,
    books,
    entities,
    frame,
    push,
)


class RowsContract(OnlineFixtures):
    """Rows are read as they were written, in the order asked, by those who may."""

    # Single rows

    def test_what_is_written_is_read(self, store: OnlineStore) -> None:
        values = {"amount": 0.1, "big": 2**63 - 1, "name": "é\u2028😀", "none": None}
        store.write("spend", {"user_id": 1}, values)
        assert store.read("spend", {"user_id": 1}) == values
        assert store.read("spend", {"user_id": 2}) is None
        assert store.read("other", {"user_id": 1}) is None
        store.write("spend", {"user_id": 1}, {"other": 1})
        assert store.read("spend", {"user_id": 1}) == {"other": 1}

    def test_an_entity_is_the_same_as_text(self, store: OnlineStore) -> None:
        store.write("spend", {"user_id": 1, "day": date(2024, 1, 2)}, {"n": 1})
        assert store.read("spend", {"day": "2024-01-02", "user_id": "1"}) == {"n": 1}

    def test_a_batch_is_written_and_read_in_the_order_asked(self, store: OnlineStore) -> None:
        records = [{"user_id": user, "n": user * 10} for user in range(600)]
        store.write_batch("spend", records, ["user_id"])
        chosen = entities(599, 7, 1000, 7)
        assert store.read_batch("spend", chosen) == [{"n": 5990}, {"n": 70}, None, {"n": 70}]
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

    # Owners

    def test_rows_are_of_the_store_that_pushed_them_first(self, store: OnlineStore) -> None:
        mine, theirs = (replace(OLD, store=name) for name in ("store-a", "store-b"))
        store.begin("spend", mine, Claim(Owner("store-a", "shop", "/a", "here", "host", NOON)))
        store.put("spend", mine, frame(1), ["user_id"])
        store.finish("spend", mine, books(1))
        stored = store.books("spend")
        assert stored is not None
        assert stored.owner == Owner("store-a", "shop", "/a", "here", "host", NOON)
        assert stored.target == mine
        newer = replace(theirs, generation=9)
        for refused in (
            lambda: store.begin("spend", newer, Claim(Owner("store-b"))),
            lambda: store.begin("spend", newer, Claim(Owner("store-b"), takes_from="store-c")),
            lambda: store.drop("spend", "store-b"),
            lambda: store.forget("spend", "store-b"),
        ):
            with pytest.raises(OwnedElsewhere, match="store-a"):
                refused()
        assert store.books("spend") == stored
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
            stored = store.begin("spend", target, Claim(Owner("store-b"), "store-a", afresh))
            assert stored.owner is not None
            assert stored.owner.store == "store-b"
            assert (stored.target is None) is afresh
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
        digest = bytes.fromhex(key_hash({"user_id": "41"}))
        assert store.list_digests("spend") == {digest[: store.digest_bytes]}
