"""Refusals of the scripts that hold fences: each becomes the error that names the feature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlforge.core.values import to_iso
from mlforge.errors import BooksDamaged, OnlineUnavailable, OwnedElsewhere, StalePush
from mlforge.online.books import Target
from mlforge.online.redis import scripts

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server


@contextmanager
def fenced(feature: str, target: Target | None, server: Server, books: str) -> Iterator[None]:
    """Turn a refusal that concerns the feature into the error that names it; books: their name on the server."""
    from mlforge.online.redis.client import Refused

    try:
        yield
    except Refused as refused:
        code, _, recorded = refused.reply.partition(" ")
        if code == scripts.MOVED:
            raise OnlineUnavailable(
                f"{feature}: {server} was restarted or failed over during the push of "
                f"{target}, and may lack rows of it: push again"
            ) from None
        if code == scripts.OWNED:
            raise OwnedElsewhere(
                f"{feature}: its rows in {server} were taken by the store {recorded}; use another "
                f"prefix or name, or take them with 'mlforge adopt {feature}'"
            ) from None
        if code in (scripts.DAMAGED, "WRONGTYPE"):
            content = f"its fence is {recorded[:40]!r}" if code == scripts.DAMAGED else "no hash"
            raise BooksDamaged(
                f"{books} holds no books of {feature} ({content}); delete it, and the "
                "next push makes it anew"
            ) from None
        if code != scripts.STALE or target is None:
            raise
        raise StalePush(_stale(feature, target, recorded, server)) from None


def _stale(feature: str, target: Target, recorded: str, server: Server) -> str:
    if not recorded:
        return (
            f"{feature}: {server} knows of no push of {target}; it was flushed or restarted, "
            "or the books expired: push again from the start"
        )
    generation, instant = map(int, recorded.split()[:2])
    at = f" as of {to_iso(instant)}" if abs(instant) < 2**53 else ""
    return (
        f"{feature}: the push of {target} was overtaken by one of generation {generation}{at}; "
        "push the latest version instead"
    )
