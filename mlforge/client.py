"""Clients of an HTTP server of mlforge: `Client` for programs that wait, `AsyncClient` for such that await. Need the extra `client`."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Self, TypeAlias
from urllib.parse import quote
from uuid import uuid4

from mlforge.core.arguments import shown
from mlforge.core.certificates import show, trust
from mlforge.errors import DefinitionError, MissingExtra, MlforgeError, OnlineUnavailable

try:
    import httpx
except ModuleNotFoundError as error:
    raise MissingExtra.of("mlforge.client", "client") from error

Row: TypeAlias = Mapping[str, Any]
Verify: TypeAlias = bool | str | Path | ssl.SSLContext
Certificate: TypeAlias = tuple[str | Path, str | Path]
TIMEOUT_S = 30.0
_ATTEMPTS = 3
_WAIT_S = 60.0


class ServerRefused(MlforgeError):
    """An answer of the server that is a problem: `status` of HTTP, and `reason`, a word such as `not_served`."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class Answer:
    """Values from the server: a row for each entity in order, as JSON has values.

    rows: keys, request columns, `<feature>__<column>`, derived columns. served: version and `as_of` by feature. details: by column for each row, if they
    were asked for.
    """

    rows: list[dict[str, Any]]
    served: dict[str, dict[str, Any]]
    details: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drop:
    """Rows that the server has on its disk. url: where it tells how far they have come."""

    name: str
    source: str
    url: str


@dataclass(frozen=True, slots=True)
class _Call:
    """A request as HTTP has it: one that may be sent again where no answer came."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of httpx's `request`."""
        content = None if self.body is None else json.dumps(self.body, default=_json).encode()
        headers = {"content-type": "application/json", **self.headers}
        return {
            "method": self.method,
            "url": self.path,
            "params": self.query,
            "headers": headers,
            "content": content,
        }


def _json(value: object) -> str:
    """A value that JSON lacks as the server takes it: instants and dates in ISO 8601, Decimals as strings."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON does not have")


def _read(path: str, body: Mapping[str, Any]) -> _Call:
    told = {name: value for name, value in body.items() if value is not None and value is not False}
    return _Call("POST", path, told, {"layout": "flat"})


def _service(
    name: str, entities: Sequence[Row], request: Sequence[Row] | None, **options: Any
) -> _Call:
    body = {"entities": list(entities), "request": request, **options}
    return _read(f"/v1/services/{quote(name)}", body)


def _features(features: Sequence[str | Row], entities: Sequence[Row], **options: Any) -> _Call:
    body = {"features": list(features), "entities": list(entities), **options}
    return _read("/v1/features", body)


def _send(source: str, rows: Sequence[Row]) -> _Call:
    once = {"idempotency-key": uuid4().hex}  # the same rows sent again count once
    return _Call("POST", f"/v1/sources/{quote(source)}", list(rows), headers=once)


def _state(drop: Drop, wait_s: float) -> _Call:
    return _Call("GET", drop.url, query={"wait": min(wait_s, _WAIT_S)})


def _answer(document: Any) -> Answer:
    rows, served = _fields(document, rows=list, served=dict)
    return Answer(rows, served, document.get("details", []))


def _drop(document: Any) -> Drop:
    return Drop(*_fields(document, drop=str, source=str, url=str))


def _object(document: Any) -> dict[str, Any]:
    _fields(document)
    return dict(document)


def _fields(document: Any, **kinds: type) -> list[Any]:
    """Fields of an answer, of these types; ServerRefused where one is missing or of another, as in another server's answer."""
    if not isinstance(document, dict):
        raise ServerRefused(200, "unknown", "the answer is no object, and no answer of mlforge")
    for name, kind in kinds.items():
        if not isinstance(document.get(name), kind):
            raise ServerRefused(
                200, "unknown", f"the answer has no {name!r}, as an answer of mlforge has"
            )
    return [document[name] for name in kinds]


def _document(response: httpx.Response) -> Any:
    """The JSON of an answer; raises ServerRefused for a problem, and for what is no answer of this server."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.is_success and document is not None:
        return document
    problem = document if isinstance(document, dict) else {}
    reason = str(problem.get("reason", "unknown"))
    detail = str(
        problem.get(
            "detail", f"HTTP {response.status_code} from {response.url}, and no answer of mlforge"
        )
    )
    raise ServerRefused(response.status_code, reason, detail)


def _server(url: object) -> str:
    """The URL of a server, without a slash at its end; DefinitionError for what is none."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise DefinitionError(
            f"{shown(url)} is no URL of a server; write it with its scheme, as in 'http://localhost:8750'"
        )
    return url.rstrip("/")


