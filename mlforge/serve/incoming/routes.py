"""`POST /v1/sources/{source}`: rows become a drop, and `/v1/drops/{source}/{drop}` says how far it has come."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import polars as pl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlforge.definitions.registry import Definitions
from mlforge.online import OnlineStore
from mlforge.serve.http import body_of
from mlforge.serve.incoming import rows
from mlforge.serve.incoming.arrival import arrival
from mlforge.serve.incoming.gather import Gatherer, new_name
from mlforge.serve.incoming.places import NAME, Folder, Schemas, folders
from mlforge.serve.incoming.writing import write_bytes, write_frame
from mlforge.serve.keys import check_writes
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused
from mlforge.serve.read_request import ARROW, unknown

SOURCES, DROPS = "/v1/sources", "/v1/drops"
PARQUET = "application/vnd.apache.parquet"
_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
_JSON = "application/json"
_TAKEN = (*_LINES, _JSON, ARROW, PARQUET)
WAIT_S = 60.0
"""The longest that a request waits for a drop."""
_LOOK_EVERY_S = 0.1
_KEY_LENGTH = 200
Frame = Callable[[bytes, Folder], pl.DataFrame]


class Incoming:
    """Rows that are sent to a project's sources. Folders are those of the definitions; only keys that name one write into it."""

    def __init__(self, definitions: Definitions, online: OnlineStore, limits: Limits) -> None:
        self._definitions, self._online = definitions, online
        self._limits = replace(limits, body_bytes=limits.drop_bytes)
        self._schemas = Schemas(definitions)
        self._threads = ThreadPoolExecutor(4, "mlforge-incoming")
        self._gatherer = Gatherer(self._threads)

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
        folder = self._folder(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _TAKEN:  # a page of another site cannot send one of these
            raise Refused(415, "unknown_type", f"Content-Type is one of {', '.join(_TAKEN)}")
        once = request.headers.get("idempotency-key")
        name = new_name() if once is None else _name_of(once)
        body = await body_of(request.scope, request.receive, self._limits)
        if once is not None and await self._in_thread(folder.file(name).exists):
            return _taken(folder, name)  # the same request again: its answer was lost
        if kind == PARQUET:
            await self._in_thread(_check_parquet, body)
            await self._gatherer.write(folder, name, lambda file: write_bytes(file, body))
            return _taken(folder, name)
        frame = await self._in_thread(self._frame, kind, body, folder)
        if once is None:
            name = await self._gatherer.put(folder, frame)
        else:
            await self._gatherer.write(folder, name, lambda file: write_frame(file, frame))
        return _taken(folder, name, frame.height)

    def _frame(self, kind: str, body: bytes, folder: Folder) -> pl.DataFrame:
        dtypes = self._schemas.of(folder)
        needed = self._schemas.needed(folder, dtypes)
        if kind == ARROW:
            frame = rows.frame_of_arrow(body, needed)
            count = frame.height
        else:
            objects = rows.rows_of_json(body) if kind == _JSON else rows.rows_of_lines(body)
            count = len(objects)
            if 0 < count <= self._limits.rows:
                frame = rows.frame_of(objects, dtypes, needed)
        if count == 0:
            raise Refused(422, "no_rows", "the body holds no row")
        if kind != ARROW and count > self._limits.rows:
            raise Refused(
                422,
                "too_many_rows",
                f"{count:,} rows of JSON; a request has at most {self._limits.rows:,}, send Arrow or parquet for more",
            )
        return frame

    async def _follow(self, request: Request) -> Response:
        folder, drop = self._folder(request), request.path_params["drop"]
        wait = _wait(request)
        if not NAME.fullmatch(drop):
            raise Refused(
                404, "unknown_drop", f"no drop of this name was ever made in {folder.name}"
            )
        deadline = time.monotonic() + wait
        while True:
            document = await self._in_thread(arrival, self._definitions, self._online, folder, drop)
            if document["done"] or time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        states = {state["state"] for state in document["features"].values()}
        if states <= {"waiting", "held"} and not await self._in_thread(folder.file(drop).exists):
            raise Refused(404, "unknown_drop", f"{folder.name} has no drop {drop}")
        return JSONResponse(document)

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


def _name_of(key: str) -> str:
    """The name of the drop that a caller's own key stands for."""
    if not 0 < len(key) <= _KEY_LENGTH:
        raise Refused(422, "unfit_request", f"Idempotency-Key has 1 to {_KEY_LENGTH} characters")
    return f"http-{sha256(key.encode()).hexdigest()}"


def _wait(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_S:
        raise Refused(422, "unfit_request", f"wait is a number of seconds from 0 to {WAIT_S:g}")
    return seconds


def _check_parquet(body: bytes) -> None:
    """Refused for bytes that are no whole parquet file; what it holds is for the build to judge, as of any drop."""
    try:
        pl.read_parquet_schema(io.BytesIO(body))
        if body[:4] == body[-4:] == b"PAR1":
            return
    except (pl.exceptions.PolarsError, OSError, ValueError):
        pass
    except BaseException as error:  # a panic of the reader is no Exception
        if type(error).__name__ != "PanicException":
            raise
    raise Refused(400, "not_parquet", "the body is no whole parquet file")
