"""Fences over books that lie as fields: what a push may do, decided without a server.

A backend reads the fields and writes the result in one transaction. Redis has the same rules as scripts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeAlias

from mlforge.core.values import to_iso
from mlforge.errors import BooksDamaged, OwnedElsewhere, StalePush
from mlforge.online.books import INCOMPLETE, Claim, OnlineBooks, Target
from mlforge.online.codec import (
    FORMAT,
    evidence_text,
    owner_text,
    target_text,
    to_fields,
    ttl_text,
)

Fields: TypeAlias = Mapping[str, str]
_FENCE = re.compile(r"(\d+) (-?\d+)")
_OPTIONAL = ("defaults", "formerly", "history")
"""Fields that only some books have."""


def begun(
    feature: str, fields: Fields | None, target: Target, claim: Claim | None, server: str
) -> dict[str, str]:
    """The fields of books once a push to the target has begun. server: where they lie, for errors.

    Raises StalePush where a newer push has begun, OwnedElsewhere where another store's rows are not taken,
    BooksDamaged where the fields hold no fence.
    """
    before = dict(fields or {})
    mine, owner = target.store, before.get("owner", "")
    taken = bool(owner and mine and owner != mine)
    if taken:
        if claim is None or owner != claim.takes_from:
            raise OwnedElsewhere(taken_by(feature, owner, server))
        if claim.afresh:
            before = {}
    elif "fence" in before:
        match = _FENCE.fullmatch(before["fence"])
        if match is None:
            raise BooksDamaged(
                f"the books of {feature} in {server} have the fence {before['fence'][:40]!r}, which is none; delete "
                "them, and the next push makes them anew"
            )
        if (int(match[1]), int(match[2])) > target.fence:
            raise StalePush(overtaken(feature, target, before["fence"]))
    after = before | {
        "format": FORMAT,
        "fence": _fence(target),
        "pending": _with_pending(before.get("pending", "[]"), target_text(target)),
    }
    if mine and owner != mine:
        after |= {"owner": mine, "owner_place": "" if claim is None else owner_text(claim.owner)}
    return after


def check_fence(feature: str, fields: Fields | None, target: Target | None, server: str) -> None:
    """Raise StalePush where the target's push is not the last that began; None checks nothing."""
    if target is None:
        return
    if not fields or "fence" not in fields:
        raise StalePush(
            f"{feature}: {server} knows of no push of {target}; it was emptied or restored, or the books expired: "
            "push again from the start"
        )
    if (fields["fence"], fields.get("owner", "")) != (_fence(target), target.store):
        raise StalePush(overtaken(feature, target, fields["fence"]))


def check_owned(feature: str, fields: Fields | None, owner: str | None, server: str) -> None:
    """Raise OwnedElsewhere where the books name another owner; None checks nothing."""
    recorded = (fields or {}).get("owner", "")
    if owner and recorded and recorded != owner:
        raise OwnedElsewhere(taken_by(feature, recorded, server))


def finished(fields: Fields, target: Target, books: OnlineBooks, ttl: int | None) -> dict[str, str]:
    """The fields of books once the push to the target is done."""
    kept = {name: text for name, text in fields.items() if name not in _OPTIONAL}
    return kept | to_fields(target, books, ttl)


def renewed(fields: Fields, at: int, ttl: int | None) -> dict[str, str]:
    """The fields of books whose rows were all given their full time to live again, at that instant in UTC microseconds."""
    return {**fields, "renewed_at": to_iso(at) or "", "ttl": ttl_text(ttl)}


def incomplete(fields: Fields) -> dict[str, str]:
    """The fields of books of which rows are missing: readers take no missing row for empty windows from then on."""
    return {**fields, "losses": evidence_text(INCOMPLETE)}


def taken_by(feature: str, owner: str, server: str) -> str:
    """The sentence about rows that another store has taken."""
    return (
        f"{feature}: its rows in {server} were taken by the store {owner}; use another prefix or name, or take them "
        f"with 'mlforge adopt {feature}'"
    )


def overtaken(feature: str, target: Target, fence: str) -> str:
    """The sentence about a push that a newer one has overtaken. fence: the recorded one."""
    generation, instant = map(int, fence.split()[:2])
    at = f" as of {to_iso(instant)}" if abs(instant) < 2**53 else ""
    return (
        f"{feature}: the push of {target} was overtaken by one of generation {generation}{at}; push the latest "
        "version instead"
    )


def parsed_fields(text: str | None) -> dict[str, str] | None:
    """The fields of books; fields that no books have, where the text is no object of texts: they are then refused."""
    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict) and all(isinstance(value, str) for value in fields.values()):
        return fields
    return {"fence": "damaged"}


def _fence(target: Target) -> str:
    return "{} {}".format(*target.fence)


def _with_pending(pending: str, target: str) -> str:
    """The list of pending targets with a further one, unless it is there."""
    try:
        targets = json.loads(pending)
    except ValueError:
        targets = []
    new = json.loads(target)
    if new not in targets:
        targets.append(new)
    return json.dumps(targets, separators=(",", ":"), ensure_ascii=False)
