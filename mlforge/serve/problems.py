"""Problems: what a caller is told of a fault, as RFC 9457 has it (`application/problem+json`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from mlforge.core.renames import Renames
from mlforge.errors import (
    ColumnMissing,
    DefinitionError,
    FeatureNotFound,
    LockMismatch,
    MlforgeError,
    NotServed,
    OnlineError,
    OnlineRefused,
    OnlineUnavailable,
    OwnedElsewhere,
    RetrievalError,
    StoreError,
    VersionConflict,
    VersionNotFound,
    did_you_mean,
)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault as a caller is told of it.

    status: of HTTP. reason: a word for programs, such as `not_served`. detail: a sentence for people. further: headers of its own.
    """

    status: int
    reason: str
    detail: str
    further: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """The problem as JSON has it."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
        }

    @property
    def body(self) -> bytes:
        """The document's bytes."""
        return json.dumps(self.document).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers beyond those of each answer: how to bring a key, when to ask again."""
        if self.status == 401:
            return [(b"www-authenticate", b"Bearer")]
        own = list(self.further)
        if self.status in (429, 503) and not own:
            return [(b"retry-after", str(RETRY_AFTER_S).encode())]
        return own


class Refused(MlforgeError):
    """A request that is refused as it stands; `problem` says why."""

    def __init__(self, status: int, reason: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        further = ((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items())
        self.problem = Problem(status, reason, detail, tuple(further))


_OF_ERRORS: tuple[tuple[type[MlforgeError], int, str], ...] = (
    (NotServed, 503, "not_served"),
    (OwnedElsewhere, 503, "owned_elsewhere"),
    (OnlineUnavailable, 503, "online_store_unavailable"),
    (OnlineRefused, 503, "online_store_refuses"),
    (OnlineError, 503, "online_store_damaged"),
    (FeatureNotFound, 404, "unknown_feature"),
    (VersionNotFound, 404, "unknown_version"),
    (VersionConflict, 409, "version_conflict"),
    (StoreError, 503, "store_unavailable"),
    (LockMismatch, 409, "lock_mismatch"),
    (ColumnMissing, 503, "not_served"),
    (RetrievalError, 422, "unfit_request"),
    (DefinitionError, 500, "unfit_definitions"),
    (MlforgeError, 500, "failed"),
)
"""Status and reason of errors; the first class that an error belongs to counts."""


def problem_of(error: MlforgeError) -> Problem:
    """The problem that stands for an error of the library."""
    if isinstance(error, Refused):
        return error.problem
    status, reason = next((s, r) for kind, s, r in _OF_ERRORS if isinstance(error, kind))
    return Problem(status, reason, str(error))


UNEXPECTED = Problem(500, "internal", "the server failed; its log says on what")
"""The problem that stands for an error which is none of the library's: its text is for the log alone."""


def unknown_feature(name: str, names: Iterable[str], renames: Renames) -> Refused:
    """The refusal of a name that no feature has, with the present name where a feature had it."""
    sentence = renames.sentence(name)
    if sentence is None:
        return unknown("feature", name, dict.fromkeys(names))
    return Refused(404, "unknown_feature", f"{sentence}; ask for {renames.now(name)}")


def unknown(kind: str, name: str, names: Mapping[str, object]) -> Refused:
    """The refusal of a name that nothing of this kind has, with near ones."""
    return Refused(404, f"unknown_{kind}", f"no {kind} {name!r}; {did_you_mean(name, names)}")
