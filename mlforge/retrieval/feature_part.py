"""A feature's part of an online answer: its rows, the chosen columns, and what all parts have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlforge.core.schema import Column, Schema
from mlforge.online import Target
from mlforge.online.finishing import answer_dtypes, finished
from mlforge.retrieval.locked import served_meaning
from mlforge.retrieval.online_rows import FetchedRows
from mlforge.retrieval.references import Reference
from mlforge.retrieval.spine import Entities
from mlforge.services.completion import Output
from mlforge.services.locking import UsedColumn


@dataclass(frozen=True, slots=True)
class FeaturePart:
    """A feature's part of an answer: the columns that are chosen, and their names there, the labels."""

    reference: Reference
    fetched: FetchedRows
    columns: Sequence[str]
    labels: Sequence[str]

    @property
    def name(self) -> str:
        """The name that precedes the columns' own in the answer: the prefix, else the feature's."""
        return self.reference.prefix or self.reference.name

    @property
    def served(self) -> Target:
        """The version whose values these are, and their `as_of`."""
        assert self.fetched.books.target is not None
        return self.fetched.books.target

    def rows(self, t: int) -> Iterable[Mapping[str, Any]]:
        """All of the feature's values of each entity as of `t`."""
        fetched = self.fetched
        return finished(self.reference.name, fetched.books, fetched.rows, fetched.entities, t)

    @property
    def outputs(self) -> list[Output]:
        """The chosen columns with their dtypes."""
        dtype_of = answer_dtypes(self.reference.name, self.fetched.books)
        defaults = self.fetched.books.defaults
        return [
            Output.of(label, column, dtype_of[column], defaults)
            for label, column in zip(self.labels, self.columns, strict=True)
        ]

    @property
    def used(self) -> list[UsedColumn]:
        """The chosen columns with what they mean, as the books say."""
        reference, books = self.reference, self.fetched.books
        meaning = served_meaning(reference.name, books)
        return [
            UsedColumn(output, reference.name, meaning, books.keys, reference.renamed)
            for output in self.outputs
        ]


def outputs_of(parts: Sequence[FeaturePart]) -> tuple[Output, ...]:
    """The features' columns in the answer, with their dtypes."""
    return tuple(output for part in parts for output in part.outputs)


def keys_of(parts: Sequence[FeaturePart]) -> Schema:
    """The keys by their names in entities, each with the dtype that the first feature has for it."""
    keys: dict[str, Column] = {}
    for part in parts:
        schema = part.fetched.books.keys
        names = part.reference.key_names(key.name for key in schema)
        for key in schema:
            keys.setdefault(names[key.name], Column(names[key.name], key.dtype))
    return tuple(keys.values())


def key_rows_of(parts: Sequence[FeaturePart], keys: Collection[str]) -> list[dict[str, Any]]:
    """The keys of these names of each entity, as the first feature's dtypes have them."""
    places: dict[str, tuple[Entities, str]] = {}
    for part in parts if keys else ():
        names = part.reference.key_names(key.name for key in part.fetched.books.keys)
        for key, name in names.items():
            if name in keys:
                places.setdefault(name, (part.fetched.entities, key))
    return [
        {name: entities[position][key] for name, (entities, key) in places.items()}
        for position in range(len(parts[0].fetched.entities))
    ]
