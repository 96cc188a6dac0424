"""The hot routes: values of services and of features, passed on as they are stored, or read by the library; both are awaited."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial

from mlforge.definitions.registry import Definitions
from mlforge.online import OnlineStore
from mlforge.online.steps import answered_async
from mlforge.retrieval.serving import OnlineAnswer, online_answer
from mlforge.serve.http import Receive, Reply, Scope, body_of, header
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused, unknown
from mlforge.serve.threads import LOOKS, in_thread
from mlforge.serve.values.answers import arrow_body, json_body, served, targets_of
from mlforge.serve.values.kept_services import KeptServices
from mlforge.serve.values.pass_through import PassThrough
from mlforge.serve.values.read_request import (
    ARROW,
    ReadRequest,
    entity_request,
    features_request,
    service_request,
)
from mlforge.serve.values.served_log import ServedLog
from mlforge.services.keeping import AT
from mlforge.services.service import Service

_MANY = 500
"""Up to how many rows of features are written as JSON on the event loop: more would keep other requests waiting."""
SERVICES, FEATURES = "/v1/services/", "/v1/features"


@dataclass(frozen=True, slots=True)
class Reads:
    """The reads that a server answers: those of its definitions, from their online store."""

    definitions: Definitions
    store: OnlineStore
    limits: Limits
    kept: KeptServices
    log: ServedLog
    passing: PassThrough

    def takes(self, scope: Scope) -> bool:
        """Whether a request is a read."""
        path: str = scope["path"]
        return path == FEATURES or path.startswith(SERVICES)

    async def reply(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to a read; raises MlforgeError, which a problem stands for, and Disconnected."""
        request = await self._request(scope, receive)
        body = await self.passing.body(request)
        if body is not None:
            return Reply(body)
        answer = await answered_async(
            online_answer(
                request.features,
                request.entities,
                self.store,
                request.max_age,
                request.at,
                request.request,
                request.details,
            )
        )
        if answer.service is not None:
            self.log.take(answer)
        self.passing.learn(request, answer)
        if request.arrow:
            return await _arrow(answer)
        if len(answer.rows) * len(answer.parts) <= _MANY:
            return Reply(json_body(answer, request.layout, request.details))
        return Reply(await asyncio.to_thread(json_body, answer, request.layout, request.details))

    async def _request(self, scope: Scope, receive: Receive) -> ReadRequest:
        path, method, query = scope["path"], scope["method"], scope["query_string"]
        accept = header(scope, b"accept")
        if path == FEATURES:
            if method != "POST":
                raise _not_taken(path, method, "POST")
            body = await body_of(scope, receive, self.limits)
            features, limits = self.definitions.features, self.limits
            read = partial(features_request, features, query, accept, body, limits)
            try:
                return read()
            except Refused as refused:
                if refused.problem.status != 404:
                    raise
            # From a bucket, maybe.
            return await in_thread(LOOKS, read, self.definitions.store.renames)
        service = await self._service(path.removeprefix(SERVICES))
        if method in ("GET", "HEAD"):
            return entity_request(service, query, accept)
        if method != "POST":
            raise _not_taken(path, method, "GET", "HEAD", "POST")
        body = await body_of(scope, receive, self.limits)
        return service_request(service, query, accept, body, self.limits)

    async def _service(self, name: str) -> Service:
        if AT in name:
            return await self.kept.named(name)
        service = self.definitions.services.get(name)
        if service is None:
            raise unknown("service", name, self.definitions.services)
        return service


def _not_taken(path: str, method: str, *methods: str) -> Refused:
    told = f"{path} takes {' and '.join(filter(None, (', '.join(methods[:-1]), methods[-1])))}, not {method}"
    return Refused(405, "method_not_allowed", told, allow=", ".join(methods))


async def _arrow(answer: OnlineAnswer) -> Reply:
    """The answer as Arrow, made in a thread, as a large one takes its time; served versions are in a header."""
    body = await asyncio.to_thread(arrow_body, answer)
    versions = json.dumps(served(targets_of(answer))).encode()
    return Reply(body, ARROW, headers=((b"mlforge-served", versions),))
