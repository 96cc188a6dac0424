"""A feature's part of an answer, cut out of its stored rows: their JSON is checked by a pattern, and not decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mlforge.online.decoding import Decode, decoder
from mlforge.online.row_pattern import RowPattern, row_pattern
from mlforge.retrieval.feature_part import FeaturePart
from mlforge.serve.values.answers import encoded
from mlforge.serve.values.seen_rows import SeenRows

_NULL = b"null"
Pieces = tuple[bytes, ...]
"""The JSON of a row's columns, in the order of the pattern's groups."""


class Unfit(Exception):
    """A row that is not passed on, for whatever reason: the library reads it."""


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """A column that something is computed of: its name in answers, its group, its decoder, and what takes the place of null."""

    label: str
    group: int
    decode: Decode
    default: Any

    def values(self, rows: Sequence[Pieces]) -> list[Any]:
        """The column's values. Raises Unfit."""
        pieces = b",".join([row[self.group] for row in rows])
        try:
            values = self.decode(json.loads(f"[{pieces.decode()}]"))
        except (ValueError, TypeError, ArithmeticError):
            raise Unfit from None
        return [self.default if value is None else value for value in values]


@dataclass(frozen=True, slots=True)
class SplicedRows:
    """How a feature's rows in an answer are made of its stored ones.

    seen: rows that need no second look. is_whole: whether they are these. template: a row of the answer, with places for these groups of the pattern. defaults: what takes the
    place of null in each of them, None for nothing; empty where none has any. no_row: the pieces of an entity without a row; None where they depend
    on the entity. reads: the columns that something is computed of.
    """

    pattern: RowPattern
    seen: SeenRows
    is_whole: bool
    template: bytes
    groups: tuple[int, ...]
    defaults: tuple[bytes | None, ...]
    no_row: Pieces | None
    reads: tuple[ReadColumn, ...]

    @classmethod
    def of(
        cls,
        part: FeaturePart,
        defaults: Mapping[str, Any],
        read: Collection[str],
        seen: SeenRows,
    ) -> Self | None:
        """The part of such answers; None where rows must be read: packed ones, and those that lack columns which are computed at a read.

        defaults: by label. read: the labels of the columns that something is computed of.
        """
        books, chosen = part.fetched.books, list(part.columns)
        stored = {column.name: group for group, column in enumerate(books.columns)}
        pattern = row_pattern(books.columns) if books.layout == "json" else None
        if pattern is None or not stored.keys() >= set(chosen):
            return None
        dtypes = {column.name: column.dtype for column in books.columns}
        own = [defaults.get(label) for label in part.labels]
        has_defaults = any(value is not None for value in own)
        fields = (encoded(column).replace(b"%", b"%%") + b":%b" for column in chosen)
        empty, derived = books.empty, {column.name for column in books.derived}
        is_known = derived.isdisjoint(chosen) and empty.keys() >= set(chosen)
        return cls(
            pattern,
            seen,
            chosen == list(stored) and not has_defaults,
            b"{%b}" % b",".join(fields),
            tuple(stored[column] for column in chosen),
            tuple(None if v is None else encoded(v) for v in own) if has_defaults else (),
            tuple(encoded(empty.get(column)) for column in stored) if is_known else None,
            tuple(
                ReadColumn(label, stored[column], decoder(dtypes[column]), default)
                for label, column, default in zip(part.labels, chosen, own, strict=True)
                if label in read
            ),
        )

    def rows(self, stored: Sequence[str | bytes | None]) -> tuple[bytes, dict[str, list[Any]]]:
        """The rows of the answer, joined, and by label the values of the columns that something is computed of. Raises Unfit."""
        texts, match = _encoded(stored), self.pattern.row.fullmatch
        if self.is_whole and not self.reads:
            return b",".join(self._whole(texts)), {}
        pieces = [self._no_row() if text is None else _groups(match(text)) for text in texts]
        rows = b",".join(map(self._row, pieces))
        return rows, {read.label: read.values(pieces) for read in self.reads}

    def _whole(self, texts: Sequence[bytes | None]) -> Sequence[bytes]:
        """The rows as they are stored, and one of empty windows for each entity without a row."""
        stored = [text for text in texts if text is not None]
        if not self.seen.fit(self.pattern, stored):
            raise Unfit
        if len(stored) == len(texts):
            return stored
        no_row = self._row(self._no_row())
        return [no_row if text is None else text for text in texts]

    def _no_row(self) -> Pieces:
        if self.no_row is None:
            raise Unfit
        return self.no_row

    def _row(self, pieces: Pieces) -> bytes:
        values = tuple([pieces[group] for group in self.groups])
        if self.defaults and _NULL in values:
            values = tuple(
                default if value == _NULL and default is not None else value
                for value, default in zip(values, self.defaults, strict=True)
            )
        return self.template % values


def _groups(match: re.Match[bytes] | None) -> Pieces:
    if match is None:
        raise Unfit
    return match.groups()


def _encoded(stored: Sequence[Any]) -> Sequence[Any]:
    """Rows as bytes; what was not UTF-8 is none again."""
    if str not in set(map(type, stored)):
        return stored
    return [None if row is None else row.encode("utf-8", "surrogatepass") for row in stored]
