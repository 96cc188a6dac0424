"""`POST /v1/notices`: a bucket tells of its changes, so that workers look sooner than by the next listing."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlforge.registry.live import Live
from mlforge.serve.access.keys import check_sends, may_send_of
from mlforge.serve.http import body_of
from mlforge.serve.limits import Limits
from mlforge.serve.operations import NO_WORKERS
from mlforge.serve.problems import Refused
from mlforge.serve.threads import LOOKS, in_thread
from mlforge.sources.bucket_notices import objects_of, validation_code

NOTICES = "/v1/notices"


@dataclass(frozen=True)
class Notices:
    """Notices of buckets, passed on to the workers as hints. They say where to look, and never what there is."""

    live: Live | None
    limits: Limits

    def routes(self) -> list[Route]:
        """The routes of the API."""
        return [Route(NOTICES, self._take, methods=["POST"])]

    async def _take(self, request: Request) -> Response:
        check_sends(request.scope)
        body = await body_of(request.scope, request.receive, self.limits)
        if code := validation_code(body):
            return JSONResponse({"validationResponse": code})
        if self.live is None:
            raise Refused(409, "no_workers", NO_WORKERS)
        named = [each for each in objects_of(body) if may_send_of(request.scope, each)]
        if named:
            await in_thread(LOOKS, self.live.hint, named)
        return JSONResponse({"objects": len(named)}, 202)
