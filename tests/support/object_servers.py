"""Real servers of buckets for tests, and one that keeps to no conditions."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from typing import ClassVar

import pytest

from tests.support.servers import free_port

KEY, SECRET, BUCKET = "test-key", "test-secret", "bucket"
_ATTEMPTS, _START_S = 3, 60.0


@dataclass(frozen=True)
class Server:
    """A running server of S3 at a port of this machine, which has a bucket."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """The configuration by which obstore finds it."""
        return {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_endpoint": self.endpoint,
            "aws_region": "us-east-1",
        }

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients of S3 find it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


@contextmanager
def seaweed(folder: Path) -> Iterator[Server]:
    """SeaweedFS, all of it in one process, with its data in a folder."""
    for attempt in range(_ATTEMPTS):
        process, endpoint = _start_seaweed(folder / str(attempt))
        try:
            if _answers(process, endpoint):
                yield Server(endpoint)
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(f"weed does not start; {folder} has its log")


def _start_seaweed(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    folder.mkdir(parents=True)
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    who = {
        "name": "t",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": actions,
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
    # Each has a further port 10,000 above. Hypothesis seeds what `random` itself gives: two runs would have the same ports.
    base = random.SystemRandom().randint(20_000, 50_000)
    names = ("s3", "master", "volume", "filer", "admin")
    ports = [f"-{name}.port={base + n}" for n, name in enumerate(names)]
    weed = Path(sys.executable).with_name("weed")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(weed), "mini", f"-dir={folder}", f"-s3.config={folder / 's3.json'}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}", *ports),
                *("-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    return process, f"http://127.0.0.1:{base}"


def _answers(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    """Whether the bucket can be written to, within a minute."""
    from mlforge.errors import StoreError
    from mlforge.store.objects.bucket import Bucket

    bucket = Bucket(f"s3://{BUCKET}", Server(endpoint).options)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5)
        except urllib.error.HTTPError:
            try:
                bucket.put("started", b"")
            except StoreError:
                continue
            return process.poll() is None  # else it was another's that had the port
        except OSError:
            time.sleep(0.05)
    return False


@contextmanager
def moto() -> Iterator[Server]:
    """moto, in threads of this process."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    running = server.ThreadedMotoServer(port=free_port(), verbose=False)
    running.start()
    try:
        endpoint = f"http://127.0.0.1:{running._server.server_port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"))
        yield Server(endpoint)
    finally:
        running.stop()


class Careless(BaseHTTPRequestHandler):
    """Objects in a dictionary, written whatever is asked: as some servers do that call themselves S3."""

    protocol_version = "HTTP/1.1"
    stored: ClassVar[dict[str, bytes]] = {}
    authorizations: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        self.stored[self.path] = self.rfile.read(length)
        self._answer(200, b"", ETag='"same"')

    def do_GET(self) -> None:
        self.authorizations.append(self.headers["Authorization"])
        data = self.stored.get(self.path)
        headers = {"ETag": '"same"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
        self._answer(200 if data is not None else 404, data or b"", **headers)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b'<?xml version="1.0"?><DeleteResult/>')

    def do_DELETE(self) -> None:
        self.stored.pop(self.path, None)
        self._answer(204, b"")

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Crowd:
    """Requests for one kind of objects: how many are under way, and how many there were at most at once."""

    least: int
    now: int = 0
    most: int = 0
    changed: Condition = field(default_factory=Condition)

    @contextmanager
    def with_one_more(self) -> Iterator[None]:
        """The block of a request, which begins once `least` requests are, or ever were, under way, or none more came for long."""
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= self.least, timeout=20)
        yield
        with self.changed:
            self.now -= 1


@contextmanager
def crowded(behind: Server, kind: str, least: int) -> Iterator[tuple[Server, Crowd]]:
    """A server that hands requests on to another; those for keys with `kind` in them once there is a crowd of so many."""
    crowd = Crowd(least)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with crowd.with_one_more() if kind in self.path else nullcontext():
                self._hand_on()

        def _hand_on(self) -> None:
            other = HTTPConnection(behind.endpoint.removeprefix("http://"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            other.request(self.command, self.path, body, dict(self.headers))
            answer = other.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            other.close()

        do_PUT = do_POST = do_DELETE = do_HEAD = _hand_on

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with _serving(Handler) as server:
        yield server, crowd


@contextmanager
def careless() -> Iterator[Server]:
    """A server that ignores all conditions."""
    with _serving(Careless) as server:
        yield server


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[Server]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
