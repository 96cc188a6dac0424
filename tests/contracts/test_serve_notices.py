"""Notices of buckets over HTTP: they reach the watcher, as far as the caller's key goes, and say no more than where to look."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.registry.live import Live
from mlforge.serve.app import App
from tests.support.projects import Project
from tests.support.workers import eventually
from worker.connection import connect
from worker.project import scope_of
from worker.service.live import open_live
from worker.state.notices import Notices

SHOP = {"message": {"attributes": {"bucketId": "shop", "objectId": "drops/a b.parquet"}}}
BESIDE = {"message": {"attributes": {"bucketId": "shop", "objectId": "drops2/a.parquet"}}}
OTHER = {"message": {"attributes": {"bucketId": "other", "objectId": "drops/a.parquet"}}}


def tell(app: App, notice: object, key: str | None = "bucket", **headers: str) -> httpx.Response:
    """The answer to a notice."""
    bearer = {} if key is None else {"authorization": f"Bearer {key}"}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/notices", json=notice, headers={**bearer, **headers})

    return asyncio.run(ask())


@pytest.fixture
def definitions(tmp_path: Path, online: RedisStore) -> Iterator[Definitions]:
    project = Project(tmp_path)
    definitions = project.definitions(project.define(), online_store=online)
    yield definitions
    definitions.close()


@pytest.fixture
def live(definitions: Definitions, redis_url: str) -> Iterator[Live]:
    live = open_live(definitions, redis_url)
    yield live
    live.close()


@pytest.fixture
def heard(
    definitions: Definitions, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """The addresses that a watcher's thread hears of."""
    monkeypatch.setattr("worker.state.notices._WAIT_S", 0.1)  # its end is waited for
    heard: list[str] = []
    notices, stop = Notices(connect(redis_url), scope_of(definitions)), threading.Event()
    thread = threading.Thread(target=notices.run, args=(heard.extend, stop))
    thread.start()
    yield heard
    stop.set()
    thread.join()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.toml"
    hashes = {name: sha256(name.encode()).hexdigest() for name in ("bucket", "reader")}
    file.write_text(
        f'[bucket]\nsha256 = "{hashes["bucket"]}"\nsources = ["gs://shop/drops/"]\n'
        f'[reader]\nsha256 = "{hashes["reader"]}"\n'
    )
    return file


def test_notices_reach_the_watcher_as_far_as_the_caller_s_key_goes(
    definitions: Definitions, live: Live, heard: list[str], keys: Path
) -> None:
    app = App(definitions, keys=keys, live=live)
    answers: list[Any] = [tell(app, notice) for notice in (OTHER, BESIDE, [1], SHOP)]
    assert [(each.status_code, each.json()["objects"]) for each in answers] == [
        (202, 0),
        (202, 0),
        (202, 0),
        (202, 1),
    ]
    eventually(lambda: heard == ["gs://shop/drops/a b.parquet"])
    assert tell(app, SHOP, "reader").status_code == 403
    assert tell(app, SHOP, None).status_code == 401


def test_without_keys_this_machine_alone_tells(definitions: Definitions, live: Live) -> None:
    assert tell(App(definitions, live=live, at_loopback=True), SHOP, None).json() == {"objects": 1}
    elsewhere = tell(App(definitions, live=live), SHOP, None)
    page = tell(
        App(definitions, live=live, at_loopback=True), SHOP, None, origin="https://elsewhere"
    )
    assert (elsewhere.status_code, page.status_code) == (403, 403)


def test_event_grid_is_told_that_its_notices_are_wanted(
    definitions: Definitions, keys: Path
) -> None:
    event = {
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6"},
    }
    app = App(definitions, keys=keys)
    assert tell(app, [event]).json() == {"validationResponse": "512d38b6"}
    unheard = tell(app, SHOP)
    assert (unheard.status_code, unheard.json()["reason"]) == (409, "no_workers")


def test_of_too_many_notices_the_last_are_kept_and_none_for_long(
    definitions: Definitions, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.state.notices.KEPT", 2)
    key = f"mlforge-work:{scope_of(definitions)}:notices"
    with redis.Redis.from_url(redis_url) as client:
        client.set(key, "of another type")
        live.hint(["s3://shop/1", "s3://shop/2"])
        live.hint(["s3://shop/3"])
        assert client.lrange(key, 0, -1) == [b"s3://shop/2", b"s3://shop/3"]
        assert client.ttl(key) > 0
        client.delete(key)
