"""The online store on DynamoDB: the contract, and what is its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import boto3
import polars as pl
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
from mlforge.online import DynamoDBStore, OnlineStore
from mlforge.online.dynamodb import client as dynamodb_client
from mlforge.online.opening import online_store_at
from mlforge.testing.online_contract import OnlineStoreContract
from mlforge.testing.online_values import NEW, OLD, books, entities, frame, push
from tests.support.dynamodb import DynamoDB, dynamodb
from tests.support.npm_servers import dynalite
from tests.support.projects import Project, rows
from tests.support.servers import free_port

pytestmark = pytest.mark.slow
_names = (f"features-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def service() -> Iterator[DynamoDB]:
    with dynamodb() as made:
        yield made


@pytest.fixture
def url(service: DynamoDB) -> Iterator[str]:
    """The address of a table that there is not yet."""
    service.asked.clear()
    yield f"dynamodb://{next(_names)}?region=us-east-1&endpoint={service.endpoint}"
    service.turns_down = lambda operation, body: None
    service.leaves_out = lambda: False


@pytest.fixture
def store(url: str) -> Iterator[DynamoDBStore]:
    store = DynamoDBStore.from_url(url)
    yield store
    store.close()


@pytest.fixture
def mortal(url: str) -> Iterator[DynamoDBStore]:
    """A store whose rows live for 1000 seconds."""
    store = DynamoDBStore.from_url(url, ttl=1000)
    yield store
    store.close()


class TestDynamoDBStore(OnlineStoreContract):
    streamed = 1_000  # moto takes most of a millisecond for a row

    @pytest.fixture
    def store(self, url: str) -> Iterator[OnlineStore]:
        store = DynamoDBStore.from_url(url, ttl=7 * 86_400, prefix="team.ml")
        yield store
        store.close()


def items(store: DynamoDBStore, service: DynamoDB) -> list[dict[str, Any]]:
    admin = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=service.endpoint)
    found: list[dict[str, Any]] = admin.scan(TableName=store._table.table)["Items"]
    return found


def test_reading_planning_and_deleting_a_row_make_no_table(
    store: DynamoDBStore, service: DynamoDB
) -> None:
    assert store.ping()
    assert store.books("spend") is None
    assert store.read("spend", {"user_id": 1}) is None
    assert store.features() == []
    assert store.count_other_rows("spend", ()) == 0
    assert store.rows_by_feature(["spend"]) == {"spend": 0}
    assert not store.delete("spend", {"user_id": 1})
    assert service.count("CreateTable") == 0


def test_rows_lie_where_any_client_finds_them(store: DynamoDBStore, service: DynamoDB) -> None:
    push(store, OLD, 1)
    [row] = [item for item in items(store, service) if "json" in item]
    assert row["pk"]["S"] == f"mlforge:spend:{row['sk']['B'][0] % 16}"
    assert json.loads(row["json"]["S"]) == {"amount__sum__7d": 1.5, "n": 1}


def test_a_push_of_few_rows_takes_few_requests(store: DynamoDBStore, service: DynamoDB) -> None:
    push(store, OLD, *range(300))
    service.asked.clear()
    push(store, NEW, *range(200))
    assert service.count("TransactWriteItems") == 1 + 3 + 1
    # Further: the books, twice, and the list of features.
    assert len(service.asked) == 8
    service.asked.clear()
    store.fetch([("spend", entities(*range(99)))])
    store.fetch([("spend", entities(1)), ("other", entities(1)), ("none", [])])
    assert [name for name, _ in service.asked] == ["TransactGetItems"] * 2


def test_renewal_writes_no_rows(mortal: DynamoDBStore, service: DynamoDB) -> None:
    push(mortal, OLD, *range(300))
    service.asked.clear()
    assert mortal.renew("spend", OLD) == 300
    writes = [body for name, body in service.asked if "Write" in name or name == "PutItem"]
    assert [len(body["TransactItems"]) for body in writes] == [1]


def test_books_live_half_a_ttl_and_rows_a_whole_one(
    mortal: DynamoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = clock.now() / 1e6
    monkeypatch.setattr("mlforge.online.dynamodb.items.time.time", lambda: now)
    now = started
    push(mortal, OLD, 1)
    now = started + 499
    assert mortal.books("spend") is not None
    now = started + 501
    assert mortal.books("spend") is None
    assert mortal.exists("spend", {"user_id": 1})
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 1}], mortal)
    with pytest.raises(StalePush, match="push again from the start"):
        mortal.renew("spend", OLD)
    now = started + 1001
    assert not mortal.exists("spend", {"user_id": 1})
    assert mortal.list_digests("spend") == set()
    mortal.write("spend", {"user_id": 2}, {"n": 1})
    assert mortal.read_batch("spend", entities(1, 2)) == [None, {"n": 1}], "the dead stay dead"


def test_rows_that_died_are_cleared_by_the_next_full_push(
    mortal: DynamoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = clock.now() / 1e6
    monkeypatch.setattr("mlforge.online.dynamodb.items.time.time", lambda: now)
    now = started
    push(mortal, OLD, 1, 2)
    now = started + 2000
    mortal.begin("spend", NEW)
    unwritten = mortal.list_digests("spend")
    mortal.put("spend", NEW, frame(2), ["user_id"], unwritten)
    assert mortal.remove_rows("spend", NEW, unwritten) == 1
    mortal.finish("spend", NEW, books(1))
    assert [row is not None for row in mortal.read_batch("spend", entities(1, 2))] == [False, True]


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "TransactionConflictException",
    ],
)
def test_a_service_that_throttles_is_asked_again(
    store: DynamoDBStore, service: DynamoDB, code: str
) -> None:
    random = Random(7)
    service.turns_down = lambda operation, body: code if random.random() < 0.2 else None
    push(store, OLD, *range(300))
    assert store.remove("spend", OLD, frame(*range(10)), ["user_id"]) == 10
    assert len(store.list_digests("spend")) == 290
    assert None not in store.read_batch("spend", entities(*range(10, 300)))
    assert store.drop("spend") == 290


def test_what_a_batch_leaves_out_is_written_with_the_next(
    store: DynamoDBStore, service: DynamoDB
) -> None:
    random = Random(7)
    service.leaves_out = lambda: random.random() < 0.6
    store.write_batch("spend", [{"user_id": n, "n": n} for n in range(200)], ["user_id"])
    assert store.rows_by_feature(["spend"]) == {"spend": 200}
    assert store.drop("spend") == 200
    assert store.rows_by_feature(["spend"]) == {"spend": 0}


@pytest.mark.parametrize("length", [60_000, 380_000])
def test_rows_that_are_more_than_a_transaction_holds_take_several(
    store: DynamoDBStore, service: DynamoDB, length: int
) -> None:
    users = range(99)
    long = pl.DataFrame({"user_id": users, "text": [f"{user}" * (length // 2) for user in users]})
    store.begin("spend", OLD)
    assert store.put("spend", OLD, long, ["user_id"]) == 99
    service.asked.clear()
    read = store.read_batch("spend", entities(*users))
    assert [row and row["text"] for row in read] == long["text"].to_list()
    sizes = [len(body["TransactItems"]) for name, body in service.asked if "Get" in name]
    assert max(sizes) == 100  # the first is tried whole
    assert len(sizes) < 50
    assert store.remove("spend", OLD, long, ["user_id"]) == 99


def test_a_row_that_no_item_holds_is_named(store: DynamoDBStore) -> None:
    store.begin("spend", OLD)
    long = pl.DataFrame({"user_id": [1], "text": ["ä" * 210_000]})
    with pytest.raises(OnlineRefused, match=r"a row of 420,\d+ bytes, pk 'mlforge:spend:.*400 KB"):
        store.put("spend", OLD, long, ["user_id"])


def test_a_service_that_goes_on_throttling_is_an_error_in_words(
    store: DynamoDBStore, service: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb_client, "PATIENCE_S", 0.3)
    push(store, OLD, 1)
    service.turns_down = lambda operation, body: "ProvisionedThroughputExceededException"
    calls: list[Callable[[], object]] = [
        lambda: store.read("spend", {"user_id": 1}),
        lambda: store.put("spend", OLD, frame(1), ["user_id"]),
        lambda: store.begin("spend", NEW),
    ]
    for call in calls:
        with pytest.raises(OnlineUnavailable, match="throttles"):
            call()


def test_pushers_by_turns_never_make_a_reader_see_a_wrong_value(store: DynamoDBStore) -> None:
    from mlforge.online import Target
    from tests.contracts.test_online_packed import full_push

    random = Random(3)
    users, generation = (1, 2, 3), 0
    pushes: list[Iterator[None]] = []
    amounts: dict[Target, float] = {}
    for _ in range(60):
        if len(pushes) < 2:
            generation += random.random() < 0.7
            target = Target("1.0.0", max(generation, 1), None)
            amounts[target] = float(target.generation)
            pushes.append(full_push(store, target, amounts[target], *users))
        at = random.randrange(len(pushes))
        try:
            next(pushes[at])
        except (StalePush, StopIteration):
            pushes.pop(at)
        [(told, found)] = store.fetch([("spend", entities(*users))])
        if told is None or told.target is None:
            continue
        right = {amounts[target] for target in (told.target, *told.pending)}
        assert {row and row["amount__sum__7d"] for row in found} <= right


def test_a_write_whose_answer_was_lost_is_known_again(
    store: DynamoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, lost = store._table.call, []

    def losing(operation: str, **arguments: Any) -> dict[str, Any]:
        answer = call(operation, **arguments)
        if operation == "transact_write_items" and not lost:
            lost.append(operation)
            return call(operation, **arguments)  # as a client does that had no answer
        return answer

    monkeypatch.setattr(store._table, "call", losing)
    assert store.begin("spend", OLD).pending == (OLD,)
    assert lost


def test_a_service_without_transactions_is_refused_in_words_and_nothing_is_written(
    service: DynamoDB, tmp_path: Path
) -> None:
    (tmp_path / "dynalite").mkdir()
    with dynalite(tmp_path / "dynalite") as endpoint:
        store = DynamoDBStore("features", "us-east-1", endpoint=endpoint)
        assert store.ping()
        calls: list[Callable[[], object]] = [
            lambda: store.begin("spend", OLD),
            lambda: store.read("spend", {"user_id": 1}),
        ]
        for call in calls:
            with pytest.raises(OnlineRefused, match="knows no transactions"):
                call()
        assert store.features() == []
        assert store.rows_by_feature(["spend"]) == {"spend": 0}


def test_refusals_and_a_service_that_is_away_are_told_apart(
    store: DynamoDBStore, service: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.turns_down = lambda operation, body: "AccessDeniedException"
    with pytest.raises(OnlineRefused, match="refused the credentials"):
        store.ping()
    away = DynamoDBStore("features", "us-east-1", endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OnlineUnavailable, match="the table features of DynamoDB in us-east-1"):
        away.ping()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nowhere")
    away.close()
    with pytest.raises(OnlineRefused, match="no credentials"):
        away.ping()


@pytest.mark.parametrize("text", ["", "[]", "1", '{"format":1}'])
def test_damaged_books_are_an_error_that_names_them(
    store: DynamoDBStore, service: DynamoDB, text: str
) -> None:
    push(store, OLD, 1)
    admin = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=service.endpoint)
    item = {**store._items.books_key("spend"), "fields": {"S": text}, "mark": {"S": "x"}}
    admin.put_item(TableName=store._table.table, Item=item)
    with pytest.raises(OnlineError, match="'mlforge:spend' in the table"):
        store.read("spend", {"user_id": 1})


@pytest.mark.parametrize(
    "url",
    [
        "",
        5,
        "dynamodb://",
        "dynamodb://a",
        "dynamodb://table/x",
        "dynamodb://key:hunter2@table",
        "dynamodb://table?colour=red",
        "http://table",
    ],
)
def test_what_is_no_address_of_a_table_is_refused(url: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        DynamoDBStore.from_url(url)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_a_url_opens_it_and_settings_stay(url: str) -> None:
    store = online_store_at(url, settings={"ttl": 60, "prefix": "p"})
    assert isinstance(store, DynamoDBStore)
    again = online_store_at(url, store)
    assert (again.ttl, again.described()) == (60, store.described())
    with pytest.raises(DefinitionError, match="DynamoDBStore takes no 'layout'"):
        online_store_at(url, settings={"layout": "packed"})


def test_definitions_push_to_a_table_that_a_url_names(url: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    project.drop("one", rows((1, 0, 10.0), (2, 1, 1.0)))
    defs = project.definitions(online_store=url)
    defs.build(online=True)
    project.drop("two", rows((1, 1, 5.0)))
    defs.build(online=True)
    assert defs.online_store is not None
    found = get_online_features(["spend"], entities(1, 2, 3), defs.online_store)
    assert [row["spend__amount__sum__7d"] for row in found] == [15.0, 1.0, None]
