"""`mlforge serve` as a process: it answers, tells of an outage and its end, and finishes what is in hand before it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mlforge.client import Client
from mlforge.definitions.loader import load
from tests.support.projects import at, rows
from tests.support.servers import free_port, started
from tests.support.workers import eventually

DEFINITIONS = """
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events", timestamp="at", metrics=[Rolling("7d", {"amount": "sum"})])
def spend(df):
    return df

defs = Definitions(
    store=LocalStore("store"),
    features=[spend],
    online_store=RedisStore(port=PORT),
    services=[Service("plain", features=[spend])],
)
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and its URL."""
    command = [sys.executable, "-P", "-m", "mlforge", "serve", "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFORGE_", "REDIS_"))}
    output = folder / "serve.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, text=True, env=environment
        )
    try:
        told = eventually(lambda: re.search(r"http://[^\s;]+(?=;)", output.read_text()))
        yield process, told[0]
    finally:
        process.kill()
        process.wait()


def asked(url: str, path: str = "/v1/services/plain?user_id=1") -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url + path, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_it_answers_tells_of_an_outage_and_drains_when_it_is_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFORGE_PROFILE", raising=False)
    port = free_port()
    (tmp_path / "definitions.py").write_text(DEFINITIONS.replace("PORT", str(port)))
    (tmp_path / "events").mkdir()
    rows((1, 0, 1.0), (1, 3, 2.0)).write_parquet(tmp_path / "events" / "a.parquet")
    defs = load(None, here=tmp_path)
    redis = started(port=port)
    try:
        defs.build(online=True)
        with serving(tmp_path) as (process, url):
            assert asked(url, "/healthz") == (200, {"alive": True})
            status, answer = asked(url)
            assert (status, list(answer)) == (200, ["features", "served"])
            with Client(url) as client:
                [row] = client.service("plain", [{"user_id": 1}]).rows
                drop = client.send("events", [{"user_id": 1, "at": at(4), "amount": 4.0}])
            assert row["spend__amount__sum__7d"] == 3.0
            assert (tmp_path / "events" / f"{drop.name}.parquet").exists(), (
                "this machine needs no key"
            )
            redis.stop()
            status, answer = asked(url)
            assert (status, answer["reason"]) == (503, "online_store_unavailable")
            assert asked(url, "/healthz")[0] == 200
            redis = started(port=port)
            assert eventually(lambda: asked(url)[1].get("reason") == "not_served")
            defs.push("spend")
            assert asked(url)[0] == 200
            _drains(process, url)
    finally:
        redis.stop()
        defs.close()


def _drains(process: subprocess.Popen[str], url: str) -> None:
    """A request whose body is half here when the process is told to end is answered, then the process ends well."""
    address = urlsplit(url)
    body = b'{"entities": [{"user_id": 1}]}'
    head = f"POST /v1/services/plain HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with closing(socket.create_connection((address.hostname, address.port), timeout=60)) as caller:
        caller.sendall(head.encode() + body[:5])
        eventually(lambda: "mlforge_http_in_flight 2" in _figures(url))
        process.send_signal(signal.SIGTERM)
        eventually(lambda: not _accepts(address.hostname, address.port))
        caller.sendall(body[5:])
        assert caller.recv(65_536).startswith(b"HTTP/1.1 200")
    assert process.wait(timeout=60) == 0


def _figures(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def _accepts(host: str | None, port: int | None) -> bool:
    try:
        socket.create_connection((host, port), timeout=60).close()
    except ConnectionRefusedError:
        return False
    return True
