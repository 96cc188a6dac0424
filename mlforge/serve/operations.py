"""The deeds that a person asks for over HTTP: approve a hold, roll back, retry. Each needs a key that operates."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlforge.core.values import Version
from mlforge.definitions.registry import Definitions
from mlforge.errors import OnlineError, StoreError
from mlforge.registry.deeds import APPROVED, ROLLED_BACK
from mlforge.registry.live import Live, note_deeds
from mlforge.serve.access.keys import check_operates
from mlforge.serve.problems import Refused, unknown_feature
from mlforge.serve.queries import query_of
from mlforge.serve.threads import DEEDS, LOOKS, in_thread

APPROVE, ROLLBACK, RETRY = "approve", "rollback", "retry"
_TAKES: Mapping[str, tuple[str, ...]] = {
    APPROVE: ("hold",),
    ROLLBACK: ("version", "from"),
    RETRY: ("path",),
}
"""The names that the query of each deed may have."""
NO_WORKERS = "this server knows of no workers: start 'mlforge up', or set REDIS_URL to theirs"


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a deed: a sentence, and the same as a document."""

    sentence: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Operations:
    """Deeds on features, as `mlforge approve`, `rollback` and `retry` do them. All block."""

    definitions: Definitions
    live: Live | None

    def routes(self) -> list[Route]:
        """The routes of the API."""
        return [
            Route("/v1/status", self._status),
            *(
                Route(f"/v1/features/{{feature}}/{deed}", self._answering(deed), methods=["POST"])
                for deed in _TAKES
            ),
        ]

    async def _status(self, request: Request) -> Response:
        if self.live is None:
            raise Refused(404, "no_workers", NO_WORKERS)
        document = await in_thread(LOOKS, self.live.status)
        return Response(json.dumps(document, default=str), media_type="application/json")

    def _answering(self, deed: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            check_operates(request.scope)
            parameters = query_of(request, *_TAKES[deed])
            done = await in_thread(DEEDS, self.do, deed, request.path_params["feature"], parameters)
            return Response(json.dumps(done.document), media_type="application/json")

        return answer

    def do(self, deed: str, feature: str, parameters: Mapping[str, str]) -> Done:
        """Do a deed on a feature of the definitions. parameters: `version` of a rollback, `path` of a retry, and what the caller saw.

        `hold`: the reason of the hold to approve, or how it begins. `from`: the version that is served before a rollback.
        Raises Refused for a feature, a version or a file that is none, a feature that is not held, and where another hold, or version, is there by now.
        """
        if feature not in self.definitions.features:
            definitions = self.definitions
            raise unknown_feature(feature, definitions.features, definitions.store.renames())
        if deed == APPROVE:
            return self._approve(feature, parameters.get("hold", ""))
        if deed == ROLLBACK:
            return self._roll_back(
                feature, parameters.get("version") or None, parameters.get("from") or None
            )
        return self._retry(feature, parameters.get("path") or None)

    def _approve(self, name: str, seen: str) -> Done:
        definitions, store = self.definitions, self.definitions.store
        hold = store.books(name).hold
        if hold is None:
            raise Refused(409, "not_held", f"{name} is not held: there is nothing to approve")
        if not _in_one_line(hold).startswith(_in_one_line(seen)):
            raise Refused(409, "other_hold", f"{name} is held for another reason by now: {hold}")
        if self.live is not None and not self.live.has_their_definitions():
            raise Refused(
                409,
                "other_definitions",
                f"this server has other definitions than the workers, so that it would build another {name} than is held; "
                f"start it anew, or use 'mlforge approve {name}'",
            )
        result = definitions.refresh(name)
        still = store.books(name).hold
        if still is not None:
            raise Refused(409, "stays_held", f"{name} stays held: {result.reason}")
        version = str(result.version)
        done = {"hold": hold, "version": version, "changed": result.changed}
        note_deeds(self.live, APPROVED, [(name, done)])
        written = self._pushed(name)
        said = f"published {version}" if result.changed else f"{version} goes on"
        return Done(
            f"{name}: {said}, {written} entities written online.",
            {"feature": name, **done},
        )

    def _pushed(self, name: str) -> int:
        pushed = self.definitions.push(name)
        return pushed.written + pushed.deleted

    def _roll_back(self, name: str, version: str | None, seen: str | None) -> Done:
        definitions, store = self.definitions, self.definitions.store
        try:
            Version.parse(version or "1.0.0")
        except StoreError as error:
            raise Refused(422, "unfit_request", str(error)) from None
        before, online = str(store.read_metadata(name).version), True
        if seen is not None and seen != before:  # as by a second click, which would go back further
            said = f"{name} serves {before} by now, {seen} no more: nothing was rolled back"
            raise Refused(409, "version_conflict", said)
        try:
            definitions.rollback(name, version)
        except OnlineError:  # offline it is done: a worker pushes it
            online = False
        pointer = store.pointer(name)
        served = str(pointer.version) if pointer else None
        note_deeds(self.live, ROLLED_BACK, [(name, {"from": before, "version": served})])
        return Done(
            f"{name}: {served} is served in place of {before}; it is held there until you approve it.",
            {"feature": name, "from": before, "version": served, "online": online},
        )

    def _retry(self, name: str, path: str | None) -> Done:
        if self.live is None:
            raise Refused(409, "no_workers", NO_WORKERS)
        if path is not None and path not in self.definitions.store.books(name).quarantine:
            raise Refused(409, "not_in_quarantine", f"{name}: {path} is not in quarantine")
        self.live.retry(name, path)
        return Done(f"{name}: workers try {path or 'it'} again.", {"feature": name, "path": path})


def _in_one_line(text: str) -> str:
    """A text as it is whatever a form does with the ends of its lines."""
    return " ".join(text.split())
