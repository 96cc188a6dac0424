"""The routes of the page: each reads in a thread what it shows, and renders it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlforge.definitions.registry import Definitions
from mlforge.errors import MlforgeError, StoreUnavailable
from mlforge.online import OnlineStore
from mlforge.registry.catalogue import Registry
from mlforge.registry.entries import FeatureEntry, ServiceEntry
from mlforge.registry.graph import FEATURE, SERVICE, Node
from mlforge.registry.live import Live
from mlforge.registry.project import known_features
from mlforge.serve.access.keys import (
    ASSETS,
    COOKIE,
    Admission,
    check_operates,
    cookie_of,
    holder_of,
)
from mlforge.serve.access.origins import own_page
from mlforge.serve.http import Reply, Scope, body_of, header, root_of
from mlforge.serve.limits import Limits
from mlforge.serve.operations import Operations
from mlforge.serve.page import feature as features
from mlforge.serve.page import home
from mlforge.serve.page.project import ProjectView
from mlforge.serve.page.rendering import HEADERS, HERE, render
from mlforge.serve.page.service import service_page
from mlforge.serve.page.unread import unread_page
from mlforge.serve.problems import Problem, Refused, problem_of, unknown, unknown_feature
from mlforge.serve.queries import each_once
from mlforge.serve.threads import DEEDS, LOOKS, in_thread

_HTML = "text/html; charset=utf-8"
_KINDS = {
    "page.css": "text/css; charset=utf-8",
    "follow.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_MOVED = "moved"
"""The event by which the catalogue of an open page is read again."""
_FORM = Limits(body_bytes=16_384)
Look = Callable[[Request], str | None]


class Page:
    """The page of a project, on the functions that the API answers from."""

    def __init__(
        self,
        definitions: Definitions,
        online: OnlineStore,
        operations: Operations,
        live: Live | None,
        admission: Admission | None,
    ) -> None:
        self._view = ProjectView(definitions, online, live)
        self._operations, self._admission = operations, admission

    def routes(self) -> list[Route]:
        """The routes by path."""
        return [
            Route("/", _answering(self._home)),
            Route("/now", _answering(self._now, {"hx-trigger": _MOVED})),
            Route("/catalogue", _answering(self._catalogue)),
            Route("/features/{feature}/columns", _answering(self._columns)),
            Route("/features/{feature}/why", _answering(self._why)),
            Route("/features/{feature}/{deed}", self._deed, methods=["POST"]),
            Route("/features/{feature}", _answering(self._of(FEATURE, self._feature))),
            Route("/services/{service}", _answering(self._of(SERVICE, self._service))),
            Route("/key", self._key, methods=["GET", "POST"]),
            Route(f"{ASSETS}{{name}}", _asset),
        ]

    def problem(self, problem: Problem, scope: Scope) -> Reply:
        """A problem as a page: what failed, and what would work."""
        if problem.status == 401:
            text = self._render("key.html", scope, said="", back=_here(scope))
        else:
            text = self._render("problem.html", scope, problem=problem)
        headers = [(name.encode(), value.encode()) for name, value in HEADERS]
        return Reply(text.encode(), _HTML, problem.status, (*headers, *problem.headers))

    def _render(self, template: str, scope: Scope, **values: object) -> str:
        key = holder_of(scope)
        return render(
            template,
            root=root_of(scope),
            project=self._view.name,
            holder=key.name if key else None,
            operates=key is not None and key.operates,
            takes_keys=self._admission is not None,
            **values,
        )

    def _home(self, request: Request) -> str:
        text = request.query_params.get("q", "")
        return self._render(
            "home.html",
            request.scope,
            now=home.now(self._view, None),
            catalogue=home.catalogue(self._view, text),
        )

    def _now(self, request: Request) -> str | None:
        seen = request.query_params.get("seen", "")
        now = home.now(self._view, seen)
        if now.token == seen:
            return None
        self._view.forget_entries()
        return self._render("now.html", request.scope, now=now)

    def _catalogue(self, request: Request) -> str:
        text = request.query_params.get("q", "")
        return self._render(
            "catalogue.html", request.scope, catalogue=home.catalogue(self._view, text)
        )

    def _of(self, kind: str, look: Look) -> Look:
        """The look at a feature or a service, with what is known of it all the same where the store cannot be read."""

        def looked(request: Request) -> str | None:
            try:
                return look(request)
            except StoreUnavailable as error:
                node = Node(kind, request.path_params[kind])
                page = unread_page(self._view, node, str(error))
                if page is None:
                    raise
                return self._render("unread.html", request.scope, page=page)

        return looked

    def _feature(self, request: Request) -> str:
        registry, query = self._view.registry(), request.query_params
        entry = self._entry(request, registry)
        against = self._against(entry, query.get("against"))
        drawn = features.columns(self._view, entry, against) if "against" in query else None
        return self._render(
            "feature.html",
            request.scope,
            page=features.feature_page(self._view, entry, registry.graph),
            columns=drawn,
            why=features.explained(self._view, entry, query),
        )

    def _columns(self, request: Request) -> str:
        entry = self._entry(request, self._view.registry())
        against = self._against(entry, request.query_params.get("against"))
        drawn = features.columns(self._view, entry, against)
        return self._render("columns.html", request.scope, columns=drawn)

    def _why(self, request: Request) -> str:
        entry = self._entry(request, self._view.registry())
        why = features.explained(self._view, entry, request.query_params)
        return self._render("why.html", request.scope, why=why)

    def _service(self, request: Request) -> str:
        name, registry = request.path_params["service"], self._view.registry()
        if name not in self._view.definitions.services:
            raise unknown("service", name, self._view.definitions.services)
        entry = registry.entry(Node(SERVICE, name))
        assert isinstance(entry, ServiceEntry)
        page = service_page(self._view, entry, registry.graph)
        base = str(request.base_url).rstrip("/")
        return self._render("service.html", request.scope, page=page, base=base)

    def _entry(self, request: Request, registry: Registry) -> FeatureEntry:
        name = request.path_params["feature"]
        if name not in (names := known_features(self._view.definitions)):
            raise unknown_feature(name, names, self._view.definitions.store.renames())
        entry = registry.entry(Node(FEATURE, name))
        assert isinstance(entry, FeatureEntry)
        return entry

    def _against(self, entry: FeatureEntry, version: str | None) -> str | None:
        """The version to compare with; None for none. Raises Refused for one that there is not."""
        if version and version not in entry.versions:
            raise unknown("version", version, dict.fromkeys(entry.versions))
        return version or None

    async def _deed(self, request: Request) -> Response:
        _check_origin(request.scope)
        check_operates(request.scope)
        form = await _form(request)
        name, deed = request.path_params["feature"], request.path_params["deed"]
        if deed not in ("approve", "rollback", "retry"):
            raise Refused(404, "unknown_path", f"there is no {request.url.path}")
        try:
            done = await in_thread(DEEDS, self._operations.do, deed, name, form)
            said, is_done = done.sentence, True
        except MlforgeError as error:
            said, is_done = problem_of(error).detail, False
        self._view.forget()
        template = "said.html" if header(request.scope, b"hx-request") else "done.html"
        text = self._render(template, request.scope, said=said, is_done=is_done, feature=name)
        return _html(text)

    async def _key(self, request: Request) -> Response:
        if request.method == "GET":
            back = request.query_params.get("back", "/")
            return _html(self._render("key.html", request.scope, said="", back=_inside(back)))
        _check_origin(request.scope)
        form = await _form(request)
        key, back = form.get("key", "").strip(), _inside(form.get("back", "/"))
        if "forget" in form:
            return _to(request.scope, "/key", f"{COOKIE}=", "; Max-Age=0")
        if self._admission is None or self._admission.holder(key.encode()) is None:
            said = "This server knows no such key."
            return _html(self._render("key.html", request.scope, said=said, back=back), 401)
        secure = "; Secure" if request.scope.get("scheme") == "https" else ""
        return _to(request.scope, back, f"{COOKIE}={cookie_of(key)}", secure)


def _answering(
    look: Look, headers: Mapping[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The route of what is looked up in a thread; 204 where there is nothing new."""

    async def answer(request: Request) -> Response:
        text = await in_thread(LOOKS, look, request)
        if text is None:
            return Response(status_code=204, headers=dict(HEADERS))
        return _html(text, headers=headers or {})

    return answer


