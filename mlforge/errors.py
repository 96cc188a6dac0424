"""Every error that mlforge raises, in one tree.

    MlforgeError
    ├── DefinitionError          a feature, metric, validator or definitions file is wrong
    │   ├── DefinitionsNotFound  no definitions file, or one that does not import
    │   └── ExpressionError      an expression does not parse, mixes types, or stands where a name belongs
    ├── SourceError              a source cannot be read or does not fit
    │   ├── SourceUnavailable    its disk or its bucket cannot be asked now
    │   ├── ColumnNotFound       a column that the feature names is not there
    │   └── UnreadableFile       one file is damaged, unfinished or not parquet
    ├── FunctionError            the feature's own function failed or returned the wrong thing
    ├── DataError                values that the time model refuses: dtypes, overflow, two rows of a key
    ├── ValidationError          rows break the feature's validators
    ├── StoreError               the offline store
    │   ├── StoreUnavailable     its disk or its bucket is full, read-only, denied or away
    │   ├── FeatureNotFound
    │   ├── VersionNotFound
    │   ├── VersionConflict      the version exists, is below the highest, or lost a race
    │   ├── IntegrityError       stored bytes are not what was published
    │   ├── StoreBusy            another process has held a feature for too long
    │   ├── VersionInUse         a version that is to be removed is being read
    │   └── UnsupportedStore     another format, or a place where a store must not be
    ├── RetrievalError           a spine or a request that cannot be answered
    │   ├── LockMismatch         a column that a model was made with is gone, or means something else
    │   └── ColumnMissing        a column that the version in use does not have
    ├── OnlineError              the online store
    │   ├── NotServed            no books for the feature, or older than asked for
    │   ├── OwnedElsewhere       the feature's rows are of another store
    │   ├── StalePush            a newer push has been there
    │   ├── OnlineRefused        the server answers, and refuses: password, memory, disk, a replica, a cluster
    │   │   └── NoQueue          REDIS_URL names a cluster or sentinels, which hold rows, and no queue of workers
    │   └── OnlineUnavailable    the server does not answer
    ├── MissingExtra             an optional part is not installed
    └── BuildError               one or more features failed; the others were built

Each message says what failed, on what, and what would work. Errors named `...Unavailable` are `Unavailable`, too: their surroundings are at fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


def with_owner(owner: str, text: str) -> str:
    """`owner: text`, where the text does not begin with its owner already, or with a version of it."""
    is_named = re.match(rf"{re.escape(owner)}(: | \d+\.\d+\.\d+\b)", text)
    return text if is_named else f"{owner}: {text}"


def without_owners(text: str, *owners: str) -> str:
    """The text behind the owners that it begins with, each written `owner: `, in whatever order, and without `on owner` further on."""
    while owner := next((owner for owner in owners if text.startswith(f"{owner}: ")), None):
        text = text.removeprefix(f"{owner}: ")
    for owner in owners:
        text = text.replace(f" failed on {owner}: ", " failed: ", 1)
    return text


def encodable(text: str) -> str:
    """The text, with halves of characters of UTF-16, which no file and no server takes, as Python and JSON write them: `\\udcff`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


_NEAR, _LISTED = 3, 20
"""How many near names, and how many of all names, are told at most."""
_LONGEST_NAME = 200
"""A longer text resembles no name; to look for one would take seconds of a text that a caller sends."""


def near_names(
    name: object, names: Iterable[str], most: int = _NEAR, cutoff: float = 0.6
) -> list[str]:
    """The names that a mistyped one may mean, the nearest first; case does not count. None for a value that is no text."""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        return []
    by_word: dict[str, list[str]] = {}
    for other in dict.fromkeys(names):
        if isinstance(other, str):  # a column of pandas may be a number
            by_word.setdefault(other.lower(), []).append(other)
    near = get_close_matches(name.lower(), list(by_word), n=most, cutoff=cutoff)
    return [other for word in near for other in by_word[word]][:most]


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Advice on a name that is not among the names: near ones, or those that it begins, else the first names."""
    known = list(names)
    near = near_names(name, known)
    if not near and isinstance(name, str):
        near = [other for other in known if other.startswith(f"{name}__")][:_NEAR]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    if not known:
        return "there are none"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"there are {', '.join(known[:_LISTED])}{more}"


def near_hint(name: object, names: Iterable[Any]) -> str:
    """` (did you mean 'amount'?)`, to go behind a name that is not among the names; nothing where none is near."""
    near = near_names(name, names)
    return f" ({did_you_mean(name, near)})" if near else ""


class MlforgeError(Exception):
    """The root of the tree: catch this to catch all that mlforge raises on purpose."""

    def __str__(self) -> str:
        """The message, in which texts of others may be."""
        return encodable(super().__str__())


class Unavailable(MlforgeError):
    """A disk, a bucket, a server or a cluster does not do its part now: who asked is not at fault, and may ask again later."""


class DefinitionError(MlforgeError):
    """A feature, metric, validator or definitions file is wrong."""


class DefinitionsNotFound(DefinitionError):
    """There is no definitions file, or it does not import."""


class ExpressionError(DefinitionError):
    """An expression does not parse, names no column, mixes types, or stands where a name belongs."""


class SourceError(MlforgeError):
    """A source cannot be read or does not fit its feature."""


class SourceUnavailable(SourceError, Unavailable):
    """The disk or the bucket of a source cannot be asked now."""


class ColumnNotFound(SourceError):
    """A column that the feature names is not among the columns at hand."""

    @classmethod
    def among(cls, owner: str, missing: str, present: list[str]) -> ColumnNotFound:
        """The usual wording: who looked for what, what there is, and what may be meant."""
        names = sorted(present)
        advice = near_hint(missing, names)
        return cls(f"{owner}: no column {missing!r}; there are {', '.join(names)}{advice}")


class UnreadableFile(SourceError):
    """A file is damaged, unfinished or not parquet at all."""


class FunctionError(MlforgeError):
    """The feature's own function failed or returned something other than a frame."""


