"""The connection to the server at REDIS_URL, which has the work queue, the leases and the event log."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry

from mlforge.errors import NoQueue, OnlineRefused, OnlineUnavailable
from mlforge.online.addresses import single_urls, told_cluster

_READ_ONLY = ("MISCONF", "NOREPLICAS", "OOM", "READONLY")
"""Answers of a server that can be read all the same: `mlforge status` shows what it holds, and warns."""

_IN_QUERY = re.compile(r"([?&](?:sentinel_)?password=)[^&#]*")


def connect(url: str) -> Redis:
    """A client of a server that has answered once; a server that refuses only writes is accepted.

    Raises OnlineUnavailable where no server answers, OnlineRefused where it refuses the connection, NoQueue where it is a cluster's
    or the URL names sentinels.
    """
    if url.partition("://")[0].endswith("+sentinel"):
        raise NoQueue(
            f"{hide_password(url)} names sentinels, and REDIS_URL is the queue's server itself: name that, or let `mlforge up` start "
            "one, and give this URL to the definitions as online_store="
        )
    if told_cluster(url)[1] or len(single_urls(url)) > 1:
        raise NoQueue(_no_cluster(url))
    try:
        client = _client(url)
        client.ping()
        if _is_in_cluster(client):
            raise NoQueue(_no_cluster(url))
    except (ResponseError, AuthenticationError) as error:
        if str(error).startswith(_READ_ONLY):
            return client
        raise OnlineRefused(
            f"the Redis at {hide_password(url)} answers, and refuses: {error}"
        ) from error
    # A TypeError is for an option in the query that redis-py does not know.
    except (RedisError, ValueError, TypeError) as error:
        raise OnlineUnavailable(
            f"no Redis answers at {hide_password(url)} ({error}); start one there, correct "
            "REDIS_URL, or unset it and run `mlforge up`"
        ) from error
    return client


def _client(url: str) -> Redis:
    """A client that has not connected yet; ValueError, which quotes nothing of it, for what is no URL."""
    try:
        client = Redis.from_url(url, socket_connect_timeout=5, retry=patience())
        parts = urlsplit(url)
        # A slash or a # in a password cuts the URL short: its start passes for a host and a port.
        if parts.scheme != "unix" and "@" in parts.path + parts.fragment:
            raise ValueError("a password that is not encoded")
    except (ValueError, TypeError):
        raise ValueError(
            "this is no Redis URL; write redis://[[user]:password@]host:port/db with the password percent-encoded"
        ) from None
    return client


def _is_in_cluster(client: Redis) -> bool:
    try:
        facts: Any = client.info("cluster")
    except ResponseError:  # a user without the right to ask
        return False
    return bool(facts.get("cluster_enabled"))


def _no_cluster(url: str) -> str:
    return (
        f"the Redis at {hide_password(url)} is a cluster, and the queue of the workers needs a server that is none: name one in "
        "REDIS_URL, or let `mlforge up` start one, and give the cluster to the definitions, as in "
        "Definitions(online_store='redis://host1,host2?cluster=true')"
    )


def patience() -> Retry:
    """How an unanswered call is repeated: for a second or so; then its caller decides."""
    return Retry(ExponentialBackoff(cap=0.5, base=0.02), 5)


def hide_password(url: str) -> str:
    """The URL as it may be shown, also one whose password is not encoded as it should be."""
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    if _IN_QUERY.search(login):  # what is before the @ may be all of the address, or a password
        return f"{scheme}{separator}***"
    user, colon, _ = login.partition(":")
    hidden = f"{user}:***" if colon else login
    shown = _IN_QUERY.sub(r"\1***", place)
    return f"{scheme}{separator}{hidden}{at}{shown}"
