"""Services by their kept versions, as requests name them: `checkout@1`. Read in a thread, and again each few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mlforge.definitions.registry import Definitions
from mlforge.definitions.services import service_named
from mlforge.errors import LockMismatch, RetrievalError
from mlforge.serve.problems import Refused, unknown
from mlforge.services.keeping import AT
from mlforge.services.service import Service

AGAIN_S = 5.0
"""For how long a version is answered with before the store is asked whether there is a newer one."""


@dataclass(slots=True)
class KeptServices:
    """The services that were asked for by version; clock: seconds that only go forward.

    Only versions that there are take room: the rest of a name is a caller's own text.
    """

    definitions: Definitions
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[Service, float]] = field(default_factory=dict)

    async def named(self, text: str) -> Service:
        """The service of a name with a version. Raises Refused for one that there is not, LockMismatch for one that is no more."""
        known = self._known.get(text)
        if known is not None and self.clock() - known[1] < AGAIN_S:
            return known[0]
        service = await asyncio.to_thread(self._read, text)
        if known is not None and _is_same(known[0], service):
            service = known[0]  # what was computed for it serves again
        self._known[text] = service, self.clock()
        return service

    def _read(self, text: str) -> Service:
        name = text.partition(AT)[0]
        if name not in self.definitions.services:
            raise unknown("service", name, self.definitions.services)
        try:
            return service_named(self.definitions.services, text, self.definitions.store)
        except LockMismatch:
            raise
        except RetrievalError as error:
            raise Refused(404, "unknown_version", str(error)) from None


def _is_same(one: Service, other: Service) -> bool:
    """Whether both are one version, of features of the same names: a feature may have got another since."""
    return (one.version, one.feature_names) == (other.version, other.feature_names)
