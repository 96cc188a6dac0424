"""The clients of the HTTP server, on its application: values, rows that are sent, and problems as errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlforge import Definitions, Service, get_online_features
from mlforge.client import AsyncClient, Client, ServerRefused
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import DefinitionError, OnlineUnavailable
from mlforge.online import RedisStore
from mlforge.serve.app import App
from tests.support.projects import Project, at, rows
from tests.support.servers import free_port

USERS = [{"user_id": 1}, {"user_id": 3}]


@pytest.fixture
def definitions(tmp_path: Path, online: RedisStore) -> Iterator[Definitions]:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (2, 1, 4.0)))
    spend = project.define()
    definitions = project.definitions(
        spend, online_store=online, services=[Service("plain", features=[spend])]
    )
    definitions.root = tmp_path
    with clock.fixed(to_us(at(5))):
        definitions.build(online=True)
    yield definitions
    definitions.close()


def test_values_and_rows_go_through_the_client_as_through_the_library(
    definitions: Definitions, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[app]\nsha256 = "{sha256(b"key").hexdigest()}"\nsources = ["events"]\n')
    transport = httpx.ASGITransport(App(definitions, keys=keys))

    async def scenario() -> None:
        async with AsyncClient("http://here", "key", transport=transport) as client:
            answer = await client.service("plain", USERS)
            online = definitions.online_store
            assert online is not None
            expected = get_online_features(definitions.services["plain"], USERS, online)
            assert answer.rows == expected
            assert answer.served["spend"]["version"] == "1.0.0"
            by_name = await client.features(["spend@1.0.0"], USERS, details=True)
            assert by_name.rows == expected
            assert by_name.details[1]["spend__amount__sum__7d"]["status"] == "empty"
            assert [f["name"] for f in (await client.catalog())["features"]] == ["spend"]
            drop = await client.send("events", [{"user_id": 3, "at": at(2), "amount": 2}])
            assert (await client.wait(drop, 0))["features"] == {"spend": {"state": "waiting"}}
            definitions.build(online=True)
            assert (await client.wait(drop))["done"] is True
            again = await client.service("plain", USERS)
            assert again.rows[1]["spend__amount__sum__7d"] == 2.0
            for unfit in ({"max_age": 0}, {"at": 0}):  # no text, and not left out either
                with pytest.raises(ServerRefused, match=f"{next(iter(unfit))} is 0"):
                    await client.service("plain", USERS, **unfit)
            with pytest.raises(ServerRefused, match="did you mean 'plain'") as refused:
                await client.service("plein", USERS)
            assert (refused.value.status, refused.value.reason) == (404, "unknown_service")
        async with AsyncClient("http://here", transport=transport) as stranger:
            with pytest.raises(ServerRefused, match="send a key"):
                await stranger.catalog()

    with clock.fixed(to_us(at(5))):
        asyncio.run(scenario())


def test_a_server_that_is_away_or_another_is_told_in_words() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(OnlineUnavailable, match=url):
        client.catalog()
    for kind in (Client, AsyncClient):
        with pytest.raises(DefinitionError, match="'localhost:8750' is no URL of a server; write"):
            kind("localhost:8750")
    stranger = httpx.MockTransport(lambda request: httpx.Response(502, text="<html>"))
    with (
        Client("http://proxy", transport=stranger) as client,
        pytest.raises(ServerRefused, match="HTTP 502 from http://proxy/v1/catalog"),
    ):
        client.catalog()


@pytest.mark.parametrize(
    "document", [{}, [], "rows", 7, {"rows": 1, "served": {}}, {"rows": [], "served": []}]
)
def test_an_answer_of_another_server_is_told_in_words(document: Any) -> None:
    stranger = httpx.MockTransport(lambda request: httpx.Response(200, json=document))
    with Client("http://other", transport=stranger) as client:
        for ask in (
            lambda: client.service("x", [{}]),
            lambda: client.features(["x"], [{}]),
            lambda: client.send("x", [{}]),
        ):
            with pytest.raises(ServerRefused, match="answer of mlforge") as refused:
                ask()
            assert (refused.value.status, refused.value.reason) == (200, "unknown")
        if not isinstance(document, dict):
            with pytest.raises(ServerRefused, match="the answer is no object"):
                client.catalog()


def test_rows_whose_answer_is_lost_are_sent_again_under_the_same_key() -> None:
    keys = []

    def lost(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("reset")
        return httpx.Response(202, json={"drop": "d", "source": "s", "url": "/v1/drops/s/d"})

    with Client("http://here", transport=httpx.MockTransport(lost)) as client:
        assert client.send("s", [{"x": 1}]).url == "/v1/drops/s/d"
        with pytest.raises(TypeError, match="a set, which JSON does not have"):
            client.send("s", [{"x": {1}}])
    assert len(keys) == 2
    assert len(set(keys)) == 1
