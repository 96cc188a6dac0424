"""The contract of the books of an online store: what a push tells of a feature, and what is noted later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlforge.core import clock
from mlforge.core.expression.columns import Derived
from mlforge.core.schema import Column
from mlforge.errors import OnlineUnavailable
from mlforge.online import OnlineBooks, OnlineStore, Owner, Target
from mlforge.online.books import INCOMPLETE, Claim, Evidence
from mlforge.testing.every_field import differ_in_every_field
from mlforge.testing.online_values import (
    COLUMNS,
    KEYS,
    NEW,
    NOON,
    OLD,
    OnlineFixtures,
    books,
    frame,
    push,
)


class BooksContract(OnlineFixtures):
    """Books come back as they were written, until a push or a note changes them."""

    def test_books_say_what_the_columns_of_their_version_mean(self, store: OnlineStore) -> None:
        store.begin("spend", OLD)
        store.finish("spend", OLD, replace(books(0), meaning='{"code": "ä"}'))
        stored = store.books("spend")
        assert stored is not None
        assert stored.meaning == '{"code": "ä"}'
        push(store, NEW, 1)  # as a release does that knows of no meanings
        stored = store.books("spend")
        assert stored is not None
        assert stored.meaning == ""

    def test_books_come_back_with_all_that_they_tell(self, store: OnlineStore) -> None:
        target = replace(OLD, store="store-a")
        owner = Owner("store-a", "shop", "/a", "here", "host", NOON)
        told = OnlineBooks(
            target=target,
            rows=3,
            pushed_at=clock.now(),
            renewed_at=clock.now() - 1,
            keys=(*KEYS, Column("ä card", "String")),
            columns=(*COLUMNS, Column("x__last_3__all", "List(Int64)", "last_3", "all")),
            empty={"amount__sum__7d": None, "n": 0, "x__last_3__all": []},
            evidence=Evidence("run-1", 7, "history", "mark"),
            ttl=store.ttl,
            owner=owner,
            derived=(Derived("ü", "n / 2"), Derived("days", "days(t - at)")),
            inputs=(Column("n", "Int64"), Column("at", "Datetime(us, UTC)")),
            meaning='{"code": "c0de"}',
            defaults={"n": 1},
            formerly=("cost", "costs"),
        )
        assert differ_in_every_field(told, OnlineBooks(None), "pending", "ttl")
        store.begin("spend", target, Claim(owner))
        store.finish("spend", target, told)
        assert store.books("spend") == told

    def test_books_have_defaults_and_former_names_until_a_push_has_none(
        self, store: OnlineStore
    ) -> None:
        defaults = {"amount__sum__7d": 0, "seen": {"date": "2026-01-31"}}
        store.begin("spend", OLD)
        store.finish("spend", OLD, replace(books(0), defaults=defaults, formerly=("cost",)))

        def kept() -> tuple[object, object]:
            stored = store.books("spend")
            assert stored is not None
            return stored.defaults, stored.formerly

        assert kept() == (defaults, ("cost",))
        store.renew("spend", OLD)
        assert kept() == (defaults, ("cost",))
        stored = store.books("spend")
        assert stored is not None
        store.mark_incomplete("spend", stored)
        assert kept() == (defaults, ("cost",))
        push(store, NEW, 1)
        assert kept() == ({}, ())

    def test_books_are_none_before_the_first_push(self, store: OnlineStore) -> None:
        assert store.books("spend") is None
        assert store.features() == []

    def test_an_untimed_target_goes_there_and_back(self, store: OnlineStore) -> None:
        target = Target("1.0.0", 3, None)
        push(store, target, 1)
        stored = store.books("spend")
        assert stored is not None
        assert stored.target == target

    def test_rows_that_are_missing_are_noted_unless_a_push_has_begun(
        self, store: OnlineStore
    ) -> None:
        push(store, OLD, 1)
        stored = store.books("spend")
        assert stored is not None
        store.mark_incomplete("spend", stored)
        assert store.books("spend") == replace(stored, evidence=INCOMPLETE)
        push(store, OLD, 1)
        store.begin("spend", NEW)
        store.mark_incomplete("spend", stored)
        begun = store.books("spend")
        assert begun is not None
        assert (begun.target, begun.pending, begun.evidence) == (OLD, (NEW,), None)

    def test_a_push_that_another_server_answers_at_its_end_is_not_done(
        self, store: OnlineStore
    ) -> None:
        evidence = store.evidence()
        if evidence is None:
            pytest.skip("this backend tells no server from another")
        store.begin("spend", OLD)
        store.put("spend", OLD, frame(1), ["user_id"])
        with pytest.raises(OnlineUnavailable):
            store.finish("spend", OLD, books(1), f"{evidence.server[:-1]}~")
        stored = store.books("spend")
        assert stored is not None
        assert stored.target is None
        store.finish("spend", OLD, books(1), evidence.server)
        stored = store.books("spend")
        assert stored is not None
        assert stored.target == OLD

    def test_a_feature_that_is_off_the_list_has_its_rows_and_books(
        self, store: OnlineStore
    ) -> None:
        push(store, OLD, 1)
        push(store, OLD, 1, feature="other")
        before = store.books_of(["spend", "none", "other"])
        assert before == {name: store.books(name) for name in ("spend", "none", "other")}
        store.unregister("spend")
        assert store.features() == ["other"]
        assert store.books_of(["spend", "none", "other"]) == before
        assert store.exists("spend", {"user_id": 1})
        push(store, NEW, 1)
        assert store.features() == ["other", "spend"]