def _to(scope: Scope, path: str, cookie: str, more: str) -> Response:
    """An answer that sends a browser to another page here, with a cookie of this server's pages alone. more: further attributes of it."""
    root = root_of(scope)
    kept = f"{cookie}; Path={root}/; HttpOnly; SameSite=Strict{more}"
    headers = {**dict(HEADERS), "location": f"{root}{path}", "set-cookie": kept}
    return Response(status_code=303, headers=headers)


def _html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text, status, {**dict(HEADERS), **(headers or {})}, _HTML)


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _KINDS:
        raise Refused(404, "unknown_path", f"there is no {request.url.path}")
    headers = dict(HEADERS) | {"cache-control": "public, max-age=300"}
    return Response(_content(name), 200, headers, _KINDS[name])


@cache
def _content(name: str) -> bytes:
    return (HERE / "assets" / name).read_bytes()


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form that a browser sends."""
    body = await body_of(request.scope, request.receive, _FORM)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Refused(400, "unfit_form", f"the form is not text in UTF-8: {error}") from None
    return each_once(fields, "form")


def _check_origin(scope: Scope) -> None:
    """Raise Refused for a form that a page of another origin sends; SameSite=Strict keeps the cookie from other sites."""
    if not own_page(scope):
        raise Refused(
            403,
            "other_origin",
            "this form was not sent by a page of this server; open the page here",
        )


def _here(scope: Scope) -> str:
    """The path that was asked for, to come back to it; the first page for a form."""
    return quote(scope["path"]) if scope["method"] == "GET" else "/"


def _inside(path: str) -> str:
    """A path of this server; the first page for an address of another."""
    try:
        parts = urlsplit(path)
    except ValueError:  # no address at all
        return "/"
    is_path = not parts.scheme and not parts.netloc and path.startswith("/")
    return quote(parts.path) if is_path and "\\" not in path and not path.startswith("//") else "/"
