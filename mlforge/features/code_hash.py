"""The hash of a function's code: its own, its helpers' and the constants that they use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlforge.features.written import Written, settled, written


def code_hash(function: Callable[..., object]) -> str:
    """sha256 hex over what a function does, as far as its code tells; the same in every process.

    It covers the normalised syntax of the function and of every helper in its package or beside it,
    reached through globals, closures and defaults, and the values of the constants that these use.
    Of an object from elsewhere, such as a fitted model, its state counts as pickle would have it, if it can be pickled.
    Layout, comments, docstrings, annotations, the function's own name and decorators do not count;
    installed packages and the standard library count by name alone, whatever their version. Without
    source (exec, an edited file) bytecode stands in, which differs between Python releases. Mutable
    constants count as they are at the call: hash definitions once, when they are loaded.
    """
    return written(function).hash


class CodeState:
    """The code hash of a function in a process where a user may change helpers and constants, as in a notebook.

    The hash is stable between two looks. Changes that the function itself makes during a look, to a
    cache for one, are none.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._hash: str | None = None
        self._seen = Written()
        self._changed: tuple[str, ...] = ()

    @property
    def tells_all(self) -> bool:
        """Whether other functions of this hash do the same, as of the last look.

        Not where the code uses a value of which only a name or a repr is known: a connection, an expression that calls Python.
        """
        if self._hash is None:
            self.look()
        return self._seen.tells_all

    @property
    def states(self) -> tuple[str, ...]:
        """The names of objects from elsewhere whose states are part of the hash, as of the last look."""
        if self._hash is None:
            self.look()
        return tuple(self._seen.states)

    @property
    def hash(self) -> str:
        """The hash as of the last look; the first call looks."""
        return self.look() if self._hash is None else self._hash

    def look(self) -> str:
        """The code hash, computed again if something changed since the last look."""
        seen = written(self._function)
        if self._hash is None or seen.hash != self._seen.hash:
            self._hash = seen.hash
        self._seen = seen
        return self._hash

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Look, then let the function run, and take all as it is then for unchanged."""
        self.look()
        before = self._seen
        try:
            yield
        finally:
            after = written(self._function)
            self._changed = settled(before, after)
            self._seen = written(self._function) if self._changed else after

    def warnings(self) -> list[str]:
        """Sentences on what may change the function's results without changing its hash, as of the last look."""
        unseen = [
            f"its code uses {name}, {what} of which only the name is known: when that changes, nothing notices, and "
            f"'mlforge build --full' takes it up"
            for name, what in self._seen.unseen.items()
        ]
        changed = [
            f"its function changes {name} while it runs, so that the same rows may give other events the next time; "
            "fit it and use it once beforehand, and leave it as it is within the function"
            for name in self._changed
        ]
        return unseen + changed
