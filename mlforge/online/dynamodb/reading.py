"""Reads of books and rows, those of an instant by one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from mlforge.core.values import check_name
from mlforge.errors import NotServed
from mlforge.online.dynamodb.access import TRIES, Access
from mlforge.online.dynamodb.client import InvalidRequest
from mlforge.online.dynamodb.items import IN_TRANSACTION, Item, Items, Stored, some, texts_by_digest
from mlforge.online.requests import RowRequest


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a request beside its books, and what the table has of them: `number` is the request's."""

    number: int
    feature: str
    digests: Sequence[bytes]
    stored: Stored = field(default_factory=Stored)
    texts: Mapping[bytes, str] = field(default_factory=dict)

    def keys(self, items: Items) -> list[Item]:
        """The keys of the books and of the rows."""
        rows = [items.row_key(self.feature, digest) for digest in self.digests]
        return [items.books_key(self.feature), *rows]


def fetched(
    access: Access, requests: Sequence[RowRequest]
) -> Iterator[tuple[Stored, dict[bytes, str]]]:
    """The books' item and the texts of the rows of each request, by digest.

    Of one instant for up to 100 items of 4 MB; where more take several transactions, each feature's see the same books. NotServed where these
    change time and again.
    """
    parts = list(_parts(requests))
    for _ in range(TRIES):
        seen = [part for few in _together(parts) for part in _of_an_instant(access, few)]
        if all(a.stored.mark == b.stored.mark for a, b in pairwise(seen) if a.number == b.number):
            break
    else:
        names = ", ".join(request.feature for request in requests)
        raise NotServed(f"{names}: the books change at this moment, time and again; ask again")
    for number in range(len(requests)):
        own = [part for part in seen if part.number == number]
        yield own[0].stored, {digest: text for part in own for digest, text in part.texts.items()}


def _of_an_instant(access: Access, parts: Sequence[Part]) -> Iterator[Part]:
    """The parts as a transaction reads them; in halves where they hold more than the 4 MB that it may answer with."""
    keys = [key for part in parts for key in part.keys(access.items)]
    gets = [access.items.get(key) for key in keys]
    try:
        answer = access.read("transact_get_items", TransactItems=gets)
    except InvalidRequest:
        halves = list(_halves(parts))
        if not halves:
            raise
        for half in halves:
            yield from _of_an_instant(access, half)
        return
    responses = iter(answer.get("Responses") or [{}] * len(keys))
    for part in parts:
        books = Stored.of(next(responses).get("Item"))
        rows = [next(responses).get("Item") for _ in part.digests]
        yield replace(part, stored=books, texts=texts_by_digest([row for row in rows if row]))


def _halves(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts in two; nothing where there is but one, of one row."""
    middle = len(parts) // 2
    if middle:
        yield [*parts[:middle]]
        yield [*parts[middle:]]
        return
    [part] = parts
    middle = len(part.digests) // 2
    if middle:
        yield [replace(part, digests=part.digests[:middle])]
        yield [replace(part, digests=part.digests[middle:])]


def _parts(requests: Sequence[RowRequest]) -> Iterator[Part]:
    """The rows of each request in parts that a transaction takes beside the books."""
    for number, request in enumerate(requests):
        feature = check_name(request.feature)
        digests = dict.fromkeys(map(bytes.fromhex, request.hashes))
        for part in some(digests, IN_TRANSACTION - 1) if digests else [[]]:
            yield Part(number, feature, part)


def _together(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts, as many at a time as a transaction takes, which may have each item once."""
    few: list[Part] = []
    for part in parts:
        names = {other.feature for other in few}
        size = sum(1 + len(other.digests) for other in (*few, part))
        if few and (part.feature in names or size > IN_TRANSACTION):
            yield few
            few = []
        few.append(part)
    if few:
        yield few
