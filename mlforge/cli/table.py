"""Tables and lists of facts, as wide as the terminal; nothing in them is cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mlforge.cli.style import Styled, style
from mlforge.cli.wrap import columns_of, hard_wrap, segments, wrap
from mlforge.core.text import printable

_GAP = "  "
_NARROWEST = 12


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of one cell, with the look that it has where colours are welcome."""

    text: str
    look: str | None = None

    @classmethod
    def of(cls, value: object) -> Cell:
        """A value, or a `Styled` one, as one line of text; `-` for None."""
        if isinstance(value, Styled):
            return cls(printable(value.value), value.style)
        return cls(printable(value))

    def shown(self, text: str) -> str:
        """A part of the text in the cell's look."""
        return style(text, self.look) if self.look and text else text


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    right: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Rows under headers, as wide as the terminal at most (80 columns where there is none).

    right: headers of the columns that are set flush right: numbers. width: columns to fit into.
    Cells may be `Styled`.

    Numbers and names (the first column) keep their width. Headers and other cells go on below: first between
    words, as dates, lists and sentences can, then also within them, as paths can. Where that is not
    enough, each row is shown as a list of facts.
    """
    limit = width or shutil.get_terminal_size().columns
    head = [Cell(header, "bold") for header in headers]
    body = [[Cell.of(value) for value in row] for row in rows]
    columns = [[cell.text for cell in column] for column in zip(head, *body, strict=True)]
    firm = [index == 0 or header in right for index, header in enumerate(headers)]
    for within_words in (False, True):
        widths = _fit(columns, firm, limit, within_words)
        if widths is not None:
            flush = [header in right for header in headers]
            lines = (_lines(row, widths, flush, within_words) for row in [head, *body])
            return "\n".join(line for row in lines for line in row)
    return "\n".join(_record(headers, row, limit) for row in body)


def _fit(
    columns: Sequence[Sequence[str]], firm: Sequence[bool], limit: int, within_words: bool
) -> list[int] | None:
    """The width of each column, narrowed where cells may go on below; None if they do not fit."""
    widths = [max(map(columns_of, column)) for column in columns]
    least = [
        _least(column, is_firm, within_words) for column, is_firm in zip(columns, firm, strict=True)
    ]
    spare = limit - len(_GAP) * (len(columns) - 1)
    if sum(least) > spare:
        return None
    while sum(widths) > spare:
        widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
        widths[widest] -= 1
    return [
        max(columns_of(line) for text in column for line in wrap(text, width, within_words) or [""])
        for column, width in zip(columns, widths, strict=True)
    ]


def _least(column: Sequence[str], is_firm: bool, within_words: bool) -> int:
    """The least width of a column, a header and its cells: the cells of a firm one keep theirs."""
    header, *cells = column
    widths = (columns_of(text) if is_firm else _longest_piece(text, within_words) for text in cells)
    return max(_longest_piece(header, within_words), *widths, 0)


def _longest_piece(text: str, within_words: bool) -> int:
    return max((columns_of(piece.rstrip()) for piece in segments(text, within_words)), default=0)


def _lines(
    row: Sequence[Cell], widths: Sequence[int], flush: Sequence[bool], within_words: bool
) -> Iterator[str]:
    wrapped = [
        wrap(cell.text, width, within_words) or [""]
        for cell, width in zip(row, widths, strict=True)
    ]
    for at in range(max(map(len, wrapped))):
        texts = [lines[at] if at < len(lines) else "" for lines in wrapped]
        parts = [
            _set(cell.shown, text, width, right)
            for cell, text, width, right in zip(row, texts, widths, flush, strict=True)
        ]
        yield _GAP.join(parts).rstrip()


def _set(shown: Callable[[str], str], text: str, width: int, right: bool) -> str:
    blank = " " * (width - columns_of(text))
    return blank + shown(text) if right else shown(text) + blank


def _record(headers: Sequence[str], row: Sequence[Cell], limit: int) -> str:
    title = "\n".join(style(line, "bold") for line in hard_wrap(row[0].text, limit))
    facts = [
        (header, Styled(cell.text, cell.look))
        for header, cell in zip(headers[1:], row[1:], strict=True)
    ]
    return "\n".join([title, pairs(facts, indent=2, width=limit)]) if facts else title


def pairs(rows: Sequence[tuple[str, object]], indent: int = 0, width: int | None = None) -> str:
    """Names and values in two columns; a long value goes on below, its words whole if they fit."""
    limit = width or shutil.get_terminal_size().columns
    start = indent + max((columns_of(name) for name, _ in rows), default=0) + len(_GAP)
    space = max(limit - start, _NARROWEST)
    lines = []
    for name, value in rows:
        cell = Cell.of(value)
        first, *more = hard_wrap(cell.text, space) or [""]
        blank = " " * (start - indent - columns_of(name))
        lines.append(f"{'':{indent}}{name}{blank}{cell.shown(first)}".rstrip())
        lines += [f"{'':{start}}{cell.shown(line)}" for line in more]
    return "\n".join(lines)
