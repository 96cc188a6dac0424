"""URLs of one server, and of a cluster: several hosts, and `cluster=true` in the query."""

from __future__ import annotations

import re
from typing import Any

from mlforge.errors import DefinitionError

_CLUSTER = "cluster="


def told_cluster(url: Any) -> tuple[Any, bool]:
    """A URL without `cluster=` in its query, and whether it says that it is a cluster's; what is no text stays as it is."""
    if not isinstance(url, str):
        return url, False
    address, question, query = url.partition("?")
    options = query.split("&")
    said = [option.removeprefix(_CLUSTER) for option in options if option.startswith(_CLUSTER)]
    if not said:
        return url, False
    if said not in (["true"], ["false"]):
        raise DefinitionError(
            "RedisStore.from_url: write ?cluster=true in a cluster's URL, and nothing of it in another"
        )
    others = "&".join(option for option in options if not option.startswith(_CLUSTER))
    return address + (question + others if others else ""), said == ["true"]


def single_urls(url: str) -> list[str]:
    """The URL of each server that a URL names, as in `redis://host1,host2:6380`."""
    scheme, separator, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    after = rest[len(authority) :]
    return [f"{scheme}{separator}{user}{at}{host}{after}" for host in hosts.split(",")]
