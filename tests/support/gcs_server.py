"""A server of Google Cloud Storage's XML dialect, as much of it as obstore speaks, with conditions on generations.

None of the emulators that there are keeps to these conditions in this dialect (fake-gcs-server does for uploads of the JSON API alone), so
that this one stands in for the cloud. It was written by the documents of Google; what Google's servers do beyond them it does not show.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_PAGE = 1000


@dataclass(frozen=True)
class Stored:
    """An object as it was written: its bytes, its generation, and when."""

    data: bytes
    generation: int
    at: datetime

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ETag": f'"{self.generation}"',
            "x-goog-generation": str(self.generation),
            "Last-Modified": format_datetime(self.at, usegmt=True),
        }


@dataclass
class GoogleServer:
    """A running server, whose buckets need not be made.

    refuse: asked about each request by its method and path; a status and a code in place of the answer.
    """

    endpoint: str = ""
    stored: dict[str, Stored] = field(default_factory=dict)
    refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
    lock: Lock = field(default_factory=Lock)
    generations: Iterator[int] = field(default_factory=lambda: itertools.count(1_000))

    @property
    def options(self) -> dict[str, str]:
        """The configuration by which obstore finds it."""
        return {"google_base_url": self.endpoint, "google_bearer_token": "token"}

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which obstore finds it."""
        return {"GOOGLE_BASE_URL": self.endpoint, "GOOGLE_BEARER_TOKEN": "token"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    google: GoogleServer

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        refusal = self.google.refuse(self.command, self.path)
        if refusal is None:
            return True
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer(refusal[0], f"<Error><Code>{refusal[1]}</Code></Error>".encode())
        return False

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        expected = self.headers["x-goog-if-generation-match"]
        with self.google.lock:
            before = self.google.stored.get(self._name)
            if expected is not None and int(expected) != (before.generation if before else 0):
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            stored = Stored(data, next(self.google.generations), datetime.now(UTC))
            self.google.stored[self._name] = stored
        self._answer(200, headers=stored.headers)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" in query:
            self._list({name: values[0] for name, values in query.items()})
            return
        stored = self.google.stored.get(self._name)
        if stored is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.headers["If-None-Match"] == stored.headers["ETag"]:
            self._answer(304, headers=stored.headers)
        elif "Range" in self.headers:
            self._answer_range(stored, self.headers["Range"].removeprefix("bytes="))
        else:
            self._answer(200, stored.data, stored.headers)

    do_HEAD = do_GET

    def _answer_range(self, stored: Stored, wanted: str) -> None:
        size, (first, _, last) = len(stored.data), wanted.partition("-")
        begin = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        found = {"Content-Range": f"bytes {begin}-{end - 1}/{size}", **stored.headers}
        self._answer(206, stored.data[begin:end], found)

    def do_DELETE(self) -> None:
        with self.google.lock:
            gone = self.google.stored.pop(self._name, None)
        self._answer(204 if gone else 404)

    def _list(self, query: Mapping[str, str]) -> None:
        bucket = f"{self._name}/"
        start, mark = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token", "")
        contents, folders = [], set()
        names = sorted(self.google.stored)
        keys = [n.removeprefix(bucket) for n in names if n.startswith(bucket + start)]
        keys = [key for key in keys if key > after]
        for key in keys[:_PAGE]:
            rest = key[len(start) :]
            if mark and mark in rest:
                folders.add(start + rest.partition(mark)[0] + mark)
                continue
            stored = self.google.stored[bucket + key]
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.data)}</Size>"
                f"<ETag>{escape(stored.headers['ETag'])}</ETag>"
                f"<LastModified>{stored.at.isoformat()}</LastModified></Contents>"
            )
        more = "".join(
            f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
            for last in keys[_PAGE - 1 : _PAGE]
        )
        prefixes = (
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>"
            for each in sorted(folders)
        )
        body = "".join([*contents, *prefixes, more if len(keys) > _PAGE else ""])
        self._answer(200, f"<ListBucketResult>{body}</ListBucketResult>".encode())

    @property
    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def google() -> Iterator[GoogleServer]:
    """The server, in threads of this process."""
    running = GoogleServer()
    handler = type("Handler", (_Handler,), {"google": running})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
