"""Online stores by their URLs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlforge import Definitions
from mlforge.errors import DefinitionError, MissingExtra
from mlforge.online import PostgresStore, RedisStore
from mlforge.online.opening import online_store_at
from mlforge.store import LocalStore

REDIS = "redis://:hunter2@h:7000/3"
POSTGRES = "postgresql://me:hunter2@h:5433/shop"


def test_a_url_names_the_kind_of_store_and_its_settings_are_kept_where_the_kind_stays() -> None:
    redis = online_store_at(REDIS, settings={"ttl": 60, "prefix": None})
    postgres = online_store_at(POSTGRES, redis)
    assert repr(redis) == "RedisStore(redis at h:7000/3, ttl=60, prefix='mlforge')"
    assert repr(postgres) == "PostgresStore(postgres at h:5433/shop, ttl=None, prefix='mlforge')"
    assert isinstance(online_store_at("rediss://h", redis), RedisStore)
    for other in ("postgres://other/shop", POSTGRES):
        moved = online_store_at(other, PostgresStore(POSTGRES, ttl=5, prefix="team"))
        assert (moved.ttl, getattr(moved, "prefix", None)) == (5, "team")
    assert online_store_at(REDIS, redis, {"prefix": "p"}).ttl == 60
    packed = online_store_at(REDIS, settings={"layout": "packed"})
    assert (packed.layout, online_store_at(REDIS, packed).layout) == ("packed", "packed")
    with pytest.raises(DefinitionError, match="layout='tight'"):
        online_store_at(REDIS, settings={"layout": "tight"})


@pytest.mark.parametrize(
    "url", ["", "h:6379", "http://hunter2@h", "hunter2", "redis:/x", "mysql://h/d"]
)
def test_what_names_no_online_store_is_refused_without_quoting_it(url: str) -> None:
    for call in (
        lambda: online_store_at(url),
        lambda: Definitions(LocalStore("store"), [], online_store=url),
    ):
        with pytest.raises(DefinitionError, match="no URL of an online store") as caught:
            call()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:12/hunter2@h:1/0", "postgresql://me:12/hunter2@h/d"])
def test_a_password_with_a_slash_is_no_part_of_an_address(url: str) -> None:
    with pytest.raises(DefinitionError, match="percent-encoded") as caught:
        online_store_at(url)
    assert "hunter2" not in str(caught.value)
    assert online_store_at(url.replace("12/", "12%2F")) is not None


def test_a_setting_that_a_kind_does_not_take_is_named() -> None:
    with pytest.raises(
        DefinitionError, match="PostgresStore takes no 'cluster'; it takes ttl, prefix"
    ):
        online_store_at(POSTGRES, settings={"cluster": True})


def test_definitions_take_a_url_and_describe_it_without_its_password(tmp_path: Path) -> None:
    by_url, other = (
        Definitions(LocalStore(tmp_path), [], online_store=url)
        for url in (POSTGRES, POSTGRES.replace("hunter2", "hunter3"))
    )
    assert isinstance(by_url.online_store, PostgresStore)
    texts = [
        str(definitions.online_store and definitions.online_store.described())
        for definitions in (by_url, other)
    ]
    assert texts[0] != texts[1], "other connections are other definitions"
    assert "hunter" not in "".join(texts)


def test_a_table_of_dynamodb_is_named_by_a_url_and_needs_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "dynamodb://Shop-features?region=eu-west-1"
    store = online_store_at(url, settings={"ttl": 60})
    assert (
        repr(store)
        == "DynamoDBStore(the table Shop-features of DynamoDB in eu-west-1, ttl=60, prefix='mlforge')"
    )
    for module in ("access", "client"):
        monkeypatch.delitem(sys.modules, f"mlforge.online.dynamodb.{module}")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match="DynamoDBStore needs the extra 'dynamodb'"):
        online_store_at(url)