def _options(
    key: object, verify: object, cert: object, further: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of httpx's clients; DefinitionError for no key, and for files of certificates that do not serve."""
    if key is not None and (not isinstance(key, str) or not key.strip()):
        raise DefinitionError(
            "key is no API key; is a variable of the environment unset? Leave it out for a server without keys"
        )
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return {
        "headers": headers,
        "timeout": TIMEOUT_S + _WAIT_S,
        "follow_redirects": False,
        "verify": _tls(verify, cert),
        **further,
    }


def _tls(verify: object, cert: object) -> bool | ssl.SSLContext:
    """Whom to trust, and what to show, as httpx takes it."""
    if not isinstance(verify, bool | str | Path | ssl.SSLContext):
        raise DefinitionError(
            f"verify is {shown(verify)}; name a file of authorities in PEM, or write True or False"
        )
    if cert is not None and (not isinstance(cert, tuple | list) or len(cert) != 2):
        raise DefinitionError(
            f'cert is {shown(cert)}; name two files in PEM: cert=("app.crt", "app.key")'
        )
    if isinstance(verify, str | Path):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust(context, verify)
        verify = context
    if cert is not None:
        context = httpx.create_ssl_context(verify) if isinstance(verify, bool) else verify
        show(context, *cert)
        verify = context
    return verify


def _away(url: str, error: Exception) -> OnlineUnavailable:
    return OnlineUnavailable(f"no answer from {url}: {str(error) or type(error).__name__}")


class Client:
    """A client whose calls wait. url: of the server. key: an API key. Close it, or use it in a `with` block.

    Over TLS, verify: a file of the authorities (PEM) that may vouch for the server, True for those of `certifi`, False for anybody; cert: the files of a certificate and its key
    to show to a server that asks for one.
    Calls raise ServerRefused for a problem, OnlineUnavailable where no answer comes; each is tried three times, and rows that are sent again count once.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        verify: Verify = True,
        cert: Certificate | None = None,
        **httpx_options: Any,
    ) -> None:
        self._url = _server(url)
        options = _options(key, verify, cert, httpx_options)
        self._http = httpx.Client(base_url=self._url, **options)

    def service(
        self,
        name: str,
        entities: Sequence[Row],
        request: Sequence[Row] | None = None,
        max_age: str | None = None,
        at: str | None = None,
        details: bool = False,
    ) -> Answer:
        """Current values of a service for entities, as `get_online_features` gives them."""
        return _answer(
            self._ask(_service(name, entities, request, max_age=max_age, at=at, details=details))
        )

    def features(
        self,
        features: Sequence[str | Row],
        entities: Sequence[Row],
        max_age: str | None = None,
        at: str | None = None,
        details: bool = False,
    ) -> Answer:
        """Current values of features by name, `name@version`, or an object with columns, prefix and keys."""
        return _answer(
            self._ask(_features(features, entities, max_age=max_age, at=at, details=details))
        )

    def send(self, source: str, rows: Sequence[Row]) -> Drop:
        """Send rows to a source; they are on the server's disk once this returns, and count once however often they were sent."""
        return _drop(self._ask(_send(source, rows)))

    def wait(self, drop: Drop, wait_s: float = _WAIT_S) -> dict[str, Any]:
        """How far a drop has come in each feature, after at most so many seconds (60 at the most) until it is done."""
        return _object(self._ask(_state(drop, wait_s)))

    def catalog(self) -> dict[str, Any]:
        """All features and services."""
        return _object(self._ask(_Call("GET", "/v1/catalog")))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: _Call) -> Any:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = self._http.request(**call.options)
            except httpx.HTTPError as error:
                if attempt == _ATTEMPTS:
                    raise _away(self._url, error) from error
            else:
                return _document(response)
        raise AssertionError("the last attempt returns or raises")


class AsyncClient:
    """`Client` whose calls are awaited; close it with `await client.aclose()`, or use it in an `async with` block."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        verify: Verify = True,
        cert: Certificate | None = None,
        **httpx_options: Any,
    ) -> None:
        self._url = _server(url)
        options = _options(key, verify, cert, httpx_options)
        self._http = httpx.AsyncClient(base_url=self._url, **options)

    async def service(
        self,
        name: str,
        entities: Sequence[Row],
        request: Sequence[Row] | None = None,
        max_age: str | None = None,
        at: str | None = None,
        details: bool = False,
    ) -> Answer:
        """As `Client.service`."""
        call = _service(name, entities, request, max_age=max_age, at=at, details=details)
        return _answer(await self._ask(call))

    async def features(
        self,
        features: Sequence[str | Row],
        entities: Sequence[Row],
        max_age: str | None = None,
        at: str | None = None,
        details: bool = False,
    ) -> Answer:
        """As `Client.features`."""
        call = _features(features, entities, max_age=max_age, at=at, details=details)
        return _answer(await self._ask(call))

    async def send(self, source: str, rows: Sequence[Row]) -> Drop:
        """As `Client.send`."""
        return _drop(await self._ask(_send(source, rows)))

    async def wait(self, drop: Drop, wait_s: float = _WAIT_S) -> dict[str, Any]:
        """As `Client.wait`."""
        return _object(await self._ask(_state(drop, wait_s)))

    async def catalog(self) -> dict[str, Any]:
        """As `Client.catalog`."""
        return _object(await self._ask(_Call("GET", "/v1/catalog")))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self, call: _Call) -> Any:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = await self._http.request(**call.options)
            except httpx.HTTPError as error:
                if attempt == _ATTEMPTS:
                    raise _away(self._url, error) from error
            else:
                return _document(response)
        raise AssertionError("the last attempt returns or raises")
