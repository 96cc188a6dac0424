"""Whether an intake is one that a version can be made of."""

from __future__ import annotations

from mlforge.core.values import FEATURE
from mlforge.errors import MlforgeError, SourceError
from mlforge.ingest.intake import Intake
from mlforge.sources.listing import Listing
from mlforge.store import Snapshot


def check_whole(snapshot: Snapshot, listing: Listing, intake: Intake) -> None:
    """Refuse to go on with some parts of a table: they are no files of their own, and rows would be lost or doubled."""
    table = listing.version.removeprefix(FEATURE)
    lost = sorted(listing.stats.keys() - intake.file_states.keys())
    if not intake.errors and not lost:
        return
    reason = intake.errors[0] if intake.errors else f"{lost[0]} is gone"
    stays = (
        f"{snapshot.pointer.version} goes on being served" if snapshot.pointer else "none is made"
    )
    raise SourceError(f"{snapshot.name}: no version can be made of {table}, and {stays}: {reason}")


def nothing_usable(name: str, intake: Intake) -> MlforgeError:
    """The error of a source none of whose files can be used."""
    first = intake.errors[0]
    if len(intake.errors) == 1:
        return first
    return type(first)(
        f"{first} (and {len(intake.errors) - 1} more files of {name} cannot be used)"
    )