class DataError(MlforgeError):
    """Values that the time model refuses: a dtype, an overflow, two rows of one untimed key."""


class ValidationError(MlforgeError):
    """Rows break the feature's validators."""


class RuleMisfit(ValidationError):
    """A rule that does not go with the dtype of its column."""


class StoreError(MlforgeError):
    """The offline store cannot do what was asked."""


class StoreUnavailable(StoreError, Unavailable):
    """The disk or the bucket of the store does not do its part: it is full, read-only, denied or away."""


class FeatureNotFound(StoreError):
    """The store has no such feature."""


class VersionNotFound(StoreError):
    """The feature has no such version."""


class VersionConflict(StoreError):
    """The version exists already, is below the highest, or another publisher won."""


class IntegrityError(StoreError):
    """Stored bytes are not what was published."""


class StoreBusy(StoreError):
    """Another process works on the feature, and has for longer than one waits."""


class VersionInUse(StoreError):
    """A version cannot be removed, for it is being read."""


class UnsupportedStore(StoreError):
    """The store was written by another format, or lies where a store must not be."""


class TaskRefused(MlforgeError):
    """A task of a build that this process must not run: it has other definitions, or other releases."""


class TaskFailed(MlforgeError):
    """A task of a build did not end well on any machine that tried it."""


class RunnerUnavailable(Unavailable):
    """Nobody is there to take part in a build."""


class RetrievalError(MlforgeError):
    """A spine or a request that cannot be answered."""


class LockMismatch(RetrievalError):
    """A column that a lock names is gone, has another dtype, or means something else."""


class ColumnMissing(RetrievalError):
    """A column that is asked for and that the version in use does not have."""


class OnlineError(MlforgeError):
    """The online store cannot do what was asked."""


class NotServed(OnlineError):
    """The online store holds no books for the feature, or they are older than asked for."""


class BooksDamaged(OnlineError):
    """The books of a feature online cannot be read; a push of the feature makes them anew."""


class OwnedElsewhere(OnlineError):
    """The feature's rows online are of another store, which alone may write and drop them."""


class StalePush(OnlineError):
    """A newer push has been there: this one must not overwrite its rows."""


class OnlineRefused(OnlineError):
    """The online store's server answers, and refuses what it is asked."""


class NoQueue(OnlineRefused):
    """REDIS_URL names a cluster, or sentinels: rows may lie there, the queue and the event log of workers do not."""


class OnlineUnavailable(OnlineError, Unavailable):
    """The online store's server does not answer."""


class MissingExtra(MlforgeError):
    """An optional part is not installed."""

    @classmethod
    def of(cls, what: str, extra: str) -> MissingExtra:
        """Name the part, the extra that brings it, and an install of it that is ours.

        On the public index the name mlforge is another project's, so the line installs from a checkout.
        """
        return cls(
            f"{what} needs the extra {extra!r}: in a checkout of mlforge, pip install '.[{extra}]'; "
            f"from a wheel of it, pip install './mlforge-X.Y.Z-py3-none-any.whl[{extra}]'"
        )


class BuildError(MlforgeError):
    """Some features failed; the others were built.

    `failures` maps a feature's name to its error, `results` holds what was built.
    """

    def __init__(self, failures: Mapping[str, Exception], results: Mapping[str, Any]) -> None:
        self.failures = dict(failures)
        self.results = dict(results)
        lines = [with_owner(name, str(error)) for name, error in failures.items()]
        super().__init__(
            f"{len(lines)} of {len(lines) + len(results)} features failed\n" + "\n".join(lines)
        )
