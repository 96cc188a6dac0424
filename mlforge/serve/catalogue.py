"""The routes that tell what there is: the catalogue, a feature, its versions, why a value is what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlforge.build.diff import diff
from mlforge.core.arguments import shown
from mlforge.core.values import Version
from mlforge.definitions.registry import Definitions
from mlforge.errors import StoreError
from mlforge.frames.encoding import json_value
from mlforge.online import OnlineStore, RowRequest
from mlforge.online.steps import answered_async
from mlforge.profiles.document import profile_document
from mlforge.profiles.table import profile_version
from mlforge.registry.catalogue import Registry
from mlforge.registry.entries import document_of
from mlforge.registry.graph import FEATURE, SERVICE, Node
from mlforge.registry.project import known_features
from mlforge.registry.services import service_entry, service_keys
from mlforge.registry.versions import versions_document
from mlforge.retrieval.explain import explain
from mlforge.serve import counters, openapi
from mlforge.serve.counters import Counters
from mlforge.serve.http import root_of
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused, unknown_feature
from mlforge.serve.queries import pairs_of, parted, query_of
from mlforge.serve.threads import LOOKS, in_thread
from mlforge.training_sets.drift import drift

Document: TypeAlias = Mapping[str, Any]
Look: TypeAlias = Callable[[Request], Document]
_SIDE = re.compile(r"\d+\.\d+\.\d+|(?=.*\d)[\d:TZ+-]*(\.\d+Z?)?\.\.[\d:.TZ+-]*")
"""A version, or a range of time."""


@dataclass(frozen=True)
class Catalogue:
    """Documents on what a project has. The offline store blocks, so each is made in a thread."""

    definitions: Definitions
    online: OnlineStore
    limits: Limits
    counters: Counters
    takes_keys: bool = False

    def routes(self) -> list[Route]:
        """The routes by path, the longer ones first."""
        return [
            Route("/healthz", _alive),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", _answering(self._openapi)),
            Route("/v1/catalog", _answering(self._catalogue)),
            Route("/v1/features/{feature}/versions", _answering(self._versions)),
            Route("/v1/features/{feature}/explain", _answering(self._explanation)),
            Route("/v1/features/{feature}/profile", _answering(self._profile)),
            Route("/v1/features/{feature}/diff", _answering(self._diff)),
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
        name, root = self.definitions.name, root_of(request.scope)
        return openapi.document(name, services, self.limits, self.takes_keys, root)

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
        name = self._named(request)
        told, keys = parted(pairs_of(request), ("at", "version"))
        at, version = told.get("at"), _check_version(told.get("version"))
        return explain(name, keys, self.definitions.store, at, version, self.online).to_json()

    def _profile(self, request: Request) -> Document:
        name, store = self._named(request), self.definitions.store
        query = query_of(request, "version", "against")
        manifest = store.resolve(name, _version(query, "version"))
        profile = profile_document(manifest, profile_version(store, manifest))
        against = query.get("against")
        if against is None:
            return profile
        if not _SIDE.fullmatch(against):  # folders of training sets are for those who may read them
            raise Refused(
                422,
                "unfit_request",
                f"against is {shown(against)}; write a version, or a range of time as in 2026-10-01..2026-11-01",
            )
        return {**profile, "drift": drift(store, name, against, str(manifest.version)).to_json()}

    def _diff(self, request: Request) -> Document:
        name, store = self._named(request), self.definitions.store
        query = query_of(request, "a", "b")
        before, after = (_version(query, side) for side in ("a", "b"))
        if before is None:
            raise Refused(
                422,
                "unfit_request",
                "say which versions: ?a=1.0.0, and &b= for another than the served",
            )
        return diff(store, name, before, after or str(store.resolve(name).version)).to_json()

    def _named(self, request: Request) -> str:
        name: str = request.path_params["feature"]
        names = known_features(self.definitions)
        if name not in names:
            raise unknown_feature(name, names, self.definitions.store.renames())
        return name


def _version(query: Mapping[str, str], name: str) -> str | None:
    """A version that the query names; Refused for a text that is none."""
    return _check_version(query.get(name))


def _check_version(text: str | None) -> str | None:
    try:
        return None if text is None else str(Version.parse(text))
    except StoreError as error:
        raise Refused(422, "unfit_request", str(error)) from None


async def _alive(request: Request) -> Response:
    return _json({"alive": True})  # by no thread, which what hangs may keep from it


def _answering(look: Look) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return _json(await in_thread(LOOKS, look, request))

    return answer


def _json(document: Document) -> Response:
    text = json.dumps(document, default=json_value, separators=(",", ":"))
    return Response(text, media_type="application/json")
