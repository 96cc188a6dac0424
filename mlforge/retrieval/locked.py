"""Answers and locks: the lock of a reading, and the columns that a reading or online books hold against one."""

from __future__ import annotations

from mlforge.core.lock import Lock
from mlforge.core.meaning import FeatureMeaning
from mlforge.core.values import Version
from mlforge.errors import BooksDamaged, NotServed
from mlforge.online import OnlineBooks
from mlforge.retrieval.reading import Reading
from mlforge.services.locking import locked_columns


def lock_of_reading(reading: Reading, created_at: int) -> Lock:
    """The lock of an answer of training: its columns, and the versions that they are read from.

    created_at: UTC microseconds.
    """
    service, identity = reading.service, reading.store.identity()
    versions = (f"{use.manifest.name}@{use.manifest.version}" for use in reading.uses)
    return Lock(
        "" if service is None else service.name,
        locked_columns(service, reading.columns),
        tuple(dict.fromkeys(versions)),
        "" if identity is None else identity.id,
        created_at,
    )


def check_settled(feature: str, books: OnlineBooks) -> None:
    """Raise NotServed while rows may be of another version that can mean something else: a PATCH has other rows alone."""
    if books.target is None:
        return
    served = Version.parse(books.target.version)
    for pending in books.pending:
        version = Version.parse(pending.version)
        if (version.major, version.minor) != (served.major, served.minor):
            raise NotServed(
                f"{feature}: {version}, whose columns may mean something else than those of {served}, is being pushed "
                "at this moment, so no lock can be held against its rows; ask again"
            )


def served_meaning(feature: str, books: OnlineBooks) -> str:
    """The meaning of the served columns, as text; NotServed where the books do not tell, BooksDamaged where it cannot be read."""
    push = f"push again with 'mlforge build --features {feature} --online'"
    if not books.meaning:
        raise NotServed(
            f"{feature}: its rows online were pushed by a release that did not say what columns mean, so no lock can "
            f"be held against them; {push}"
        )
    try:
        FeatureMeaning.parse(books.meaning)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BooksDamaged(
            f"{feature}: its books online do not say what its columns mean ({error}); {push}"
        ) from error
    return books.meaning
