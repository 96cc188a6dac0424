"""Refusals of the scripts that hold fences: each becomes the error that names the feature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlforge.core.values import to_iso
from mlforge.errors import BooksDamaged, OnlineError, OnlineUnavailable, OwnedElsewhere, StalePush
from mlforge.online.books import Target
from mlforge.online.codec import LAYOUTS
from mlforge.online.redis import packed_scripts, scripts

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server


@contextmanager
def fenced(feature: str, target: Target | None, server: Server, books: str) -> Iterator[None]:
    """Turn a refusal that concerns the feature into the error that names it; books: their name on the server."""
    from mlforge.online.redis.server_errors import Refused

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
        if code == scripts.OTHER_LAYOUT:
            raise _other_layout(feature, target, LAYOUTS.get(recorded), books) from None
        if code == packed_scripts.DAMAGED:
            raise OnlineError(
                f"the directory of the rows beside {books} is damaged: its number of buckets is {recorded[:40]!r}. "
                f"Delete both, and the next push writes all rows of {feature} anew"
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


def _other_layout(
    feature: str, target: Target | None, layout: str | None, books: str
) -> StalePush | OnlineError:
    if layout is None:
        return OnlineError(
            f"{books} holds no books that this mlforge reads; use another prefix or db, or the mlforge that wrote it"
        )
    if target is None:
        return OnlineError(
            f"{books} tells of rows in the layout {layout!r}; give the store that layout to write some"
        )
    return StalePush(
        f"{feature}: the push of {target} was overtaken by one that writes rows in the layout {layout!r}; give all "
        "workers one layout"
    )


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
