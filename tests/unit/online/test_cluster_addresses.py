"""URLs of a cluster, and what a cluster does not take."""

from __future__ import annotations

import pytest

from mlforge.errors import DefinitionError
from mlforge.online import RedisStore
from mlforge.online.addresses import single_urls, told_cluster
from mlforge.online.opening import online_store_at


def test_a_url_names_some_nodes_and_says_that_they_are_a_cluster_s() -> None:
    for store in (
        RedisStore.from_url("redis://h1,h2:7000,h3", cluster=True),
        RedisStore.from_url("redis://h1,h2:7000,h3?cluster=true"),
        online_store_at("redis://me:hunter2@h1,h2:7000,h3/0?cluster=true&client_name=x"),
    ):
        assert (
            repr(store)
            == "RedisStore(redis cluster at h1:6379,h2:7000,h3:6379, ttl=None, prefix='mlforge')"
        )
    one = RedisStore.from_url("rediss://h1?cluster=true", ttl=5, prefix="p")
    assert repr(one) == "RedisStore(redis cluster at h1:6379, ttl=5, prefix='p')"
    assert "cluster" not in repr(RedisStore.from_url("redis://h1?cluster=false"))


def test_another_password_or_node_is_another_store() -> None:
    texts = {
        RedisStore.from_url(url).described()
        for url in (
            "redis://:hunter2@h1,h2?cluster=true",
            "redis://:hunter3@h1,h2?cluster=true",
            "redis://:hunter3@h1,h3?cluster=true",
            "rediss://:hunter3@h1,h3?cluster=true",
        )
    }
    assert len(texts) == 4
    assert "hunter" not in "".join(texts)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://h1,h2", "say cluster=True"),
        ("redis://h1/3?cluster=true", "database 0 alone"),
        ("unix:///run/redis.sock?cluster=true", "hosts and ports"),
        ("redis://h1?cluster=maybe", r"write \?cluster=true"),
        ("redis://h1?cluster=true&colour=red", "colour"),
        ("redis://:hunter2@h1:x?cluster=true", "no Redis URL"),
        ("redis://:12/hunter2@h:1/0?cluster=true", "percent-encoded"),
    ],
)
def test_what_is_no_cluster_s_address_is_refused_in_words(url: str, why: str) -> None:
    with pytest.raises(DefinitionError, match=why) as caught:
        RedisStore.from_url(url)
    assert "hunter2" not in str(caught.value)


def test_packed_rows_are_refused_on_a_cluster() -> None:
    with pytest.raises(DefinitionError, match="layout='packed' is not for a cluster"):
        RedisStore.from_url("redis://h1", cluster=True, layout="packed")


def test_urls_are_taken_apart_by_host_alone() -> None:
    assert single_urls("redis://a:b,c@h1:1,h2/0?x=1,2") == [
        "redis://a:b,c@h1:1/0?x=1,2",
        "redis://a:b,c@h2/0?x=1,2",
    ]
    assert told_cluster("redis://h?a=1&cluster=true&b=2") == ("redis://h?a=1&b=2", True)
    assert told_cluster(5) == (5, False)
