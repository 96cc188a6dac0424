"""Deeds of people, by commands or over HTTP, and of orchestrators, as entries of the event log: each kind with its words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core.text import plural

BUILT, SCHEDULED, RETIRED, RENAMED, ADOPTED = "built", "scheduled", "retired", "renamed", "adopted"
ROLLED_BACK, APPROVED, FORGOTTEN = "rolled_back", "approved", "forgotten"

Details = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deed:
    """A kind of deed. sentence: of its details, which are input, without a stop. is_warning: whether something is not as it was meant to be."""

    title: str
    sentence: Callable[[Details], str]
    is_warning: bool = False


def _built(details: Details) -> str:
    keys = details["keys_written"]
    pushed = "" if keys is None else f", {plural(keys, 'key')} written online"
    return f"{details['version']} is served: {str(details['reason']).replace('_', ' ')}{pushed}"


def _forgotten(details: Details) -> str:
    keys = details["keys_deleted"]
    online = "" if keys is None else f", {plural(keys, 'key')} deleted online"
    return f"{details['version']} is served, without {plural(details['rows'], 'row')} of entities that are forgotten{online}"


def _retired(details: Details) -> str:
    return f"{plural(details['versions'], 'version')} deleted in the store, and {plural(details['rows'], 'row')} online"


def _adopted(details: Details) -> str:
    kept_by, owner = details["kept_by"], details["from"]
    told = [
        *([f"it was kept by the definitions {kept_by!r}"] if kept_by else []),
        *([f"its rows were of {owner}"] if owner else []),
    ]
    return ", and ".join(told) or "its rows were this store's already"


def _approved(details: Details) -> str:
    return f"{details['version']} {'was published' if details['changed'] else 'goes on'}"


DEEDS: Mapping[str, Deed] = {
    BUILT: Deed("Built by hand", _built),
    SCHEDULED: Deed("Built by a schedule", _built),
    RETIRED: Deed("Retired", _retired),
    RENAMED: Deed("Renamed", lambda details: f"it was {details['before']} until now"),
    ADOPTED: Deed("Adopted", _adopted),
    ROLLED_BACK: Deed(
        "Rolled back",
        lambda details: (
            f"{details['version']} is served in place of {details['from']}, and held until somebody approves it"
        ),
        is_warning=True,
    ),
    APPROVED: Deed("Approved", _approved),
    FORGOTTEN: Deed("Forgotten", _forgotten),
}
"""By kind. Details: `version`, `reason`, `bump`, `rows_changed`, `rows`, `keys_written` of a build, by whomever; `versions`, `rows`; `before`; `kept_by`, `from`; `version`, `from`;
`hold`, `version`, `changed`; `version`, `rows`, `keys_deleted`."""
