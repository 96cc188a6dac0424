"""The paths that requests name, as a ticket keeps them: a text of entries, each a request's count and a path.

A request that names no path is about all of a source. So a refresh may look at the named paths alone only if each
request that it serves has an entry: whoever knows nothing of this, such as a watcher of an earlier release, leaves none.
"""

from __future__ import annotations

from collections.abc import Collection

MOST_NAMED = 256
"""More paths than these are not named one by one: all is looked at then."""
ALL = ""
"""The text of a request about all of a source."""
_END, _TAB = "\0", "\t"


def together(some: frozenset[str] | None, more: frozenset[str] | None) -> frozenset[str] | None:
    """The paths of both; None, for any, where they are too many to name."""
    if some is None or more is None or len(some) + len(more) > MOST_NAMED:
        return None
    return some | more


def text_of(paths: Collection[str] | None) -> str:
    """Paths as the script that requests takes them; `ALL` for None, for too many, and where one is no text that can be stored."""
    if not paths or len(paths) > MOST_NAMED:
        return ALL
    text = "".join(f"{path}{_END}" for path in sorted(paths))
    try:
        text.encode()
    except UnicodeEncodeError:
        return ALL
    return text if text.count(_END) == len(paths) and _END * 2 not in f"{_END}{text}" else ALL


def paths_of(text: str, served: int, wanted: int) -> frozenset[str] | None:
    """The paths that the requests after `served` up to `wanted` name together; None where one of them is about all."""
    open_counts, paths = set[int](), set[str]()
    for entry in text.split(_END)[:-1]:
        count, tab, path = entry.partition(_TAB)
        if not (tab and count.isdecimal()):
            return None
        if served < int(count) <= wanted:
            open_counts.add(int(count))
            paths.add(path)
    return frozenset(paths) if len(open_counts) == wanted - served else None
