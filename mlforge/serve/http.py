"""The edge to ASGI: bodies that come in, answers that go out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from dataclasses import dataclass
from types import coroutine
from typing import Any, TypeAlias, TypeVar

from mlforge.serve.limits import Limits
from mlforge.serve.problems import CONTENT_TYPE, Problem, Refused

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

JSON = "application/json"
T = TypeVar("T")


class Disconnected(Exception):
    """The caller has gone before its request was here."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as HTTP has it."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of_problem(cls, problem: Problem) -> Reply:
        """The answer that tells of a problem."""
        return cls(problem.body, CONTENT_TYPE, problem.status, tuple(problem.headers))


def root_of(scope: Scope) -> str:
    """The path below which a proxy has this server answer, as `/shop`; empty where that is all of its host."""
    root: str = scope.get("app_root_path", "")
    return root


def header(scope: Scope, name: bytes) -> str:
    """A header of the request, empty where there is none; name: in small letters."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def body_of(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The request's body. Raises Refused for one that is too large or too slow, Disconnected where the caller goes."""
    length = header(scope, b"content-length")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    whole = _whole(receive, limits)
    try:
        pause = whole.send(None)
    except StopIteration as end:
        # All of it is here, as of most requests: nothing has to be bounded.
        body: bytes = end.value
        return body
    try:
        async with asyncio.timeout(limits.body_s):
            return await _rest(whole, pause)
    except TimeoutError:
        raise Refused(
            408, "slow_body", f"the body was not here within {limits.body_s:g} seconds"
        ) from None


@coroutine
def _rest(begun: Coroutine[Any, Any, T], pause: Any) -> Generator[Any, Any, T]:
    """The outcome of a coroutine that waits already; pause: the future that it waits for."""
    try:
        while True:
            try:
                answer = yield pause
            except GeneratorExit:
                begun.close()
                raise
            except BaseException as error:  # noqa: BLE001 - such as a cancellation: it is the coroutine's
                pause = begun.throw(error)
            else:
                pause = begun.send(answer)
    except StopIteration as end:
        outcome: T = end.value
        return outcome


async def _whole(receive: Receive, limits: Limits) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, "body_too_large", f"a body has at most {limits.body_bytes:,} bytes; ask several times"
    )


async def respond(send: Send, reply: Reply) -> None:
    """Send an answer whole."""
    headers = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
