"""A bare ASGI application that answers with rows as they are stored, without any promise: the floor of measure 15."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from redis.asyncio import Redis

_NAMES = ("first", "second", "third")
_redis = Redis.from_url(os.environ["REDIS_URL"])


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer a POST of entities with the JSON of their rows, joined as text."""
    assert scope["type"] == "http"
    entities = json.loads((await receive())["body"])["entities"]
    keys = [f"plain:{name}:{entity['user_id']}" for name in _NAMES for entity in entities]
    texts = await _redis.mget(keys)
    size = len(entities)
    lists = [b",".join(texts[at : at + size]) for at in range(0, len(texts), size)]
    parts = [
        b'"%b":[%b]' % (name.encode(), joined) for name, joined in zip(_NAMES, lists, strict=True)
    ]
    body = b'{"features":{%b}}' % b",".join(parts)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    config = uvicorn.Config(app, access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
