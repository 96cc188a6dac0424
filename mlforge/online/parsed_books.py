"""Books that a backend keeps as the text of their fields, parsed once while the text stays the same."""

from __future__ import annotations

from collections.abc import Callable

from mlforge.online.books import OnlineBooks
from mlforge.online.codec import from_fields
from mlforge.online.fences import parsed_fields


class ParsedBooks:
    """The books of features as they were last read."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, OnlineBooks | None]] = {}

    def of(self, feature: str, text: str | None, name: Callable[[str], str]) -> OnlineBooks | None:
        """The books in a text, None for no text. name: of a feature's books, for errors; raises as `from_fields`."""
        if text is None:
            return None
        known = self._known.get(feature)
        if known is None or known[0] != text:
            books = from_fields(parsed_fields(text) or {}, name(feature))
            known = self._known[feature] = text, books
        return known[1]
