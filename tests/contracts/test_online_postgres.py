"""The online store on PostgreSQL: the contract, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from mlforge import get_online_features
from mlforge.core import clock
from mlforge.errors import (
    DefinitionError,
    NotServed,
    OnlineError,
    OnlineRefused,
    OnlineUnavailable,
    StalePush,
)
from mlforge.online import OnlineStore, PostgresStore
from mlforge.testing.online_contract import OnlineStoreContract
from mlforge.testing.online_values import NEW, OLD, books, entities, frame, push
from tests.support.postgres import postgres
from tests.support.servers import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The URL of a database without tables of ours."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("drop schema public cascade")
        admin.execute("create schema public")
        admin.execute("grant usage on schema public to public")
    return server


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(url)
    yield store
    store.close()


@pytest.fixture
def mortal(url: str) -> Iterator[PostgresStore]:
    """A store whose rows live for 1000 seconds."""
    store = PostgresStore(url, ttl=1000)
    yield store
    store.close()


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as admin:
        yield admin


class TestPostgresStore(OnlineStoreContract):
    @pytest.fixture
    def store(self, url: str) -> Iterator[OnlineStore]:
        store = PostgresStore(url)
        yield store
        store.close()


class TestPostgresStoreWithTtl(OnlineStoreContract):
    @pytest.fixture
    def store(self, url: str) -> Iterator[OnlineStore]:
        store = PostgresStore(url, ttl=7 * 86_400, prefix="team_ml")
        yield store
        store.close()


def test_reading_and_planning_make_no_tables(
    store: PostgresStore, admin: psycopg.Connection
) -> None:
    assert store.books("spend") is None
    assert store.read("spend", {"user_id": 1}) is None
    assert store.features() == []
    assert store.count_other_rows("spend", ()) == 0
    assert store.rows_by_feature(["spend"]) == {"spend": 0}
    assert admin.execute(
        "select count(*) from pg_tables where schemaname = 'public'"
    ).fetchone() == (0,)


def test_rows_can_be_read_by_sql(store: PostgresStore, admin: psycopg.Connection) -> None:
    push(store, OLD, 1)
    rows = admin.execute("select feature, length(digest), json from mlforge_rows").fetchall()
    assert rows == [("spend", 32, '{"amount__sum__7d":1.5,"n":1}')]


def test_renewal_writes_no_rows_and_a_push_none_that_are_the_same(
    store: PostgresStore, admin: psycopg.Connection
) -> None:
    def written() -> list[tuple[object, ...]]:
        return admin.execute(
            "select digest, xmin::text, ctid::text from mlforge_rows order by 1"
        ).fetchall()

    push(store, OLD, *range(100))
    before = written()
    assert store.renew("spend", OLD) == 100
    store.begin("spend", NEW)
    assert store.put("spend", NEW, frame(*range(100)), ["user_id"]) == 100
    assert written() == before
    store.put("spend", NEW, frame(5, amount=2.0), ["user_id"])
    assert len(set(written()) - set(before)) == 1


def test_books_live_half_a_ttl_and_rows_a_whole_one(
    mortal: PostgresStore, admin: psycopg.Connection
) -> None:
    push(mortal, OLD, 1)
    [lives] = admin.execute(
        "select extract(epoch from books_until - now()), extract(epoch from rows_until - now()) from mlforge_features"
    ).fetchall()
    assert 490 < lives[0] <= 500
    assert 990 < lives[1] <= 1000
    admin.execute("update mlforge_features set books_until = now() - interval '1 second'")
    assert mortal.books("spend") is None
    assert mortal.exists("spend", {"user_id": 1})
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 1}], mortal)
    with pytest.raises(StalePush, match="push again from the start"):
        mortal.renew("spend", OLD)
    admin.execute("update mlforge_features set rows_until = now() - interval '1 second'")
    assert not mortal.exists("spend", {"user_id": 1})
    assert mortal.list_digests("spend") == set()
    mortal.write("spend", {"user_id": 2}, {"n": 1})
    assert mortal.read_batch("spend", entities(1, 2)) == [None, {"n": 1}], "the dead stay dead"


def test_a_shorter_life_of_rows_is_one_of_the_books_and_single_rows_change_neither(
    mortal: PostgresStore, url: str, admin: psycopg.Connection
) -> None:
    def lives() -> tuple[float, float]:
        [seconds] = admin.execute(
            "select extract(epoch from books_until - now()), extract(epoch from rows_until - now()) from mlforge_features"
        ).fetchall()
        return seconds

    brief = PostgresStore(url, ttl=40)
    push(mortal, OLD, 1)
    brief.write("spend", {"user_id": 2}, {"amount__sum__7d": 1.0, "n": 1})
    books_s, rows_s = lives()
    assert (books_s > 400, rows_s > 900) == (True, True)
    brief.begin("spend", NEW)
    brief.put("spend", NEW, frame(1), ["user_id"])  # and dies
    books_s, rows_s = lives()
    assert (books_s <= 20, rows_s <= 40) == (True, True)
    brief.close()


def test_a_later_push_does_not_prolong_the_books_beyond_the_oldest_row(
    mortal: PostgresStore, admin: psycopg.Connection
) -> None:
    start = clock.now()
    with clock.fixed(start):
        push(mortal, OLD, 1, 2)
    first = mortal.books("spend")
    assert first is not None
    with clock.fixed(start + 400_000_000):
        mortal.begin("spend", NEW)
        mortal.finish("spend", NEW, first)
        [(left,)] = admin.execute(
            "select extract(epoch from books_until - now()) from mlforge_features"
        ).fetchall()
        assert 90 < left <= 100


def test_threads_that_come_first_together_make_the_tables_once(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(6)]

    def work(store: PostgresStore, number: int) -> None:
        push(store, OLD, number, feature=f"f{number}")
        store.write("shared", {"user_id": number}, {"n": number})

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(work, stores, range(len(stores))))
    assert stores[0].features() == [f"f{number}" for number in range(6)]
    assert stores[0].rows_by_feature(["shared"]) == {"shared": 6}
    for store in stores:
        store.close()


def test_sessions_that_the_server_ends_are_opened_anew(
    store: PostgresStore, admin: psycopg.Connection
) -> None:
    push(store, OLD, 1)
    for call in (
        lambda: store.read("spend", {"user_id": 1}),
        lambda: store.put("spend", OLD, frame(2), ["user_id"]),
        lambda: store.renew("spend", OLD),
    ):
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'mlforge' and pid <> pg_backend_pid()"
        )
        assert call()


def test_a_server_that_is_down_is_named_without_the_password() -> None:
    port = free_port()
    store = PostgresStore(f"postgresql://me:hunter2@127.0.0.1:{port}/shop")
    for call in (
        store.ping,
        lambda: store.read("spend", {"user_id": 1}),
        lambda: store.begin("spend", OLD),
    ):
        with pytest.raises(
            OnlineUnavailable, match=f"postgres at 127.0.0.1:{port}/shop does not answer"
        ) as caught:
            call()
        assert "hunter2" not in str(caught.value)
    assert (
        repr(store)
        == f"PostgresStore(postgres at 127.0.0.1:{port}/shop, ttl=None, prefix='mlforge')"
    )


def test_refusals_are_told_from_a_server_that_is_away(url: str, admin: psycopg.Connection) -> None:
    with pytest.raises(OnlineRefused, match="refused the user, password or database"):
        PostgresStore(url.replace("/postgres", "/nowhere")).ping()
    admin.execute("drop role if exists reader")
    admin.execute("create role reader login")
    writer = PostgresStore(url)
    push(writer, OLD, 1)
    writer.close()
    reader = PostgresStore(url.replace("tester@", "reader@"))
    with pytest.raises(OnlineRefused, match="permission denied"):
        reader.read("spend", {"user_id": 1})
    admin.execute("grant select on mlforge_rows, mlforge_features to reader")
    assert reader.read("spend", {"user_id": 1}) == {"amount__sum__7d": 1.5, "n": 1}
    with pytest.raises(OnlineRefused, match="permission denied"):
        reader.begin("spend", NEW)
    reader.close()
    admin.execute("drop owned by reader")


@pytest.mark.parametrize("fields", ["", "[]", "1", '{"format":1}', "[" * 100_000, '{"format":"7"}'])
def test_damaged_books_are_an_error_that_names_them(
    store: PostgresStore, admin: psycopg.Connection, fields: str
) -> None:
    push(store, OLD, 1)
    admin.execute("update mlforge_features set fields = %s", (fields,))
    with pytest.raises(OnlineError, match="spend in mlforge_features of postgres at"):
        store.read("spend", {"user_id": 1})


def test_a_damaged_row_is_an_error_that_names_it(
    store: PostgresStore, admin: psycopg.Connection
) -> None:
    push(store, OLD, 1)
    admin.execute("update mlforge_rows set json = '{'")
    with pytest.raises(
        OnlineError, match=r"spend: the row of {'user_id': 1} at digest .* is damaged"
    ):
        store.read("spend", {"user_id": 1})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2 x",
        "postgresql://:hunter2@[x",
        5,
        "postgresql://h/?colour=hunter2",
        "postgresql://me:12@hunter2@h/db",
        "postgresql://me:12/hunter2@h/db",
    ],
)
def test_what_is_no_address_is_refused_without_quoting_it(url: object) -> None:
    with pytest.raises(DefinitionError, match="no address of PostgreSQL") as caught:
        PostgresStore(url)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "a-b", "1a", "ä", "x" * 41, 5, 'a"b'])
def test_a_prefix_that_names_no_table_is_refused(prefix: object) -> None:
    with pytest.raises(DefinitionError, match="PostgresStore: prefix="):
        PostgresStore("postgresql://localhost/shop", prefix=prefix)  # type: ignore[arg-type]


def test_a_push_that_a_failover_may_have_cut_short_is_not_finished(store: PostgresStore) -> None:
    evidence = store.evidence()
    assert evidence is not None
    assert evidence.server.endswith("-00000001")
    store.begin("spend", OLD)
    store.put("spend", OLD, frame(1), ["user_id"])
    before = evidence.server.replace("-00000001", "-00000000")
    with pytest.raises(
        OnlineUnavailable, match=r"spend: postgres at .* was restored or failed over"
    ):
        store.finish("spend", OLD, books(1), before)
    unfinished = store.books("spend")
    assert unfinished is not None
    assert unfinished.target is None
    store.finish("spend", OLD, books(1), evidence.server)
    pushed = store.books("spend")
    assert pushed is not None
    assert pushed.target == OLD


def test_more_rows_than_a_statement_deletes_are_cleared_whole(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlforge.online.postgres.store._CLEARED_AT_ONCE", 7)
    push(store, OLD, *range(20))
    assert store.drop("spend") == 20
    assert store.list_digests("spend") == set()


def test_books_of_several_features_come_in_one_statement_and_damaged_ones_are_left_out(
    store: PostgresStore, admin: psycopg.Connection
) -> None:
    for name in ("a", "b", "c"):
        push(store, OLD, 1, feature=name)
    assert set(store.books_of(["a", "b", "none"])) == {"a", "b", "none"}
    admin.execute("update mlforge_features set fields = '[]' where feature = 'b'")
    told = store.books_of(["a", "b", "c", "none"])
    assert {name: books is not None for name, books in told.items()} == {
        "a": True,
        "c": True,
        "none": False,
    }
