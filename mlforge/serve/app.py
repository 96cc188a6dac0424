"""The ASGI application of a project: each request to its route, each fault to a problem."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.routing import Router

from mlforge.core.logs import get_logger
from mlforge.definitions.registry import Definitions
from mlforge.errors import DefinitionError, MlforgeError
from mlforge.registry.live import Live
from mlforge.serve.access.keys import AT_LOOPBACK, Admission
from mlforge.serve.access.keys_file import keys_in
from mlforge.serve.access.origins import check_named_here
from mlforge.serve.catalogue import Catalogue
from mlforge.serve.counters import Counters
from mlforge.serve.events import Events
from mlforge.serve.http import Disconnected, Message, Receive, Reply, Scope, Send, header, respond
from mlforge.serve.incoming.routes import Incoming
from mlforge.serve.limits import Limits
from mlforge.serve.notices import Notices
from mlforge.serve.operations import Operations
from mlforge.serve.page.routes import Page
from mlforge.serve.problems import UNEXPECTED, Problem, problem_of
from mlforge.serve.tracing import Tracing
from mlforge.serve.values.kept_services import KeptServices
from mlforge.serve.values.pass_through import PassThrough
from mlforge.serve.values.reads import Reads
from mlforge.serve.values.served_log import ServedLog

_GONE = 499
"""The status that stands in figures for a request without an answer: its caller has gone."""
_API = "/v1/"
_NOT_KEPT = (b"cache-control", b"no-store")
"""Of answers of the API: what a proxy keeps of one would be another instant's for whoever asks next."""
_NAMED = ("/v1/features/", "/v1/sources/", "/v1/drops/", "/features/", "/services/", "/assets/")
"""Starts of paths that end in a name."""
_log = get_logger(__name__)


class App:
    """An ASGI application that answers from the definitions' online store, and tells what their store holds.

    keys: the file of API keys; without it nobody needs one. live: what workers do; None where there are none. at_loopback: whether it is reached at loopback addresses alone:
    without keys, this machine may then send rows, and requests that name another host are refused. tracing: spans of the requests whose callers trace them; None makes none. Raises DefinitionError for definitions without an online store, and for a file of keys that is not understood.
    """

    def __init__(
        self,
        definitions: Definitions,
        limits: Limits | None = None,
        keys: Path | None = None,
        live: Live | None = None,
        at_loopback: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        store, limits = definitions.online_store, limits or Limits()
        if store is None:
            raise DefinitionError(
                "there is no online store to serve from: give Definitions(online_store=RedisStore(...)), set "
                "REDIS_URL, or start 'mlforge up'"
            )
        self.definitions, self.store, self.counters = definitions, store, Counters()
        self._admission = None if keys is None else Admission(keys_in(keys, definitions.services))
        self._at_loopback, self._tracing, self._live = at_loopback, tracing, live
        self._served = ServedLog(definitions)
        passing = PassThrough(store, self._served)
        kept = KeptServices(definitions)
        self._reads = Reads(definitions, store, limits, kept, self._served, passing)
        catalogue = Catalogue(definitions, store, limits, self.counters, keys is not None)
        operations = Operations(definitions, live)
        self._events, self._incoming = Events(live), Incoming(definitions, store, limits)
        self._page = Page(definitions, store, operations, live, self._admission)
        routes = [
            *catalogue.routes(),
            *operations.routes(),
            *self._events.routes(),
            *self._incoming.routes(),
            *Notices(live, limits).routes(),
            *self._page.routes(),
        ]
        self._router = Router(routes, redirect_slashes=False)

    def end(self) -> None:
        """End what would not end by itself, or not soon: streams of events, and waiting for drops."""
        self._events.end()
        self._incoming.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or follow the server's start and end."""
        if scope["type"] == "http":
            if self._tracing is None:
                await self._http(scope, receive, send)
                return
            with self._tracing.span(scope) as span:
                span.end(*await self._http(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> tuple[str, int]:
        """Answer a request; its route for figures, and the status."""
        began, status = time.perf_counter(), _GONE
        scope = _below_root(scope)
        scope[AT_LOOPBACK] = self._at_loopback
        self.counters.in_flight += 1

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
                if scope["path"].startswith(_API) and _NOT_KEPT not in headers:
                    message["headers"] = [*headers, _NOT_KEPT]
            await send(message)

        try:
            if self._admission is not None:
                await self._admission.check(scope)
            elif self._at_loopback:
                check_named_here(scope)
            if self._reads.takes(scope):
                await respond(sent, await self._reads.reply(scope, receive))
            else:
                scope["app"] = self  # so that the router raises what it has no answer to
                await self._router(scope, receive, sent)
        except Disconnected:
            pass
        except Exception as error:  # noqa: BLE001 - a fault of one request ends that request alone
            if status == _GONE:
                await respond(sent, self._told(_problem(error, scope), scope))
        finally:
            self.counters.in_flight -= 1
            route = self._route(scope, status)
            self.counters.count(route, status, time.perf_counter() - began)
        return route, status

    def _told(self, problem: Problem, scope: Scope) -> Reply:
        """A problem as a program is told of it, or a person with a browser."""
        if scope["path"].startswith(_API) or "text/html" not in header(scope, b"accept"):
            return Reply.of_problem(problem)
        return self._page.problem(problem, scope)

    def _route(self, scope: Scope, status: int) -> str:
        """The request's route for figures: its path where that is one of a few."""
        path: str = scope["path"]
        if status in (401, 403, 404, 421, 429):  # maybe of no route at all
            return "refused" if status != 404 else "unknown"
        return next((f"{start}{{name}}" for start in _NAMED if path.startswith(start)), path)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await asyncio.to_thread(self._served.begin)
            await send({"type": f"{message['type']}.complete"})
        await self._served.end()
        await self.store.aclose()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.end)
        if self._live is not None:
            await asyncio.to_thread(self._live.close)
        await asyncio.to_thread(self.definitions.close)
        await send({"type": "lifespan.shutdown.complete"})


def _below_root(scope: Scope) -> Scope:
    """The request as it is below the path that the application is mounted at (`--root-path`)."""
    root, path = scope.get("root_path", ""), scope["path"]
    if not root or not path.startswith(f"{root}/"):
        return scope
    own = {"path": path.removeprefix(root), "root_path": "", "app_root_path": root}
    return {**scope, **own}


def _problem(error: Exception, scope: Scope) -> Problem:
    """The problem that stands for an error; one that is not the library's own is logged."""
    if isinstance(error, MlforgeError):
        return problem_of(error)
    method, path = scope["method"], scope["path"]
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        further = ((b"allow", allowed.encode()),)
        return Problem(405, "method_not_allowed", f"{path} does not take {method}", further)
    if isinstance(error, HTTPException):
        return Problem(404, "unknown_path", f"there is no {path}; /openapi.json says what there is")
    _log.error("a request failed", method=method, path=path, exc_info=error)
    return UNEXPECTED
