"""Passwords, TLS, permissions and what the queue is asked to run."""

from __future__ import annotations

import os
import pickle
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from mlforge.errors import DefinitionError
from mlforge.online import RedisStore
from tests.support.paths import ROOT
from tests.support.tls_proxy import tls_before
from tests.support.workers import Shop, ask, eventually, purchases, write
from worker.queue import JobQueue, queue_of
from worker.service.embedded_redis import EmbeddedServer

SECRET = "s3cret-of-the-queue"


@pytest.fixture
def shop(server: EmbeddedServer, redis: Redis, tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "shop").mkdir()
    made = Shop(tmp_path / "shop", server.url)
    yield made
    made.stop()


# What the queue is asked to run


def test_nothing_here_unpickles() -> None:
    for folder in ("mlforge", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            code = re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.DOTALL)
            assert not re.search(
                r"^\s*(import|from) (pickle|marshal|shelve|dill)\b", code, re.MULTILINE
            ), path


@pytest.mark.slow
def test_jobs_that_are_not_ours_are_refused_and_the_worker_goes_on(shop: Shop) -> None:
    """A pickle, another function, a callback: none is run, the log tells, the next drop is served."""
    client, name = shop.project.redis, queue_of(shop.project.scope)
    marks = {name: shop.folder / name for name in ("pickled", "called", "callback")}

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marks["pickled"]),)

    created = {"created_at": "2024-01-01T00:00:00.000000Z", "origin": name}
    client.hset("rq:job:evil", mapping={"data": pickle.dumps(Evil()), **created})  # type: ignore[arg-type]
    client.rpush(f"rq:queue:{name}", "evil")
    queue = Queue(name, connection=client, serializer=JSONSerializer)
    other = queue.enqueue_call("os.mkdir", args=(str(marks["called"]),))
    ours = queue.enqueue_call("worker.queue.refresh_job.refresh", kwargs={"feature": "spend"})
    client.hset(f"rq:job:{ours.id}", "success_callback_name", "os.mkdir")
    client.hset(f"rq:job:{ours.id}", "failure_callback_name", "os.mkdir")
    shop.start("watch")
    worker = shop.start("worker")
    write(shop.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
    eventually(lambda: shop.online("spend", 1), within=60)
    eventually(lambda: not JobQueue(client, shop.project.scope).waiting())
    assert worker.poll() is None
    assert not any(mark.exists() for mark in marks.values())
    log = (shop.folder / "output.log").read_text()
    assert other.id in log, "what was refused is told"


# Where passwords are


def command_lines(of: int) -> list[str]:
    """The command lines of a process and of all that it started."""
    found, left = [], [of]
    while left:
        pid = left.pop()
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return found


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.slow
@linux
def test_no_password_is_in_a_command_line_or_in_a_log(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "")
    environment = {k: v for k, v in os.environ.items() if k != "REDIS_URL"}
    with (tmp_path / "up.out").open("wb") as output:
        up = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlforge",
                "up",
                "--workers",
                "1",
                "--no-serve",
                "--metrics-port",
                "0",
            ],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
        )
    shop.processes.append(up)
    try:
        note = tmp_path / ".mlforge/redis/server.json"
        eventually(note.exists, within=60)
        password = re.search(r'"password": "(\w+)"', note.read_text())
        assert password is not None
        log = tmp_path / ".mlforge/up.log"
        eventually(lambda: log.exists() and "worker ready" in log.read_text(), within=60)
        eventually(lambda: '"event": "metrics"' in log.read_text(), within=60)
        seen = command_lines(up.pid)
        assert any("valkey-server" in line for line in seen)
        assert sum("watch" in line or "worker" in line for line in seen) >= 2
        assert not any(password[1] in line for line in seen)
        for path in (tmp_path / ".mlforge").rglob("*.log"):
            assert password[1] not in path.read_text(), path
        for path in [tmp_path / ".mlforge", *(tmp_path / ".mlforge").rglob("*")]:
            if path.name != ".gitignore":
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    finally:
        up.terminate()
        up.wait(60)


