"""Sources whose partitions are sealed, as earlier refreshes noted it."""

from __future__ import annotations

from mlforge.sources.row_source import RowSource
from mlforge.store import Snapshot


def sealed_source(source: RowSource, snapshot: Snapshot, *, is_believed: bool) -> RowSource:
    """The source without partitions that earlier refreshes of this very source found sealed."""
    if source.sealed_after is None:
        return source
    sealed = snapshot.books.sealed
    until = sealed.until if sealed and sealed.source == sealing_of(source) else 0
    stats = {path: state[:4] for path, state in snapshot.file_states.items()}
    return source.sealed(until, stats, is_believed=is_believed)


def sealing_of(source: RowSource) -> str:
    """The source and its `sealed_after`: an instant of another would seal what nobody has listed since."""
    return f"{source.text} {source.sealed_after}"
