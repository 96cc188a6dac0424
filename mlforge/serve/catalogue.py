"""The routes that tell what there is: the catalogue, a feature, its versions, why a value is what it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlforge.core.values import Version
from mlforge.definitions.registry import Definitions
from mlforge.errors import StoreError
from mlforge.frames.encoding import json_value
from mlforge.online import OnlineStore, RowRequest
from mlforge.online.steps import answered_async
from mlforge.registry.catalogue import Registry
from mlforge.registry.entries import document_of
from mlforge.registry.graph import FEATURE, SERVICE, Node
from mlforge.registry.project import known_features
from mlforge.registry.services import service_entry, service_keys
from mlforge.registry.versions import versions_document
from mlforge.retrieval.explain import explain
from mlforge.serve import counters, openapi
from mlforge.serve.counters import Counters
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused
from mlforge.serve.read_request import unknown

Document: TypeAlias = Mapping[str, Any]
Look: TypeAlias = Callable[[Request], Document]


@dataclass(frozen=True)
class Catalogue:
    """Documents on what a project has. The offline store blocks, so each is made in a thread."""

    definitions: Definitions
    online: OnlineStore
    limits: Limits
    counters: Counters

    def routes(self) -> list[Route]:
        """The routes by path, the longer ones first."""
        return [
            Route("/healthz", _answering(_alive)),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", _answering(self._openapi)),
            Route("/v1/catalog", _answering(self._catalogue)),
            Route("/v1/features/{feature}/versions", _answering(self._versions)),
            Route("/v1/features/{feature}/explain", _answering(self._explanation)),
            Route("/v1/features/{feature}", _answering(self._feature)),
        ]

    async def _ready(self, request: Request) -> Response:
        """The served versions; raises OnlineUnavailable where the online store does not answer."""
        names = list(self.definitions.features)
        fetched = await answered_async(self.online.reading([RowRequest(name) for name in names]))
        served = {
            name: books.target.version if books and books.target else None
            for name, (books, _) in zip(names, fetched, strict=True)
        }
        return _json({"ready": True, "served": served})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.counters.text(), media_type=counters.CONTENT_TYPE)

    def _openapi(self, request: Request) -> Document:
        graph = Registry.of(self.definitions).graph
        services = [
            (service_entry(self.definitions, graph, name), service_keys(self.definitions, name))
            for name in self.definitions.services
        ]
        return openapi.document(self.definitions.name, services, self.limits)

    def _catalogue(self, request: Request) -> Document:
        registry = Registry.of(self.definitions)
        entries = [document_of(entry) for entry in registry.entries().values()]
        return {
            "features": [entry for entry in entries if entry["kind"] == FEATURE],
            "services": [entry for entry in entries if entry["kind"] == SERVICE],
        }

    def _feature(self, request: Request) -> Document:
        name = self._named(request)
        return document_of(Registry.of(self.definitions).entry(Node(FEATURE, name)))

    def _versions(self, request: Request) -> Document:
        name, store = self._named(request), self.definitions.store
        return versions_document(store, name, store.summaries(name))

    def _explanation(self, request: Request) -> Document:
        name, keys = self._named(request), dict(request.query_params)
        at, version = keys.pop("at", None), keys.pop("version", None)
        try:
            Version.parse(version or "1.0.0")
        except StoreError as error:
            raise Refused(422, "unfit_request", str(error)) from None
        return explain(name, keys, self.definitions.store, at, version, self.online).to_json()

    def _named(self, request: Request) -> str:
        name: str = request.path_params["feature"]
        names = known_features(self.definitions)
        if name not in names:
            raise unknown("feature", name, dict.fromkeys(names))
        return name


def _alive(request: Request) -> Document:
    return {"alive": True}


def _answering(look: Look) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return _json(await asyncio.to_thread(look, request))

    return answer


def _json(document: Document) -> Response:
    text = json.dumps(document, default=json_value, separators=(",", ":"))
    return Response(text, media_type="application/json")