@pytest.mark.slow
@linux
def test_a_url_in_a_file_is_in_no_environment_and_no_command_line(
    server: EmbeddedServer,
    shop: Shop,
) -> None:
    secret = shop.folder / "redis-url"
    secret.write_text(f"{server.url}\n")
    environment = {k: v for k, v in shop.environment.items() if k != "REDIS_URL"}
    environment["REDIS_URL_FILE"] = str(secret)
    log = shop.folder / "output.log"
    for command in ("watch", "worker"):
        with log.open("ab") as output:
            shop.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "mlforge", command],
                    cwd=shop.folder,
                    env=environment,
                    stdout=output,
                    stderr=output,
                )
            )
    write(shop.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
    eventually(lambda: shop.online("spend", 1), within=60)
    password = server.url.split(":")[2].split("@")[0]
    for process in shop.processes:
        assert password not in Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
        assert not any(password in line for line in command_lines(process.pid))
    assert password not in log.read_text()


def test_a_url_file_that_is_not_there_is_named(shop: Shop) -> None:
    done = ask(
        shop.folder, "status", MLFORGE_DEFINITIONS="definitions.py", REDIS_URL_FILE="nowhere"
    )
    assert done.returncode == 1
    assert "REDIS_URL_FILE=nowhere cannot be read" in done.stderr


# TLS: the embedded server is built without it, so a proxy of this test ends it in front of that server.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost; its key lies beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ),
            *("-nodes", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"


@pytest.fixture
def secured(server: EmbeddedServer, redis: Redis, certificate: Path) -> Iterator[int]:
    """The port of a TLS proxy before the server, which knows a user with a password and no more rights than needed."""
    redis.acl_setuser(
        "forge",
        enabled=True,
        passwords=[f"+{SECRET}"],
        keys=["mlforge*", "rq:*"],
        channels=["*"],
        categories=["+@all", "-@admin", "-@dangerous"],
        commands=["+info", "+client", "+keys", "+sort"],
    )
    behind = int(server.url.rsplit(":", 1)[1].split("/")[0])
    with tls_before(behind, certificate, certificate.with_name("key.pem")) as port:
        yield port
    redis.acl_deluser("forge")


@pytest.mark.slow
def test_the_pipeline_runs_over_tls_with_user_and_password(
    secured: int, certificate: Path, tmp_path: Path
) -> None:
    url = f"rediss://forge:{SECRET}@localhost:{secured}/0?ssl_ca_certs={certificate}"
    (tmp_path / "shop").mkdir()
    shop = Shop(tmp_path / "shop", url)
    try:
        shop.start("watch")
        shop.start("worker")
        write(shop.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
        row = eventually(lambda: shop.online("spend", 1), within=60)
        assert row["amount__sum__7d"] == 2.0
        assert SECRET not in (shop.folder / "output.log").read_text()
        assert SECRET not in shop.ask_apart("status").stdout
    finally:
        shop.stop()


def test_a_certificate_that_nobody_vouches_for_is_refused(secured: int, tmp_path: Path) -> None:
    store = RedisStore.from_url(f"rediss://forge:{SECRET}@localhost:{secured}/0")
    with pytest.raises(Exception, match=r"(?i)certificate") as caught:
        store.ping()
    assert SECRET not in str(caught.value)
    store.close()


def test_a_password_may_lie_in_a_file(server: EmbeddedServer, tmp_path: Path) -> None:
    password, place = server.url.removeprefix("redis://:").split("@")
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    port = int(place.split(":")[1].split("/")[0])
    store = RedisStore("127.0.0.1", port, password_file=file)
    assert store.ping()
    assert password not in repr(store)
    store.close()
    with pytest.raises(DefinitionError, match="not both"):
        RedisStore(password="a", password_file=file)
    with pytest.raises(DefinitionError, match="cannot be read"):
        RedisStore(password_file=tmp_path / "none")


# Files


def test_the_store_lets_others_read_no_more_than_the_umask_says(shop: Shop) -> None:
    write(shop.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
    before = os.umask(0o077)
    try:
        shop.project.definitions.build(["spend"])
        shop.project.definitions.audit("spend")
    finally:
        os.umask(before)
    paths = [path for path in shop.store.path.rglob("*") if "spend" in path.parts]
    assert {"data.parquet", ".meta.json", "_latest.json", "_audit.json"} <= {p.name for p in paths}
    assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
