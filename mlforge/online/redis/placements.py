"""Placements: whether books and rows of features lie on one server or on the nodes of a cluster, a row of a table each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlforge.errors import DefinitionError
from mlforge.online.redis.layout_table import LAYOUTS
from mlforge.online.redis.layouts import RowLayout
from mlforge.online.redis.reading import Reading


@dataclass(frozen=True, slots=True)
class Placement:
    """The difference between a server and a cluster, beside how commands get there.

    layouts: how rows may lie, by name. reading: how they are read. books_keys: the keys of a feature's books, all of which a push
    begins and finishes, from that on a server of its own.
    """

    layouts: Mapping[str, type[RowLayout]]
    reading: type[Reading]
    books_keys: Callable[[str], Sequence[str]]

    def layout(self, name: str) -> RowLayout:
        """A layout by its name; DefinitionError for one that rows cannot have here."""
        if name in self.layouts:
            return self.layouts[name]()
        raise DefinitionError(
            f"RedisStore: layout={name!r} is not for a cluster: while a slot moves, a bucket of packed rows could be on another "
            "node than what tells of it. Leave it out, or use a server that is no cluster's"
        )


def one_server() -> Placement:
    """All on one server: a feature's books under one key."""
    return Placement(LAYOUTS, Reading, lambda key: (key,))


def cluster() -> Placement:
    """On the nodes of a cluster: books in each bucket of a feature, beside its rows."""
    from mlforge.online.redis.bucketed_layout import BucketedLayout
    from mlforge.online.redis.bucketed_reading import BucketedReading
    from mlforge.online.redis.buckets import bucket_keys

    return Placement({BucketedLayout.name: BucketedLayout}, BucketedReading, bucket_keys)
