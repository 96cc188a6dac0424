"""Pushes through the public API onto a real server: what travels, what goes, what a crash leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from mlforge import Definitions, get_online_features, get_training_data
from mlforge.core import clock, failpoints
from mlforge.core.manifest import Manifest
from mlforge.errors import IntegrityError, NotServed, OnlineError, OwnedElsewhere
from mlforge.frames.encoding import key_hash
from mlforge.metrics import Rolling
from mlforge.online import Evidence, OnlineBooks, RedisStore, Target, batches
from mlforge.online import affected as affecting
from mlforge.online import push as pushing
from mlforge.online.staleness import behind
from mlforge.store import Store
from mlforge.store.changes import EventDiff, diff_versions
from tests.support.projects import Project, at, rows

DAY = 86_400


class Dies(BaseException):
    """Stands for a process that ends there."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        yield connection


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param(1, id="entity by entity"),
        pytest.param(250_000, id="all at once", marks=pytest.mark.slow),
    ],
)
def events_held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entities are cut so that about so many events are in memory at a time."""
    monkeypatch.setattr(batches, "EVENTS_HELD", request.param)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "p")
    made.drop("one", rows((1, 0, 10.0), (2, 1, 1.0), (3, 6, 2.0)))
    return made


@pytest.fixture
def defs(project: Project, redis_url: str) -> Iterator[Definitions]:
    made = project.definitions(online_store=RedisStore.from_url(redis_url))
    yield made
    made.close()


def online(client: redis.Redis, user: int) -> dict[str, Any] | None:
    text = client.get(f"mlforge:spend:{key_hash({'user_id': user})}")
    return None if text is None else json.loads(text)


def week_sum(client: redis.Redis, user: int) -> float:
    row = online(client, user)
    assert row is not None
    return row["amount__sum__7d"]


def push_and_lose_the_store(defs: Definitions, project: Project) -> None:
    """Push, then delete the store, and put another file in the place of the one that it was made from."""
    defs.build(online=True)
    shutil.rmtree(project.store.path)
    project.drop("one", rows((1, 0, 20.0), (2, 1, 1.0), (3, 6, 2.0)))


def test_a_first_push_writes_every_entity_that_has_events_in_a_window(
    defs: Definitions, client: redis.Redis
) -> None:
    defs.build(online=True)
    assert online(client, 1) == {
        "amount__sum__2d": None,
        "amount__sum__7d": 10.0,
        "amount__count__2d": 0,
        "amount__count__7d": 1,
    }
    assert online(client, 3) == {
        "amount__sum__2d": 2.0,
        "amount__sum__7d": 2.0,
        "amount__count__2d": 1,
        "amount__count__7d": 1,
    }


def test_a_push_again_writes_nothing(defs: Definitions) -> None:
    defs.build(online=True)
    again = defs.push("spend")
    assert (again.written, again.deleted, again.full) == (0, 0, False)


def test_books_count_the_rows_that_came_stayed_and_went(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    counts, dropped = [], []
    for name, drop in (
        ("new", rows((4, 6.5, 1.0), (5, 6.5, 1.0))),
        ("more", rows((4, 6.6, 1.0), (3, 6.6, 1.0))),
        ("later", rows((6, 7.9, 1.0))),  # entity 1 has left, 2 has not
    ):
        dropped.append(project.drop(name, drop))
        defs.build(online=True)
        assert defs.online_store is not None
        books = defs.online_store.books("spend")
        assert books is not None
        assert books.rows == len(list(client.scan_iter("mlforge:spend:*")))
        counts.append(books.rows)
    dropped[0].unlink()
    defs.build(online=True)
    books = defs.online_store.books("spend")
    assert books is not None
    assert [*counts, books.rows] == [5, 5, 5, 4]


def test_only_what_may_have_changed_travels(defs: Definitions, project: Project) -> None:
    project.drop("many", rows(*((user, 6, 1.0) for user in range(100, 200))))
    defs.build(online=True)
    project.drop("two", rows((150, 6, 5.0)))
    defs.refresh("spend")
    pushed = defs.push("spend")
    assert (pushed.written, pushed.deleted, pushed.full) == (1, 0, False)


def test_entities_whose_windows_empty_out_vanish_without_a_row_of_theirs(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    project.drop("later", rows((3, 7.5, 1.0)))
    defs.refresh("spend")
    pushed = defs.push("spend")
    assert (online(client, 1), pushed.deleted) == (None, 1)
    assert get_online_features(["spend"], [{"user_id": 1}], defs.online_store) == [
        {
            "user_id": 1,
            "spend__amount__sum__2d": None,
            "spend__amount__sum__7d": None,
            "spend__amount__count__2d": 0,
            "spend__amount__count__7d": 0,
        }
    ]


def test_the_wall_clock_moves_values_without_any_file(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    feature = project.define(online_clock="wall")
    defs = project.definitions(feature, online_store=RedisStore.from_url(redis_url))
    with clock.fixed(at(6)):
        defs.build(online=True)
        assert online(client, 1) is not None
    with clock.fixed(at(8.5)):
        pushed = defs.push("spend")
    assert pushed.deleted == 2
    assert [online(client, user) is None for user in (1, 2, 3)] == [True, True, False]


def test_a_latest_row_that_was_ahead_is_served_from_its_very_instant_on(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    project.drop("two", rows((1, 3, 20.0)))
    store = RedisStore.from_url(redis_url)
    defs = project.definitions(project.define(metrics=[]), online_store=store)
    for day, amount in ((2, 10.0), (3, 20.0)):
        with clock.fixed(at(day)):
            defs.build(online=True)
        row = online(client, 1)
        assert row is not None
        assert row["amount"] == amount
    defs.close()


def push_that_dies(defs: Definitions, place: str) -> None:
    """Push, and end amid it."""

    def die() -> None:
        raise Dies

    failpoints.arm(place, die)
    try:
        with pytest.raises(Dies):
            defs.push("spend")
    finally:
        failpoints.disarm()


@pytest.mark.parametrize(
    ("ahead_s", "died", "mended"),
    [(30, False, False), (3_600, False, True), (3_600, True, True)],
)
def test_an_instant_that_has_not_come_bars_no_push_once_the_clock_is_right(
    project: Project, redis_url: str, client: redis.Redis, ahead_s: int, died: bool, mended: bool
) -> None:
    feature = project.define(online_clock="wall")
    defs = project.definitions(feature, online_store=RedisStore.from_url(redis_url))
    out = at(7) + timedelta(microseconds=1)  # the first event's last moment in its window is over
    with clock.fixed(out + timedelta(seconds=ahead_s - 1)):
        if died:
            defs.build()
            push_that_dies(defs, "push.put")
        else:
            defs.build(online=True)
    with clock.fixed(at(7)):
        pushed = defs.push("spend")
    assert pushed.full is mended
    assert (online(client, 1) is not None) is mended, "two clocks may differ a little"


@pytest.mark.parametrize(
    "place",
    ["push.begun", "push.put", "push.removed"],
    ids=["begun", "rows written", "rows removed"],
)
def test_a_push_that_died_is_covered_by_the_next(
    place: str, defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    project.drop("two", rows((1, 6.5, 100.0)))
    defs.refresh("spend")
    push_that_dies(defs, place)
    # The file goes again: what the dead push may have written must not stay.
    (project.events / "two.parquet").unlink()
    defs.refresh("spend")
    defs.push("spend")
    assert online(client, 1) == {
        "amount__sum__2d": None,
        "amount__sum__7d": 10.0,
        "amount__count__2d": 0,
        "amount__count__7d": 1,
    }
    books = defs.online_store and defs.online_store.books("spend")
    assert books is not None
    assert (books.pending, books.rows) == ((), 3)


def test_a_rollback_is_online_at_once_its_fence_notwithstanding(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    project.drop("two", rows((1, 6.5, 100.0)))
    defs.build(online=True)
    defs.rollback("spend")
    assert week_sum(client, 1) == 10.0
    assert project.store.books("spend").hold is not None
    assert defs.refresh("spend", attended=False).reason.startswith("held")
    assert defs.refresh("spend").version == "1.0.2"


def test_a_flushed_server_gets_everything_again(defs: Definitions, client: redis.Redis) -> None:
    defs.build(online=True)
    client.flushdb()
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 1}], defs.online_store)
    assert defs.push("spend").full
    assert online(client, 3) is not None


def test_a_store_made_anew_is_not_taken_for_an_old_one(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    for day in (6.1, 6.2, 6.3):
        project.drop(f"d{day}", rows((1, day, 1.0)))
        defs.build(online=True)
    shutil.rmtree(project.store.path)
    for path in project.events.glob("d*"):
        path.unlink()
    defs.build(online=True)
    assert week_sum(client, 1) == 10.0


def test_a_store_made_anew_with_other_events_replaces_every_row(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    """It comes to the same version, generation and instant."""
    push_and_lose_the_store(defs, project)
    [built] = defs.build().values()
    assert built.version == "1.0.0"
    assert defs.push("spend").full
    assert week_sum(client, 1) == 20.0


def test_a_store_made_anew_is_no_base_for_its_later_versions(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    push_and_lose_the_store(defs, project)
    defs.build()
    project.drop("two", rows((3, 6, 4.0)))
    defs.build(online=True)
    assert week_sum(client, 1) == 20.0


def test_a_store_made_anew_with_the_same_events_writes_nothing(
    defs: Definitions, project: Project
) -> None:
    defs.build(online=True)
    shutil.rmtree(project.store.path)
    defs.build()
    assert defs.push("spend").written == 0


def test_a_window_that_is_named_anew_replaces_every_row(
    defs: Definitions, project: Project, redis_url: str, client: redis.Redis
) -> None:
    defs.build(online=True)
    renamed = project.define(metrics=[Rolling(["48h", timedelta(days=7)], {"amount": ["sum"]})])
    store = RedisStore.from_url(redis_url)
    project.definitions(renamed, online_store=store).build(online=True)
    assert online(client, 1) == {"amount__sum__48h": None, "amount__sum__1w": 10.0}


BOOKS_OF_ANOTHER_SHAPE = {
    "a number that is none": lambda client, key: client.hset(key, "rows", "abc"),
    "columns that are none": lambda client, key: client.hset(key, "columns", "[1]"),
    "no UTF-8": lambda client, key: client.hset(key, "content", b"\xff"),
    "no format": lambda client, key: client.hdel(key, "format"),
    "a fence that is none": lambda client, key: client.hset(
        key, mapping={"fence": "soon", "rows": 9}
    ),
    "a list": lambda client, key: (client.delete(key), client.rpush(key, "x")),
    "a text": lambda client, key: client.set(key, "x"),
}


@pytest.mark.parametrize("shape", BOOKS_OF_ANOTHER_SHAPE)
def test_books_that_cannot_be_read_are_made_anew_with_all_rows(
    shape: str, defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    before = online(client, 1)
    client.delete(f"mlforge:spend:{key_hash({'user_id': 1})}")
    BOOKS_OF_ANOTHER_SHAPE[shape](client, "mlforge:spend")
    if shape != "a fence that is none":
        assert behind(defs.store, defs.online_store, "spend") == "its books online cannot be read"
    else:
        project.drop("two", rows((2, 6, 1.0)))
        defs.build()
    defs.push("spend")
    assert behind(defs.store, defs.online_store, "spend") is None
    assert online(client, 1) == before


def test_books_of_another_owner_are_not_made_anew(defs: Definitions, client: redis.Redis) -> None:
    defs.build(online=True)
    client.hset("mlforge:spend", mapping={"rows": "abc", "owner": "somebody"})
    with pytest.raises(OwnedElsewhere):
        defs.push("spend")
    assert client.hget("mlforge:spend", "rows") == "abc"


def test_a_list_of_features_of_another_type_is_told_and_written_over(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    client.set("mlforge:_features", "x")
    with pytest.raises(OnlineError, match=r"mlforge:_features in redis at .* no list of features"):
        defs.online_store.features()
    project.drop("two", rows((2, 6, 1.0)))
    defs.build(online=True)
    assert defs.online_store.features() == ["spend"]
    assert online(client, 2) is not None


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_push_of_damaged_events_says_what_mends_it(
    damage: Callable[[Path], object], defs: Definitions, project: Project
) -> None:
    defs.build()
    [partial] = project.store.read_metadata("spend").partials
    damage(Path(project.store.locate("spend", [partial.hash])[0].file))
    with pytest.raises(IntegrityError, match=r"spend: .*'mlforge verify'.*--full"):
        defs.push("spend")


def test_events_lost_of_the_version_before_do_not_stop_a_push(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    defs.build(online=True)
    project.drop("one", rows((1, 0, 20.0), (3, 6, 2.0)))
    [partial] = project.store.read_metadata("spend").partials
    defs.refresh("spend")
    Path(project.store.locate("spend", [partial.hash])[0].file).unlink()
    assert defs.push("spend").full
    assert (week_sum(client, 1), online(client, 2)) == (20.0, None)


def test_a_changed_definition_replaces_every_row(
    defs: Definitions, project: Project, redis_url: str, client: redis.Redis
) -> None:
    defs.build(online=True)
    changed = project.define(metrics=[Rolling("7d", {"amount": "max"})])
    store = RedisStore.from_url(redis_url)
    project.definitions(changed, online_store=store).build(online=True)
    assert online(client, 1) == {"amount__max__7d": 10.0}


def test_another_key_leaves_no_row_of_the_old_one(
    defs: Definitions, project: Project, redis_url: str, client: redis.Redis
) -> None:
    defs.build(online=True)

    def by_text(df: Any) -> Any:
        return df.select(df["user_id"].cast(str).alias("who"), "at", "amount")

    store = RedisStore.from_url(redis_url)
    changed = project.define(by_text, keys=["who"])
    project.definitions(changed, online_store=store).build(online=True)
    assert len(list(client.scan_iter("mlforge:spend:*"))) == 3
    assert get_online_features(["spend"], [{"who": "1"}], store)[0]["spend__amount__count__7d"] == 1


def test_rows_that_were_lost_are_written_again_when_lives_are_renewed(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    store = RedisStore.from_url(redis_url, ttl=DAY)
    defs = project.definitions(online_store=store)
    with clock.fixed(at(10)):
        defs.build(online=True)
    client.delete(f"mlforge:spend:{key_hash({'user_id': 3})}")
    with clock.fixed(at(10.1)):
        assert not defs.push("spend").full
    with clock.fixed(at(10.3)):
        assert defs.push("spend").full
    assert online(client, 3) is not None
    with clock.fixed(at(50)):  # by a clock that was ahead for a while
        assert not defs.push("spend").full
    with clock.fixed(at(10.4)):
        assert "time to live" in str(behind(project.store, store, "spend"))
        client.delete(f"mlforge:spend:{key_hash({'user_id': 3})}")
        assert defs.push("spend").full, "else rows would end before the books"
        assert behind(project.store, store, "spend") is None


def test_training_at_the_pushed_instant_is_what_is_served(
    defs: Definitions, project: Project
) -> None:
    defs.build(online=True)
    assert defs.online_store is not None
    books = defs.online_store.books("spend")
    assert books is not None
    assert isinstance(books.target, Target)
    spine = rows((1, 6, None), (2, 6, None), (3, 6, None), (4, 6, None)).select("user_id", "at")
    trained = get_training_data(spine, [("spend", books.target.version)], project.store)
    entities = [{"user_id": user} for user in (1, 2, 3, 4)]
    assert (
        get_online_features(["spend"], entities, defs.online_store) == trained.drop("at").to_dicts()
    )


# Rows that were lost, and lives that are another length by now


@pytest.mark.parametrize("online_clock", ["wall", "data"])
def test_a_lost_row_comes_back_though_the_instant_moves_with_every_push(
    project: Project, redis_url: str, client: redis.Redis, online_clock: str
) -> None:
    store = RedisStore.from_url(redis_url)
    feature = project.define(online_clock=online_clock)
    defs = project.definitions(feature, online_store=store)
    with clock.fixed(at(6.5)):
        defs.build(online=True)
        client.delete(f"mlforge:spend:{key_hash({'user_id': 1})}")
        books = store.books("spend")
        assert books is not None
        store.mark_incomplete("spend", books)
    project.drop("two", rows((3, 6.2, 5.0)))
    with clock.fixed(at(6.6)):
        defs.refresh("spend")
        assert defs.push("spend").full
        assert online(client, 1) is not None
        assert get_online_features(["spend"], [{"user_id": 99}], store), "no doubt is left"


@pytest.mark.parametrize("online_clock", ["wall", "data"])
def test_evidence_that_no_count_has_covered_is_not_acknowledged(
    project: Project,
    redis_url: str,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    online_clock: str,
) -> None:
    store = RedisStore.from_url(redis_url)
    seen = Evidence("this-run", 0)
    for name in ("evidence", "evidence_to_note"):
        monkeypatch.setattr(RedisStore, name, lambda self: seen)
    monkeypatch.setattr(pushing, "_run", lambda evidence: None)
    defs = project.definitions(project.define(online_clock=online_clock), online_store=store)
    start = at(6.5)
    with clock.fixed(start):
        defs.build(online=True)
    seen = Evidence("this-run", 3)
    client.delete(f"mlforge:spend:{key_hash({'user_id': 1})}")

    def push_at(seconds: float) -> tuple[bool, Evidence | None]:
        project.drop(f"s{seconds}", rows((3, 6 + seconds / 1e6, 1.0)))
        with clock.fixed(start + timedelta(seconds=seconds)):
            defs.refresh("spend")
            full = defs.push("spend").full
            books = store.books("spend")
        assert books is not None
        return full, books.evidence

    assert push_at(5) == (False, Evidence("this-run", 0)), "too early to count anew"
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 1}], store)
    assert push_at(11) == (True, seen)
    assert online(client, 1) is not None
    seen = Evidence("this-run", 4)
    assert push_at(30) == (False, seen), "all rows were there"


def test_rows_of_a_push_that_died_make_up_for_no_row_that_was_lost(
    project: Project, redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore.from_url(redis_url)
    seen = Evidence("this-run", 0)
    for name in ("evidence", "evidence_to_note"):
        monkeypatch.setattr(RedisStore, name, lambda self: seen)
    monkeypatch.setattr(pushing, "_run", lambda evidence: None)
    defs = project.definitions(online_store=store)
    with clock.fixed(at(6.5)):
        defs.build(online=True)
    books = store.books("spend")
    assert books is not None
    assert books.target is not None
    assert books.target.as_of is not None
    store.begin("spend", replace(books.target, as_of=books.target.as_of + 1))
    lost, written = (f"mlforge:spend:{key_hash({'user_id': user})}" for user in (1, 77))
    client.rename(lost, written)
    seen = Evidence("this-run", 1)
    project.drop("more", rows((3, 6.4, 1.0)))
    with clock.fixed(at(6.5) + timedelta(seconds=11)):
        defs.refresh("spend")
        assert defs.push("spend").full
    assert online(client, 1) is not None


@pytest.mark.parametrize(
    ("before", "after"), [(3, 86_400), (86_400, 60), (None, 60), (60, None)], ids=str
)
@pytest.mark.parametrize("moves", [False, True], ids=["at rest", "with new rows"])
def test_another_ttl_is_given_to_every_live_row(
    project: Project,
    redis_url: str,
    client: redis.Redis,
    before: int | None,
    after: int | None,
    moves: bool,
) -> None:
    project.definitions(online_store=RedisStore.from_url(redis_url, ttl=before)).build(online=True)
    if moves:
        project.drop("two", rows((2, 1.5, 5.0)))
    store = RedisStore.from_url(redis_url, ttl=after)
    defs = project.definitions(online_store=store)
    assert behind(project.store, store, "spend") is not None, "the reconciler hears of it"
    defs.build(online=True)
    lives = [client.ttl(f"mlforge:spend:{key_hash({'user_id': user})}") for user in (1, 2, 3)]
    books = store.books("spend")
    assert books is not None
    assert books.ttl == after
    if after is None:
        assert [*lives, client.ttl("mlforge:spend")] == [-1] * 4
    else:
        assert all(after - 10 < life <= after for life in lives)
        assert after / 2 - 10 < client.ttl("mlforge:spend") <= after / 2
    assert behind(project.store, store, "spend") is None


def test_books_that_tell_no_ttl_have_their_rows_renewed(
    defs: Definitions, project: Project, client: redis.Redis
) -> None:
    """A release before recorded none: it may have been any."""
    defs.build(online=True)
    client.hdel("mlforge:spend", "ttl")
    assert defs.online_store is not None
    assert behind(project.store, defs.online_store, "spend") is not None
    assert not defs.push("spend").full
    assert behind(project.store, defs.online_store, "spend") is None


def test_marking_books_incomplete_does_not_prolong_them(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    """Rows that were given seconds must not be outlived by books that promise a day."""
    project.definitions(online_store=RedisStore.from_url(redis_url, ttl=10)).build(online=True)
    later = RedisStore.from_url(redis_url, ttl=86_400)
    books = later.books("spend")
    assert books is not None
    later.mark_incomplete("spend", books)
    assert client.ttl("mlforge:spend") <= 5


def test_a_push_compares_no_events_that_the_refresh_before_it_has_compared(
    project: Project, defs: Definitions, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def counted(store: Store, before: Manifest, after: Manifest) -> EventDiff:
        compared.append(str(after.version))
        return diff_versions(store, before, after)

    monkeypatch.setattr(affecting, "diff_versions", counted)
    defs.build(online=True)
    project.drop("two", rows((1, 6, 2.0)))
    defs.build(online=True)
    assert (compared, week_sum(client, 1)) == ([], 12.0)
    project.drop("three", rows((2, 6, 5.0)))
    stale = defs.refresh("spend").diff
    assert stale is not None
    project.drop("four", rows((1, 6, 7.0)))
    defs.refresh("spend")
    defs.push("spend", diff=stale)  # of other versions than the push goes between
    assert compared == ["1.0.3"]
    assert [week_sum(client, user) for user in (1, 2, 3)] == [19.0, 6.0, 2.0]


def test_a_push_behind_a_refresh_asks_for_books_only_where_they_are_anothers(
    project: Project, defs: Definitions, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    books = RedisStore.books

    def counted(store: RedisStore, feature: str) -> OnlineBooks | None:
        asked.append(feature)
        return books(store, feature)

    defs.build(online=True)
    monkeypatch.setattr(RedisStore, "books", counted)
    project.drop("two", rows((1, 6, 2.0)))
    defs.push("spend", diff=defs.refresh("spend").diff)
    assert (asked, week_sum(client, 1)) == ([], 12.0)
    client.hset("mlforge:spend", "owner", "another")
    project.drop("three", rows((2, 6, 5.0)))
    defs.push("spend", diff=defs.refresh("spend").diff)  # of a store that was here before
    assert (asked, week_sum(client, 2)) == (["spend"], 6.0)
