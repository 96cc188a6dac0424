"""The books of buckets as those of a feature."""

from __future__ import annotations

from dataclasses import replace

from mlforge.online import Evidence, OnlineBooks, Owner, Target
from mlforge.online.books import INCOMPLETE
from mlforge.online.redis.merged_books import merged

OLD, NEW, NEWEST = (Target(f"1.0.{n}", n, None) for n in (1, 2, 3))


def books(target: Target | None, *pending: Target, **more: object) -> OnlineBooks:
    return replace(OnlineBooks(target, pending, rows=7, renewed_at=5), **more)  # type: ignore[arg-type]


def test_what_all_buckets_tell_is_told() -> None:
    for told in (None, books(OLD), books(NEW, NEWEST), books(None, OLD)):
        assert merged([told, told, told]) == told


def test_the_least_is_promised_and_rows_may_be_of_all_else() -> None:
    assert merged([books(NEW), books(OLD, NEW), books(OLD, NEW)]) == books(OLD, NEW)
    assert merged([books(NEW), books(OLD), books(NEW)]) == books(OLD, NEW), "a failover lost it"
    assert merged([books(NEW), books(NEW, NEWEST)]) == books(NEW, NEWEST)
    told = merged([books(NEWEST), books(OLD, NEW), books(NEW)])
    assert told is not None
    assert told.target == OLD
    assert set(told.pending) == {NEW, NEWEST}


def test_a_target_that_begins_again_is_pending_beside_itself() -> None:
    assert merged([books(OLD, OLD), books(OLD)]) == books(OLD, OLD)


def test_nothing_is_promised_where_a_bucket_promises_nothing() -> None:
    for lost in (None, OnlineBooks(None)):
        told = merged([books(OLD), lost, books(OLD, NEW)])
        assert told is not None
        assert (told.target, set(told.pending)) == (None, {OLD, NEW})


def test_rows_are_as_old_as_those_of_the_oldest_bucket_and_known_to_lack_some_if_any_are() -> None:
    seen = Evidence("run", 0)
    told = merged([books(OLD, evidence=seen), books(OLD, renewed_at=3, evidence=INCOMPLETE)])
    assert told is not None
    assert (told.renewed_at, told.evidence) == (3, INCOMPLETE)


def test_the_owner_is_that_of_the_bucket_that_is_claimed_last() -> None:
    before, after = Owner("a"), Owner("b")
    told = merged([books(None, NEW, owner=after), books(OLD, owner=before)])
    assert told is not None
    assert (told.target, told.owner) == (None, before)
