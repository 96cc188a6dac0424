"""A feature's mutable documents: its pointer, its books, the states of its source files, its last audit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import compress, groupby
from operator import is_not
from pathlib import Path
from typing import Any, TypeVar

from mlforge.core.collection import collection_paused
from mlforge.core.named_tuples import each_of_columns
from mlforge.core.values import Version
from mlforge.errors import IntegrityError
from mlforge.store.local import io
from mlforge.store.local.paths import State, check_format, state_or_none, well_formed
from mlforge.store.records import Audit, Books, FileState, FileStateMap
from mlforge.store.transaction import Pointer

LATEST, BOOKS, SOURCES, AUDIT = "_latest.json", "_books.json", "_sources.json", "_audit.json"
T = TypeVar("T")
_FORMAT = 1
_FEW = 100  # lines that are not worth a new file
_WHOLE, _HASH = 1 + len(FileState._fields), FileState._fields.index("hash")


def served(folder: Path) -> tuple[Pointer, Version] | None:
    """The served version, and the highest one when that was decided."""
    path = folder / LATEST
    with well_formed(path):
        document = io.read_json(path)
        if document is None:
            return None
        check_format(document, path, _FORMAT)
        version = Version.parse(document["version"])
        pointer = Pointer(version, int(document["generation"]))
        return pointer, Version.parse(document.get("highest", document["version"]))


def point(folder: Path, version: Version, *, synced: bool = True, at_least: int = 0) -> Pointer:
    """Serve a version from now on, and raise the generation; what the folder held before is durable first.

    synced: False where the caller syncs the folder, so that the pointer is durable, too. at_least: the lowest generation from then on.
    """
    known = served(folder)
    generation = max(known[0].generation + 1 if known else 1, at_least)
    highest = max(version, known[1]) if known else version
    content = {"version": str(version), "generation": generation, "highest": str(highest)}
    _write(folder / LATEST, content, after=[folder], folder=synced)
    return Pointer(version, generation)


def books(folder: Path) -> Books:
    """The books; empty before the first write."""
    path = folder / BOOKS
    with well_formed(path):
        document = io.read_json(path)
        check_format(document or {}, path, _FORMAT)
        return Books.from_json(document)


def write_books(folder: Path, kept: Books) -> None:
    """Replace the books."""
    _write(folder / BOOKS, kept.to_json())


class Documents:
    """A feature's pointer and books, each read again only once its file has changed: they are asked for every few seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[State | None, Any]] = {}

    def served(self) -> tuple[Pointer, Version] | None:
        """The served version, and the highest one when that was decided."""
        return self._read(LATEST, served)

    def books(self) -> Books:
        """The books; empty before the first write."""
        return self._read(BOOKS, books)

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        path = f"{self._folder}/{name}"
        state = state_or_none(path)
        known = self._known.get(name)
        if known is not None and known[0] == state:
            value: T = known[1]
            return value
        value = read(self._folder)
        if state is not None or state_or_none(path) is None:  # else it came meanwhile
            self._known[name] = state, value
        return value


class FileStateLog:
    """A log of source files' states: one line per change, of which a file's last one counts.

    The log only saves work, so a damaged line is ignored. Changes are appended, until the
    outdated lines outnumber the current ones.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / SOURCES
        self._state: State | None = None
        self._known = FileStateMap()
        self._lines = 0

    def read(self) -> FileStateMap:
        """All that is known; the very same while the file stays as it is."""
        state = self._now()
        if state is None or state != self._state:
            text = (io.read_bytes(self.path) or b"").decode(errors="replace")
            self._lines, self._known = text.count("\n"), understood(text)
            self._state = state
        return self._known

    def write(self, now: FileStateMap) -> None:
        """Let this be what is known; it is kept, not copied."""
        before = self.read()
        changed = sorted(now.touched) if now.before is before else _others(before, now)
        new = {path: now.get(path) for path in changed if now.get(path) != before.get(path)}
        if self._state is None or self._lines + len(new) > 2 * len(now) + _FEW:
            lines = lines_of(now)
            with io.replacing(self.path, durable=False) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
            self._lines = len(lines)
        elif new:
            # A line that a killed writer left half-written ends here.
            lines = [_line(path, state) for path, state in new.items()]
            io.append_text(self.path, "\n" + "".join(lines))
            self._lines += len(lines)
        now.before = None  # else those of all refreshes would stay in memory
        self._known, self._state = now, self._now()

    def _now(self) -> State | None:
        return state_or_none(self.path)


def _others(before: FileStateMap, now: FileStateMap) -> list[str]:
    """The paths of states that are not the very same, and of those that are no more."""
    others = compress(now, map(is_not, map(before.get, now), now.values()))
    return [*others, *sorted(before.keys() - now.keys())]


def _line(path: str, state: FileState | None = None) -> str:
    """A file's line; without a state, that the file is no more."""
    return f"{json.dumps([path, *(state or ())])}\n"


