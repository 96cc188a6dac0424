"""`mlforge serve` as a process: it answers, tells of an outage and its end, and finishes what is in hand before it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from mlforge.client import Client
from mlforge.definitions.loader import load
from mlforge.errors import OnlineUnavailable
from tests.support.certificates import Authority
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

TELLS_WHAT_COLLECTIONS_SEE = """
import atexit, gc, sys
from pathlib import Path

if "serve" in sys.argv:
    atexit.register(lambda: Path("collected.txt").write_text(f"{gc.get_freeze_count()} {len(gc.get_objects())}"))
"""


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and its URL."""
    command = [sys.executable, "-P", "-m", "mlforge", "serve", "--port", "0", *map(str, options)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFORGE_", "REDIS_"))}
    output = folder / "serve.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, text=True, env=environment
        )
    try:
        told = eventually(lambda: re.search(r"https?://[^\s;]+(?=;)", output.read_text()))
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
    definitions = DEFINITIONS.replace("PORT", str(port)) + TELLS_WHAT_COLLECTIONS_SEE
    (tmp_path / "definitions.py").write_text(definitions)
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
        left_alone, looked_at = map(int, (tmp_path / "collected.txt").read_text().split())
        assert left_alone > 50_000 > 2 * looked_at, "a collection is over before a request waits"
    finally:
        redis.stop()
        defs.close()


@pytest.mark.slow
def test_over_tls_it_answers_callers_whose_certificate_its_authority_vouches_for(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyed page's cookie is for TLS alone; a caller without a certificate, or with a stranger's, gets no answer."""
    monkeypatch.delenv("MLFORGE_PROFILE", raising=False)
    port = str(urlsplit(redis_url).port)
    (tmp_path / "definitions.py").write_text(DEFINITIONS.replace("PORT", port))
    (tmp_path / "events").mkdir()
    rows((1, 0, 1.0), (1, 3, 2.0)).write_parquet(tmp_path / "events" / "a.parquet")
    authority, stranger = Authority(tmp_path, "ca"), Authority(tmp_path, "stranger")
    own = authority.issue("127.0.0.1")
    caller, other = authority.issue("app@here.org"), stranger.issue("app@there.org")
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[app]\nsha256 = "{sha256(b"key").hexdigest()}"\n')
    defs = load(None, here=tmp_path)
    tls = ("--tls-cert", own.certificate, "--tls-key", own.key, "--client-ca", authority.file)
    try:
        defs.build(online=True)
        with serving(tmp_path, *tls, "--keys", keys) as (process, url):
            assert url.startswith("https://")
            assert f"acertificatethat{authority.file}vouchesfor" in _told(tmp_path)
            shown = (caller.certificate, caller.key)
            with Client(url, "key", verify=authority.file, cert=shown) as client:
                [row] = client.service("plain", [{"user_id": 1}]).rows
            assert row["spend__amount__sum__7d"] == 3.0
            context = ssl.create_default_context(cafile=authority.file)
            context.load_cert_chain(*shown)
            form = {"key": "key", "back": "/"}
            page = httpx.post(f"{url}/key", data=form, headers={"origin": url}, verify=context)
            assert page.headers["set-cookie"].endswith("; Secure")
            for verify, cert, said in (
                (authority.file, None, ""),  # the server says no more than that it goes
                (authority.file, (other.certificate, other.key), ""),
                (stranger.file, shown, "verify failed"),
                (True, shown, "verify failed"),
            ):
                with (
                    Client(url, "key", verify=verify, cert=cert) as client,
                    pytest.raises(OnlineUnavailable) as refused,
                ):
                    client.catalog()
                told = str(refused.value).lower().replace("_", " ")
                assert said in told, told
            plain = url.replace("https", "http")
            with Client(plain, "key") as client, pytest.raises(OnlineUnavailable):
                client.catalog()
            with Client(url, "key", verify=authority.file, cert=shown) as client:
                assert client.catalog()["features"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            assert "Traceback" not in _told(tmp_path)
    finally:
        defs.close()


def _told(folder: Path) -> str:
    """The log without white space: lines break within long paths, too."""
    return "".join((folder / "serve.log").read_text().split())


def _drains(process: subprocess.Popen[str], url: str) -> None:
    """Requests that are half here, or still to come on a new connection, when the process is told to end are answered, then it ends well."""
    address = urlsplit(url)
    body = b'{"entities": [{"user_id": 1}]}'
    head = f"POST /v1/services/plain HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"

    def connected() -> socket.socket:
        return socket.create_connection((address.hostname, address.port), timeout=60)

    with ExitStack() as stack:
        caller = stack.enter_context(closing(connected()))
        caller.sendall(head.encode() + body[:5])
        eventually(lambda: "mlforge_http_in_flight 2" in _figures(url))
        silent = stack.enter_context(closing(connected()))
        process.send_signal(signal.SIGTERM)
        eventually(lambda: not _accepts(address.hostname, address.port))
        silent.sendall(head.encode() + body)
        caller.sendall(body[5:])
        answers = [each.recv(65_536).split(b"\r\n")[0] for each in (caller, silent)]
        assert answers == [b"HTTP/1.1 200 OK"] * 2
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
