"""Requests for rows, the answers to them, and whose rows an answer may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from mlforge.core.arguments import listed, named, text
from mlforge.errors import OwnedElsewhere
from mlforge.frames.encoding import key_hash
from mlforge.frames.keys import wrong_names
from mlforge.online.books import OnlineBooks
from mlforge.online.decoding import Row

Entity: TypeAlias = Mapping[str, object]
Answer: TypeAlias = tuple[OnlineBooks | None, list[Row | None]]
Fetched: TypeAlias = tuple[OnlineBooks | None, Sequence[str | bytes | None]]
"""Books, and rows as they are stored."""
_ENTITY = '{"user_id": 1}'


@dataclass(frozen=True, slots=True)
class RowRequest:
    """The entities of a feature whose rows are asked for, by their hashes; by name only for errors."""

    feature: str
    hashes: Sequence[str] = ()
    entities: Sequence[Entity] = ()

    @classmethod
    def of(cls, feature: str, entities: Sequence[Entity]) -> Self:
        """The request for these entities; RetrievalError for an unfit key, DefinitionError for what is no list of entities."""
        told = listed(entities, f"{feature}: entities", f"write [{_ENTITY}]")
        return cls(feature, [hash_of(feature, entity) for entity in told], told)


def hash_of(feature: str, entity: object) -> str:
    """The hash of an entity of a feature; raises as `RowRequest.of`."""
    text(feature, "a feature's name", 'write "user_spend"')
    return key_hash(named(entity, f"{feature}: an entity", f"write {_ENTITY}"))


def check_names(request: RowRequest, books: OnlineBooks | None) -> None:
    """Raise RetrievalError if an entity has other keys than the books name, under which it has no row."""
    if books is None or books.target is None:
        return
    names = [key.name for key in books.keys]
    for entity in request.entities:
        if entity.keys() != set(names):
            raise wrong_names(entity, names)


def check_owner(feature: str, books: OnlineBooks, expected: str | None) -> None:
    """Raise OwnedElsewhere if the books name another owner than the expected one; None accepts any owner."""
    owner = books.owner
    if owner is None or expected is None or owner.store == expected:
        return
    meant = f"of the store {expected}" if expected else "of a store that was never written to"
    raise OwnedElsewhere(
        f"{feature}: its rows online are of another owner ({owner}), and this reader means those {meant}. Use the "
        f"prefix that those are under, or say RedisStore(owner={owner.store!r}) to read these"
    )