def lines_of(states: FileStateMap) -> list[str]:
    """A line for each file."""
    return [_line(path, state) for path, state in states.items()]


def understood(text: str) -> FileStateMap:
    """The states that lines tell, of which a file's last one counts."""
    with collection_paused():
        entries = _entries([line for line in text.splitlines() if line])
        states = FileStateMap()
        if _are_whole(entries):
            states.update(_each_state(entries))
            return states
        for is_whole, some in groupby(entries, _is_whole):
            if is_whole:
                states.update(_each_state(some))
            else:
                _follow(some, states)
        return states


def _are_whole(entries: Iterable[Any]) -> bool:
    """Whether each of some entries is whole, as mostly all are, without a call of Python's for each."""
    if not isinstance(entries, list) or {*map(type, entries)} != {list}:
        return False
    if {*map(len, entries)} != {_WHOLE}:
        return False
    return {type(entry[0]) for entry in entries} == {type(entry[-1]) for entry in entries} == {str}


def _is_whole(entry: Any) -> bool:
    """Whether an entry tells all of a file's state, as all that this release writes do."""
    is_long = isinstance(entry, list) and len(entry) == _WHOLE
    return is_long and isinstance(entry[0], str) and isinstance(entry[-1], str)


def _each_state(entries: Iterable[list[Any]]) -> Iterator[tuple[str, FileState]]:
    """The paths and states of whole entries, column by column; texts of states that are equal are one."""
    paths, *fields, goods, shapes = zip(*entries, strict=True)
    hashes, one = fields[_HASH], dict[str, str]()
    if goods == hashes:  # as mostly
        goods = hashes
    else:
        goods = tuple(h if good == h else good for h, good in zip(hashes, goods, strict=True))
    shapes = tuple(map(one.setdefault, shapes, shapes))
    return zip(paths, each_of_columns(FileState, *fields, goods, shapes), strict=True)


def _follow(entries: Iterable[Any], states: FileStateMap) -> None:
    """Change states by entries that tell of files that are no more, or that an earlier release wrote."""
    for entry in entries:
        with suppress(ValueError, TypeError, AttributeError, KeyError):
            path, *fields = entry
            if not fields:
                states.pop(path, None)
            elif isinstance((state := FileState(*fields)).shape, str):
                states[path] = state


def _entries(lines: list[str]) -> Iterable[Any]:
    """The parsed lines; without those that are damaged, if some are."""
    try:
        entries: list[Any] = json.loads(f"[{','.join(lines)}]")
        if len(entries) == len(lines):
            return entries
    except (ValueError, RecursionError):
        pass
    return _each_entry(lines)


def _each_entry(lines: list[str]) -> Iterator[Any]:
    for line in lines:
        with suppress(ValueError, RecursionError):
            yield json.loads(line)


def audit(folder: Path) -> Audit | None:
    """The last audit; None where there is none or its document is damaged, which the next audit replaces."""
    path = folder / AUDIT
    with suppress(IntegrityError), well_formed(path):
        document = io.read_json(path)
        check_format(document or {}, path, _FORMAT)
        return None if document is None else Audit.from_json(document)
    return None


def write_audit(folder: Path, result: Audit) -> None:
    """Replace the last audit's result."""
    _write(folder / AUDIT, result.to_json())


def _write(
    path: Path, content: Mapping[str, Any], after: Iterable[Path] = (), *, folder: bool = True
) -> None:
    io.write_json(path, {"format": _FORMAT, **content}, after=after, folder=folder)
