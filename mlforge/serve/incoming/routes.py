"""`POST /v1/sources/{source}`: rows become a drop, and `/v1/drops/{source}/{drop}` says how far it has come."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

import polars as pl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlforge.definitions.registry import Definitions
from mlforge.online import OnlineStore
from mlforge.serve.access.keys import check_writes, holder_of
from mlforge.serve.http import body_of, root_of
from mlforge.serve.incoming import rows
from mlforge.serve.incoming.arrival import arrival
from mlforge.serve.incoming.gather import Gatherer, new_name
from mlforge.serve.incoming.places import NAME, Folder, Schemas, folders
from mlforge.serve.incoming.room import Room
from mlforge.serve.incoming.writing import holds, parquet_of, write_bytes
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused, unknown
from mlforge.serve.queries import query_of
from mlforge.serve.threads import LOOKS, in_thread
from mlforge.serve.values.read_request import ARROW
from mlforge.sources.damage import UNDECODABLE
from mlforge.sources.parquet_reader import fault_of

SOURCES, DROPS = "/v1/sources", "/v1/drops"
PARQUET = "application/vnd.apache.parquet"
_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
_JSON = "application/json"
_TAKEN = (*_LINES, _JSON, ARROW, PARQUET)
WAIT_S = 60.0
"""The longest that a request waits for a drop."""
_SOONEST_S, _LATEST_S = 0.1, 1.0
"""How soon a request that waits looks again, at first and after some seconds."""
_KEY_LENGTH = 200
Frame = Callable[[bytes, Folder], pl.DataFrame]


class Incoming:
    """Rows that are sent to a project's sources. Folders are those of the definitions; only keys that name one write into it."""

    def __init__(self, definitions: Definitions, online: OnlineStore, limits: Limits) -> None:
        self._definitions, self._online = definitions, online
        self._limits = replace(limits, body_bytes=limits.drop_bytes)
        self._room = Room(limits.uploads_bytes)
        self._schemas = Schemas(definitions)
        self._threads = ThreadPoolExecutor(4, "mlforge-incoming")
        self._gatherer, self._ended = Gatherer(self._threads), False
        self._at_work: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    def end(self) -> None:
        """End all waiting for drops: the answer is how far they have come."""
        self._ended = True

    def routes(self) -> list[Route]:
        """The routes of the API."""
        return [
            Route(SOURCES, self._list),
            Route(f"{SOURCES}/{{source:path}}", self._take, methods=["POST"]),
            Route(f"{DROPS}/{{source:path}}/{{drop}}", self._follow),
        ]

    @cached_property
    def _folders(self) -> Mapping[str, Folder]:
        return folders(self._definitions)

    async def _list(self, request: Request) -> Response:
        known = self._folders.values()
        return JSONResponse({"sources": [{"name": f.name, "features": f.readers} for f in known]})

    async def _take(self, request: Request) -> Response:
        answer = await self._taken(request)
        answer.headers["location"] = root_of(request.scope) + answer.headers["location"]
        return answer

    async def _taken(self, request: Request) -> Response:
        folder, kind = self._folder(request), _kind(request)
        holder = holder_of(request.scope)
        sender = holder.name if holder else None
        key = request.headers.get("idempotency-key")
        once = None if key is None else _name_of(key, sender, folder)
        with self._room.counted(request.receive) as receive:
            body = await body_of(request.scope, receive, self._limits)
            if once is not None:
                return await self._once(folder, once, kind, body)
            if kind == PARQUET:
                return await self._whole(folder, new_name(), body)
            frame = await self._in_thread(self._frame, kind, body, folder)
            name = await self._gatherer.put(folder, frame, sender)
            return _taken(folder, name, frame.height)

    async def _once(self, folder: Folder, name: str, kind: str, body: bytes) -> Response:
        """The answer to a request that has a key of its own, whichever time it is sent."""
        file = folder.file(name)
        async with self._at_work.setdefault(file, asyncio.Lock()):
            if await self._in_thread(holds, file, body):
                return _taken(folder, name)  # the same request again: its answer was lost
            if kind == PARQUET:
                return await self._whole(folder, name, body, request=body)
            frame = await self._in_thread(self._frame, kind, body, folder)
            await self._gatherer.write(
                folder, name, lambda file: write_bytes(file, parquet_of(frame, body), request=body)
            )
            return _taken(folder, name, frame.height)

    async def _whole(
        self, folder: Folder, name: str, body: bytes, request: bytes | None = None
    ) -> Response:
        """The answer to a parquet file, which is written as it is; request: as `write_bytes` has it."""
        await self._in_thread(_check_parquet, body)
        await self._gatherer.write(folder, name, lambda file: write_bytes(file, body, request))
        return _taken(folder, name)

    def _frame(self, kind: str, body: bytes, folder: Folder) -> pl.DataFrame:
        columns = self._schemas.of(folder)
        if kind == ARROW:
            frame = rows.frame_of_arrow(body, columns.needed)
            count = frame.height
        else:
            most = self._limits.rows
            objects = rows.rows_of_json(body) if kind == _JSON else rows.rows_of_lines(body, most)
            count = len(objects)
            if 0 < count <= self._limits.rows:
                frame = rows.frame_of(objects, columns.dtypes, columns.needed, columns.usual)
        if count == 0:
            raise Refused(422, "no_rows", "the body holds no row")
        if kind != ARROW and count > self._limits.rows:
            raise Refused(
                422,
                "too_many_rows",
                f"a request has at most {self._limits.rows:,} rows of JSON; send Arrow or parquet for more",
            )
        return frame

    async def _follow(self, request: Request) -> Response:
        folder, drop = self._folder(request), request.path_params["drop"]
        wait = _wait(query_of(request, "wait"))
        if not NAME.fullmatch(drop):
            raise Refused(
                404, "unknown_drop", f"no drop of this name was ever made in {folder.name}"
            )
        began = time.monotonic()
        while True:
            document = await in_thread(LOOKS, self._arrival, folder, drop)
            waited = time.monotonic() - began
            is_over = document["done"] or waited >= wait or self._ended
            if is_over or await request.is_disconnected():
                return JSONResponse(document)
            await asyncio.sleep(min(max(waited / 10, _SOONEST_S), _LATEST_S))

    def _arrival(self, folder: Folder, drop: str) -> dict[str, Any]:
        document = arrival(self._definitions, self._online, folder, drop)
        states = {state["state"] for state in document["features"].values()}
        if states <= {"waiting", "held"} and not folder.file(drop).exists():
            raise Refused(404, "unknown_drop", f"{folder.name} has no drop {drop}")
        return document

    def _folder(self, request: Request) -> Folder:
        """The folder that a path names, where the caller's key may write."""
        name = request.path_params["source"]
        check_writes(request.scope, name)
        if name not in self._folders:
            raise unknown("source", name, self._folders)
        return self._folders[name]

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _taken(folder: Folder, drop: str, count: int | None = None) -> Response:
    url = f"{DROPS}/{quote(folder.name)}/{drop}"
    document: dict[str, Any] = {"drop": drop, "source": folder.name, "url": url}
    if count is not None:
        document |= {"rows": count}
    return JSONResponse(document, 202, {"location": url})


def _kind(request: Request) -> str:
    """The form of the rows; Refused for one that is not taken, among them all that a page of another site can send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TAKEN:
        raise Refused(415, "unknown_type", f"Content-Type is one of {', '.join(_TAKEN)}")
    return kind


def _name_of(key: str, sender: str | None, folder: Folder) -> str:
    """The name of the drop that a sender's own key stands for in a folder: others may use the same key for rows of theirs."""
    if not 0 < len(key) <= _KEY_LENGTH:
        raise Refused(422, "unfit_request", f"Idempotency-Key has 1 to {_KEY_LENGTH} characters")
    about = json.dumps([sender, folder.name, key])
    return f"http-{sha256(about.encode()).hexdigest()}"


def _wait(query: Mapping[str, str]) -> float:
    text = query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_S:
        raise Refused(422, "unfit_request", f"wait is a number of seconds from 0 to {WAIT_S:g}")
    return seconds


def _check_parquet(body: bytes) -> None:
    """Refused for bytes that are no whole parquet file; what it holds is for the build to judge, as of any drop."""
    with suppress(*UNDECODABLE):
        pl.read_parquet_schema(io.BytesIO(body))
        if fault_of(body) is None:
            return
    raise Refused(400, "not_parquet", "the body is no whole parquet file")
