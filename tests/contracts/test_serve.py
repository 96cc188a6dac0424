"""The HTTP server's application on a real online store: answers, catalogue, and each fault as a problem."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import redis

from mlforge import Definitions, Service, get_online_features
from mlforge.cli import main
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import DefinitionError
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.serve.access.keys import Admission, ApiKey
from mlforge.serve.access.keys_file import keys_in
from mlforge.serve.app import App
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused
from mlforge.serve.server import keys_file
from mlforge.serve.values.read_request import ARROW
from tests.support.projects import Project, at, rows
from tests.support.servers import free_port

NOW, LATER = at(5), at(5.5)
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two features of one source, built."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0), (4, 5, 7.0)))
    with clock.fixed(to_us(NOW)):
        project.definitions(project.define(), project.define(name="other")).build()
    return project


def served_from(project: Project, online: RedisStore) -> Definitions:
    """Two features whose values are as of NOW, with rows of users 1, 2 and 4, and services of them."""
    spend, other = project.define(), project.define(name="other")
    checkout = Service(
        "checkout",
        features=[
            spend["amount__sum__7d", "amount__count__7d"],
            other["amount__sum__2d"].as_("buyer", user_id="buyer_id"),
        ],
        request={"price": pl.Float64, "when": pl.Datetime("us", "UTC"), "day": pl.Date},
        derive={"share": "price / spend__amount__sum__7d", "waited": "days(t - when)"},
        defaults={"buyer__amount__sum__2d": 0.5},
        description="A checkout.",
    )
    defs = project.definitions(
        spend, other, online_store=online, services=[checkout, Service("plain", features=[spend])]
    )
    with clock.fixed(to_us(NOW)):
        defs.build(online=True)
    return defs


@pytest.fixture
def served(built: Project, tmp_path: Path, online: RedisStore) -> Definitions:
    return served_from(built.copied(tmp_path), online)


class Caller:
    """Requests to an application, each on an event loop of its own."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, path, **options)

        with clock.fixed(to_us(LATER)):
            return asyncio.run(ask())


@pytest.fixture
def ask(served: Definitions) -> Caller:
    return Caller(App(served))


@pytest.fixture(scope="module")
def refused(
    built: Project, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    """For requests that are refused, and so leave it as it is: they share it, in a database that no test empties."""
    online = RedisStore.from_url(f"{redis_server.removesuffix('/0')}/1")
    yield Caller(App(served_from(built.copied(tmp_path_factory.mktemp("refused")), online)))
    online.close()


ENTITIES = [{"user_id": 1, "buyer_id": 4}, {"user_id": "2", "buyer_id": 3}]
REQUEST = [
    {"price": 6, "when": "2026-01-05T00:00:00Z", "day": "2026-01-05"},
    {"price": None, "when": None, "day": None},
]
BODY = {"entities": ENTITIES, "request": REQUEST}


def test_a_service_answers_by_feature_with_the_versions_that_are_served(ask: Caller) -> None:
    answer = ask("POST", "/v1/services/checkout", json=BODY)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "features": {
            "spend": [
                {"amount__sum__7d": 3.0, "amount__count__7d": 2},
                {"amount__sum__7d": 5.0, "amount__count__7d": 1},
            ],
            "buyer": [{"amount__sum__2d": 7.0}, {"amount__sum__2d": 0.5}],
        },
        "derived": [{"share": 2.0, "waited": 1.5}, {"share": None, "waited": None}],
        "served": {
            "spend": {"version": "1.0.0", "as_of": "2026-01-06T00:00:00.000000Z"},
            "other": {"version": "1.0.0", "as_of": "2026-01-06T00:00:00.000000Z"},
        },
    }


def test_a_kept_version_of_a_service_answers_beside_the_newest(
    served: Definitions, tmp_path: Path, online: RedisStore
) -> None:
    ask = Caller(App(served))
    before = ask("POST", CHECKOUT, json=BODY).json()
    spend = served.features["spend"]
    changed = [Service("checkout", [spend["amount__sum__7d"]]), Service("plain", ["spend"])]
    project = Project(tmp_path / "other")
    project.store, project.root = served.store, served.root
    later = project.definitions(
        spend, served.features["other"], online_store=online, services=changed
    )
    with clock.fixed(to_us(NOW)):
        later.build(online=True)
    keys = [ApiKey("web", sha256(b"k").hexdigest(), frozenset({"checkout"}))]
    ask = Caller(App(later))
    for version in ("checkout@1", "checkout@1.0.0", "checkout%401"):
        assert ask("POST", f"/v1/services/{version}", json=BODY).json() == before
    assert keys[0].allows("/v1/services/checkout@1")
    assert not keys[0].allows("/v1/services/plain@1")
    newest = ask("GET", "/v1/services/checkout@2?user_id=1").json()
    assert newest["features"] == {"spend": [{"amount__sum__7d": 3.0}]}
    for path, reason in (("checkout@3", "unknown_version"), ("chekout@1", "unknown_service")):
        refused = ask("POST", f"/v1/services/{path}", json=BODY)
        assert (refused.status_code, refused.json()["reason"]) == (404, reason)
    code = project.define(lambda df: df.with_columns(pl.col("amount") * 1))
    moved = project.definitions(
        code, served.features["other"], online_store=online, services=changed
    )
    with clock.fixed(to_us(NOW)):
        moved.build(online=True)
    gone = Caller(App(moved))("POST", "/v1/services/checkout@1", json=BODY)
    assert (gone.status_code, gone.json()["reason"]) == (409, "lock_mismatch")
    assert "checkout@1.0.0 is not served any more" in gone.json()["detail"]


def test_flat_rows_and_arrow_are_the_answers_of_the_library(
    ask: Caller, served: Definitions, online: RedisStore
) -> None:
    flat = ask("POST", "/v1/services/checkout?layout=flat", json=BODY).json()["rows"]
    [row] = ask(
        "GET",
        "/v1/services/checkout?user_id=1&buyer_id=4&price=6&when=2026-01-05T00:00:00Z&day=2026-01-05&layout=flat",
    ).json()["rows"]
    arrow = ask("POST", "/v1/services/checkout", json=BODY, headers={"accept": ARROW})
    table = pl.read_ipc_stream(io.BytesIO(arrow.content))
    with clock.fixed(to_us(LATER)):
        expected = get_online_features(
            served.services["checkout"],
            [{"user_id": 1, "buyer_id": 4}, {"user_id": 2, "buyer_id": 3}],
            online,
            request=[
                {"price": 6, "when": at(4), "day": at(4).date()},
                dict.fromkeys(("price", "when", "day")),
            ],
        )
    assert table.to_dicts() == expected
    assert list(table.columns) == list(expected[0]) == list(flat[0])
    assert table.schema["day"] == pl.Date
    assert json.loads(arrow.headers["mlforge-served"])["spend"]["version"] == "1.0.0"
    texts = {"when": "2026-01-05T00:00:00.000000Z", "day": "2026-01-05"}
    assert flat == [expected[0] | texts, expected[1]]
    assert row == flat[0]


def test_details_say_what_stands_behind_each_value(ask: Caller) -> None:
    fresh = ask("POST", CHECKOUT, json={**BODY, "details": True}).json()
    old = ask("POST", CHECKOUT, json={**BODY, "details": True, "max_age": "1s"}).json()
    assert (
        fresh["features"] == old["features"] == ask("POST", CHECKOUT, json=BODY).json()["features"]
    )
    assert fresh["details"][1]["spend__amount__sum__7d"]["status"] == "present"
    assert fresh["details"][1]["buyer__amount__sum__2d"]["status"] == "empty"
    assert old["details"][0]["spend__amount__sum__7d"]["status"] == "stale"
    assert old["details"][0]["spend__amount__sum__7d"]["as_of"] == "2026-01-06T00:00:00.000000Z"


def test_features_are_asked_for_by_name_version_and_columns(ask: Caller) -> None:
    renamed = {
        "feature": "spend",
        "columns": ["amount__sum__2d"],
        "prefix": "b",
        "keys": {"user_id": "who"},
    }
    body = {
        "features": ["other@1.0.0", renamed],
        "entities": [{"user_id": 4, "who": 1}, {"user_id": 9, "who": 9}],
    }
    answer = ask("POST", "/v1/features", json=body).json()
    assert answer["features"]["other"][0]["amount__sum__2d"] == 7.0
    assert answer["features"]["other"][1] == {
        "amount__sum__2d": None,
        "amount__count__2d": 0,
        "amount__sum__7d": None,
        "amount__count__7d": 0,
    }
    assert answer["features"]["b"] == [{"amount__sum__2d": 2.0}, {"amount__sum__2d": None}]
    assert "derived" not in answer
    assert ask("POST", "/v1/features", json={"features": ["spend"], "entities": []}).json()[
        "features"
    ] == {"spend": []}


def deep(depth: int) -> bytes:
    return b'{"entities": ' + b"[" * depth + b"]" * depth + b"}"


PLAIN, CHECKOUT, FEATURES = "/v1/services/plain", "/v1/services/checkout", "/v1/features"
ONE = {"user_id": 1, "buyer_id": 1}


@pytest.mark.parametrize(
    ("path", "sent", "status", "reason", "said"),
    [
        (PLAIN, b"", 400, "not_json", "empty"),
        (PLAIN, b"{", 400, "not_json", "is not JSON"),
        (PLAIN, b"\xff\xfe\xfd", 400, "not_json", "is not JSON"),
        (PLAIN, b'{"entities": [{"user_id": NaN}]}', 400, "not_json", "NaN"),
        (PLAIN, b'{"entities": [{"user_id": 2, "user_id": 1}]}', 400, "not_json", "twice"),
        (
            FEATURES,
            b'{"features": ["spend"], "entities": [], "entities": []}',
            400,
            "not_json",
            "twice",
        ),
        (PLAIN, b'{"entities": [{"user_id": ' + b"9" * 5_000 + b"}]}", 400, "not_json", "JSON"),
        (PLAIN, deep(100_000), 400, "too_deep", "deeply"),
        (PLAIN, b"[]", 400, "not_an_object", "'entities'"),
        (PLAIN, {}, 422, "unfit_request", "'entities' is missing"),
        (PLAIN, {"entities": [1]}, 422, "unfit_request", "list of objects"),
        (PLAIN, {"entites": []}, 422, "unknown_field", "'entites'"),
        (PLAIN, {"entities": [{}] * 1_001}, 422, "too_many_entities", "1,001"),
        (PLAIN, {"entities": [{"user": 1}]}, 422, "unfit_request", "the keys are user_id"),
        (PLAIN, {"entities": [{"": 1}]}, 422, "unfit_request", "'' is no key"),
        (PLAIN, {"entities": [{"user_id": None}]}, 422, "unfit_request", "is null"),
        (PLAIN, {"entities": [{"user_id": "x"}]}, 422, "unfit_request", "whole number"),
        (PLAIN, {"entities": [{"user_id": [1]}]}, 422, "unfit_request", "no key"),
        (PLAIN, {"entities": [{"user_id": 1e400}]}, 400, "not_json", "Infinity"),
        (PLAIN, {"entities": [{"user_id": 1}], "max_age": "soon"}, 422, "unfit_request", "soon"),
        (PLAIN, {"entities": [{"user_id": 1}], "at": "soon"}, 422, "unfit_request", "ISO 8601"),
        (
            PLAIN,
            {"entities": [{"user_id": 1}], "details": 1},
            422,
            "unfit_request",
            "true or false",
        ),
        (PLAIN, {"entities": [{"user_id": 1}], "max_age": "1h"}, 503, "not_served", "max_age"),
        (CHECKOUT, {"entities": [ONE]}, 422, "unfit_request", "price"),
        (CHECKOUT, {"entities": [ONE], "request": [{"price": "6"}]}, 422, "unfit_request", "price"),
        (
            CHECKOUT,
            {"entities": [ONE], "request": [{"price": 1, "when": "soon", "day": None}]},
            422,
            "unfit_request",
            "an instant as in",
        ),
        (
            CHECKOUT,
            b'{"entities": [{"user_id": 1, "buyer_id": 1}], "request": [{"price": 1e400, "when": null, "day": null}]}',
            422,
            "unfit_request",
            "larger than a float",
        ),
        (f"{PLAIN}?layout=wide", {"entities": []}, 422, "unfit_request", "nested"),
        (f"{PLAIN}?layuot=flat", {"entities": []}, 422, "unknown_field", "layuot"),
        ("/v1/services/plan", {"entities": []}, 404, "unknown_service", "did you mean 'plain'?"),
        (FEATURES, {"entities": []}, 422, "unfit_request", "'features'"),
        (FEATURES, {"features": ["spend"] * 101, "entities": []}, 422, "too_many_features", "101"),
        (FEATURES, {"features": ["spent"], "entities": []}, 404, "unknown_feature", "'spend'"),
        (FEATURES, {"features": ["spend@2.0.0"], "entities": []}, 503, "not_served", "1.0.0"),
        (FEATURES, {"features": ["spend@new"], "entities": []}, 422, "unfit_request", "new"),
        (FEATURES, {"features": [7], "entities": []}, 422, "unfit_request", "7"),
        (
            FEATURES,
            {"features": [{"feature": "spend", "colums": []}], "entities": []},
            422,
            "unknown_field",
            "did you mean 'columns'?",
        ),
        (
            FEATURES,
            {"features": [{"feature": "spend", "columns": [[]]}], "entities": []},
            422,
            "unfit_request",
            "strings",
        ),
        (
            FEATURES,
            {"features": [{"feature": "spend", "columns": ["amount__sum__9d"]}], "entities": []},
            422,
            "unfit_request",
            "amount__sum__7d",
        ),
        (
            FEATURES,
            {"features": [{"feature": "spend", "keys": {"user": "a"}}], "entities": []},
            422,
            "unfit_request",
            "user_id",
        ),
    ],
)
def test_each_fault_of_a_request_is_a_problem_with_a_reason(
    refused: Caller, path: str, sent: Any, status: int, reason: str, said: str
) -> None:
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    answer = refused("POST", path, content=content)
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (status, reason), problem
    assert (problem["status"], answer.headers["content-type"]) == (status, PROBLEM)
    assert said in problem["detail"], problem
    assert ("retry-after" in answer.headers) == (status == 503)


def test_former_names_of_features_are_looked_up_beside_the_event_loop(
    served: Definitions, ask: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, threads = type(served.store), []
    renames = kind.renames

    def noted(store: Any) -> Any:
        threads.append(threading.current_thread())
        return renames(store)

    monkeypatch.setattr(kind, "renames", noted)
    answer = ask("POST", FEATURES, content=b'{"features": ["spent"], "entities": []}')
    assert answer.json()["reason"] == "unknown_feature"
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("method", "path", "status", "reason", "said"),
    [
        ("GET", "/v1/services/plain?user_id=1&user_id=2", 400, "unfit_query", "twice"),
        ("GET", "/v1/services/plain?user_id=%ff", 400, "unfit_query", "UTF-8"),
        ("GET", "/v1/services/plain?user_id=1&details=yes", 422, "unfit_request", "true or false"),
        ("GET", "/v1/services/plain?user=1", 422, "unfit_request", "the keys are user_id"),
        ("GET", f"{CHECKOUT}?user_id=1&buyer_id=1&price=x", 422, "unfit_request", "no number"),
        ("GET", f"{CHECKOUT}?user_id=1&buyer_id=1&price=nan", 422, "unfit_request", "no number"),
        ("GET", f"{CHECKOUT}?user_id=1&buyer_id=1&price=1e400", 422, "unfit_request", "larger than a float"),
        ("GET", f"{CHECKOUT}?user_id=1&buyer_id=1&price=1", 422, "unfit_request", "the query lacks when, day"),
        ("DELETE", "/v1/services/plain", 405, "method_not_allowed", "GET, HEAD and POST, not DELETE"),
        ("PUT", "/v1/features", 405, "method_not_allowed", "/v1/features"),
        ("POST", "/v1/catalog", 405, "method_not_allowed", "/v1/catalog"),
        ("GET", "/v1/nothing", 404, "unknown_path", "/openapi.json"),
        ("GET", "/v1/features/spent", 404, "unknown_feature", "'spend'"),
        ("GET", "/v1/features/spend/explain?user_id=1&user_id=2", 400, "unfit_query", "twice"),
        ("GET", "/v1/features/spend/profile?version=1.0.0&version=2.0.0", 400, "unfit_query", "twice"),
        ("GET", "/v1/features/spend/explain", 422, "unfit_request", "user_id"),
        ("GET", "/v1/features/spend/explain?=1&user_id=1", 422, "unfit_request", "is no key"),
        ("GET", "/v1/features/spend/explain?user_id=1&version=7", 422, "unfit_request", "7"),
        ("GET", "/v1/features/spend/explain?user_id=1&version=7.0.0", 404, "unknown_version", "7.0.0"),
        ("GET", "/v1/features/spend/profile?version=x", 422, "unfit_request", "x"),
        ("GET", "/v1/features/spend/profile?against=2.0.0", 404, "unknown_version", "2.0.0"),
        ("GET", "/v1/features/spend/profile?against=/tmp/set", 422, "unfit_request", "2026-10-01..2026-11-01"),
        ("GET", "/v1/features/spend/profile?against=..", 422, "unfit_request", "'..'"),
        ("GET", "/v1/features/spend/profile?when=1", 422, "unknown_field", "version and against"),
        ("GET", "/v1/features/spend/diff", 422, "unfit_request", "?a=1.0.0"),
        ("GET", "/v1/features/spend/diff?a=1.0.0&b=3.0.0", 404, "unknown_version", "3.0.0"),
    ],
)  # fmt: skip
def test_each_fault_of_a_path_or_a_query_is_a_problem_with_a_reason(
    refused: Caller, method: str, path: str, status: int, reason: str, said: str
) -> None:
    answer = refused(method, path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert said in answer.json()["detail"]
    assert answer.headers["content-type"] == PROBLEM


def test_methods_roots_and_long_names_are_told_apart_at_once(served: Definitions) -> None:
    ask = Caller(App(served))
    for method, path, allowed in (
        ("DELETE", PLAIN, {"GET", "HEAD", "POST"}),
        ("PUT", FEATURES, {"POST"}),
        ("POST", "/v1/catalog", {"GET", "HEAD"}),
    ):
        answer = ask(method, path)
        assert set(answer.headers["allow"].split(", ")) == allowed
    assert ask("HEAD", f"{PLAIN}?user_id=1").status_code == 200
    assert ask("HEAD", "/v1/catalog").status_code == 200
    began = time.perf_counter()
    body = {"features": ["x" * 3_000_000], "entities": []}
    assert ask("POST", FEATURES, json=body).status_code == 404
    assert time.perf_counter() - began < 5
    huge = {"entities": [{"user_id": 2**70}]}
    assert ask("POST", PLAIN, json=huge).status_code == 200
    arrow = ask("POST", PLAIN, json=huge, headers={"accept": ARROW})
    assert (arrow.status_code, arrow.json()["reason"]) == (422, "unfit_request"), arrow.text
    many = {"features": ["spend", "other"], "entities": [{"user_id": u} for u in range(1_000)]}
    assert len(ask("POST", f"{FEATURES}?layout=flat", json=many).json()["rows"]) == 1_000

    async def below_a_root(path: str) -> int:
        transport = httpx.ASGITransport(App(served), root_path="/features")
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return (await client.get(path)).status_code

    for path in (f"/features{PLAIN}?user_id=1", "/features/v1/catalog", "/features/healthz"):
        assert asyncio.run(below_a_root(path)) == 200, path


def test_a_column_that_the_served_version_lacks_is_the_servers_fault(
    served: Definitions, tmp_path: Path
) -> None:
    project = Project(tmp_path / "edited").on(served.store)
    spend = project.define(metrics=[Rolling(["7d", "9d"], {"amount": ["sum"]})])
    edited = project.definitions(
        spend,
        online_store=served.online_store,
        services=[Service("wide", features=[spend["amount__sum__9d"]])],
    )
    answer = Caller(App(edited))("GET", "/v1/services/wide?user_id=1")
    assert (answer.status_code, answer.json()["reason"]) == (503, "not_served"), answer.text
    assert "amount__sum__9d" in answer.json()["detail"]


def test_what_the_online_store_cannot_say_is_a_503_and_never_a_zero(
    served: Definitions, ask: Caller, redis_url: str
) -> None:
    def answer() -> tuple[int, str]:
        told = ask("POST", PLAIN, json={"entities": [{"user_id": 1}]})
        return told.status_code, told.json().get("reason", "")

    assert answer() == (200, "")
    online = served.online_store
    assert isinstance(online, RedisStore)
    with redis.Redis.from_url(redis_url) as client:
        client.hset("mlforge:spend", "columns", "{")
        assert answer() == (503, "online_store_damaged")
        client.flushdb()
    assert answer() == (503, "not_served")
    served.online_store = RedisStore(port=free_port())
    away = Caller(App(served))
    for method, path in (("POST", PLAIN), ("GET", "/readyz")):
        told = away(method, path, json={"entities": [{"user_id": 1}]})
        assert (told.status_code, told.json()["reason"]) == (503, "online_store_unavailable")


def test_an_error_that_nobody_foresaw_is_told_without_its_traceback(
    ask: Caller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlforge.serve.values.reads.json_body", lambda *_: 1 / 0)
    answer = ask("POST", PLAIN, json={"entities": [{"user_id": 1}]})
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal")
    assert "division" not in answer.text
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_server_at_loopback_without_keys_answers_no_name_of_elsewhere(
    served: Definitions, tmp_path: Path
) -> None:
    here = Caller(App(served, at_loopback=True))
    for path in ("/v1/catalog", "/", "/v1/services/plain?user_id=1", "/healthz", "/metrics"):
        elsewhere = here("GET", path, headers={"host": "evil.example:8750"})
        assert (elsewhere.status_code, elsewhere.headers["content-type"]) == (421, PROBLEM)
        assert "answers as localhost alone, not as 'evil.example:8750'" in elsewhere.text
        for host in ("localhost:8750", "127.0.0.1:8750", "[::1]:8750", ""):
            assert here("GET", path, headers={"host": host}).status_code == 200, (path, host)
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[app]\nsha256 = "{sha256(b"secret").hexdigest()}"\n')
    named = {"host": "features.example", "authorization": "Bearer secret"}
    behind = Caller(App(served, keys=keys, at_loopback=True))
    assert behind("GET", "/v1/catalog", headers=named).status_code == 200
    assert Caller(App(served))("GET", "/v1/catalog").status_code == 200, "no server of ours"


def test_bodies_that_are_too_large_or_too_slow_are_refused(served: Definitions) -> None:
    app = App(served, Limits(body_bytes=100, body_s=0.01))

    async def sent(*messages: dict[str, Any], headers: Any = ()) -> tuple[int, dict[str, Any]]:
        queue, out = list(messages), list[Any]()

        async def receive() -> Any:
            return queue.pop(0) if queue else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            out.append(message)

        scope = {"type": "http", "method": "POST", "path": PLAIN, "query_string": b""}
        await app({**scope, "headers": list(headers)}, receive, send)
        return (out[0]["status"], json.loads(out[1]["body"])) if out else (0, {})

    def part(body: bytes, more: bool) -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": more}

    large = asyncio.run(sent(part(b"x" * 101, False)))
    parted = asyncio.run(sent(part(b"x" * 60, True), part(b"x" * 60, True)))
    told = asyncio.run(sent(headers=[(b"content-length", b"101")]))
    assert {large[0], parted[0], told[0]} == {413}
    slow = asyncio.run(sent(part(b"{", True)))
    assert (slow[0], slow[1]["reason"]) == (408, "slow_body")
    silent = asyncio.run(sent(headers=[(b"content-length", b"10")]))
    assert (silent[0], silent[1]["reason"]) == (408, "slow_body")
    assert asyncio.run(sent(part(b"{", True), {"type": "http.disconnect"})) == (0, {})
    whole = asyncio.run(sent(part(b'{"entities": ', True), part(b"[]}", False)))
    assert whole[0] == 200


def test_a_body_that_is_still_to_come_is_waited_for_and_a_caller_who_is_cut_off_ends_alone(
    served: Definitions,
) -> None:
    """Its first part is here, the others come one by one."""
    app = App(served)
    scope = {"type": "http", "method": "POST", "path": PLAIN, "query_string": b"", "headers": []}

    async def told(parts: list[bytes], cut: bool) -> list[Any]:
        out, waits = list[Any](), asyncio.Event()

        async def receive() -> Any:
            if cut and len(parts) == 1:
                waits.set()
                await asyncio.Event().wait()
            if len(parts) < 4:
                await asyncio.sleep(0)
            body = parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(parts)}

        async def send(message: Any) -> None:
            out.append(message)

        call = asyncio.create_task(app(dict(scope), receive, send))
        if cut:
            await waits.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            await call
        return out

    async def both() -> None:
        in_four = [b'{"ent', b'ities": [{"us', b'er_id": 1', b"}]}"]
        start, answer = await told(list(in_four), cut=False)
        assert start["status"] == 200
        assert list(json.loads(answer["body"])["features"]) == ["spend"]
        assert await told(list(in_four), cut=True) == []

    asyncio.run(both())
    assert app.counters.in_flight == 0


def test_a_store_is_looked_at_once_for_requests_that_come_together(
    served: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id tells whose rows are meant: that of a store made anew counts within milliseconds."""
    ask, body, instant = Caller(App(served)), {"entities": [{"user_id": 1}]}, [100.0]
    assert ask("POST", PLAIN, json=body).status_code == 200
    looks: list[int] = []
    identity = served.store.identity
    monkeypatch.setattr(served.store, "identity", lambda: looks.append(1) or identity())
    monkeypatch.setattr("mlforge.online.reads.time.monotonic", lambda: instant[0])
    assert {ask("POST", PLAIN, json=body).status_code for _ in range(5)} == {200}
    assert len(looks) == 1
    file = served.store.path / "_metadata" / "store.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "id": "another-store"}))
    assert ask("POST", PLAIN, json=body).status_code == 200, "as if it had been asked before"
    instant[0] += 0.02
    elsewhere = ask("POST", PLAIN, json=body)
    assert (elsewhere.status_code, elsewhere.json()["reason"]) == (503, "owned_elsewhere")


def test_an_empty_name_of_keys_or_host_opens_the_server_to_nobody_and_a_root_path_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--keys", "--host"):
        assert main(["serve", option, ""]) == 2
        assert f"argument {option}: it is empty" in capsys.readouterr().err
    for path in ("shop", "/shop/", "/", "//shop", "https://here/shop", "/a b"):
        assert main(["serve", "--root-path", path]) == 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFORGE_ROOT_PATH", path)
            # Empty is as good as unset: compose has the variable of whoever runs it.
            assert main(["serve", "--definitions", "nowhere.py"]) == (2 if path else 1)
        assert "write it with a slash before it and none behind it" in capsys.readouterr().err
    monkeypatch.setenv("MLFORGE_KEYS", "")
    with pytest.raises(DefinitionError, match="MLFORGE_KEYS is empty"):
        keys_file()


def test_the_catalogue_has_what_the_command_line_has(ask: Caller, served: Definitions) -> None:
    catalogue = ask("GET", "/v1/catalog").json()
    assert [entry["name"] for entry in catalogue["features"]] == ["spend", "other"]
    assert [entry["name"] for entry in catalogue["services"]] == ["checkout", "plain"]
    assert ask("GET", "/v1/features/spend").json() == catalogue["features"][0]
    versions = ask("GET", "/v1/features/spend/versions").json()
    assert (versions["latest"], [v["version"] for v in versions["versions"]]) == (
        "1.0.0",
        ["1.0.0"],
    )
    explanation = ask("GET", "/v1/features/spend/explain?user_id=1").json()
    values = {value["column"]: value["value"] for value in explanation["values"]}
    assert values["amount__sum__7d"] == 3.0
    assert explanation["online"]["agrees"] is True
    profile = ask("GET", "/v1/features/spend/profile").json()
    assert (profile["version"], profile["rows"]) == ("1.0.0", 4)
    assert [c["distinct"] for c in profile["columns"] if c["name"] == "user_id"] == [3]
    against = ask("GET", "/v1/features/spend/profile?against=2020-01-01..").json()
    assert against == profile | {"drift": against["drift"]}
    assert {column["verdict"] for column in against["drift"]["columns"]} == {"unknown"}
    difference = ask("GET", "/v1/features/spend/diff?a=1.0.0").json()
    assert (difference["b"], difference["bump"], difference["rows"]["changed"]) == (
        "1.0.0",
        None,
        0,
    )


def test_health_readiness_and_figures(ask: Caller) -> None:
    assert ask("GET", "/healthz").json() == {"alive": True}
    assert ask("GET", "/readyz").json() == {
        "ready": True,
        "served": {"spend": "1.0.0", "other": "1.0.0"},
    }
    ask("POST", PLAIN, json={"entities": []})
    ask("POST", '/v1/services/a"b', json={"entities": []})
    lines = ask("GET", "/metrics").text.splitlines()
    assert f'mlforge_http_requests_total{{route="{PLAIN}",status="200"}} 1' in lines
    assert 'mlforge_http_requests_total{route="unknown",status="404"} 1' in lines
    assert f'mlforge_http_request_seconds_count{{route="{PLAIN}"}} 1' in lines
    assert "mlforge_http_in_flight 1" in lines


def test_the_openapi_document_types_each_service_and_has_each_route(ask: Caller) -> None:
    document = ask("GET", "/openapi.json").json()
    assert set(document["paths"]) >= {
        PLAIN,
        CHECKOUT,
        FEATURES,
        "/readyz",
        "/v1/features/{feature}/explain",
    }
    post = document["paths"][CHECKOUT]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["entities", "request"]
    assert body["properties"]["entities"]["items"]["properties"] == {
        "user_id": {"type": "integer", "format": "int64"},
        "buyer_id": {"type": "integer", "format": "int64"},
    }
    assert body["properties"]["request"]["items"]["properties"]["when"] == {
        "type": ["string", "null"],
        "format": "date-time",
    }
    nested, flat = post["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    of_features = nested["properties"]["features"]["properties"]
    assert of_features["buyer"]["items"]["properties"] == {
        "amount__sum__2d": {"type": ["number", "null"], "format": "double"}
    }
    answer = ask("POST", CHECKOUT, json=BODY).json()
    assert set(answer) == set(nested["required"])
    rows_of = ask("POST", f"{CHECKOUT}?layout=flat", json=BODY).json()["rows"]
    assert list(flat["properties"]["rows"]["items"]["properties"]) == list(rows_of[0])
    names = [parameter["name"] for parameter in document["paths"][CHECKOUT]["get"]["parameters"]]
    assert names[:5] == ["user_id", "buyer_id", "price", "when", "day"]
    parameters = document["paths"][CHECKOUT]["get"]["parameters"]
    assert [parameter["required"] for parameter in parameters[:5]] == [True] * 5
    refused = ask("GET", f"{CHECKOUT}?user_id=1&buyer_id=2&price=1&when=2026-01-05T00:00:00Z")
    assert refused.status_code == 422
    assert parameters[2]["schema"] == {"type": "number", "format": "double"}
    assert set(document["paths"]["/v1/services/{service}@{version}"]) == {"get", "post"}
    operations = [
        each["operationId"] for path in document["paths"].values() for each in path.values()
    ]
    assert len(set(operations)) == len(operations)


def test_a_key_opens_what_it_allows_as_often_as_it_allows(
    served: Definitions, tmp_path: Path
) -> None:
    hashes = {name: sha256(name.encode()).hexdigest() for name in ("all", "some", "slow")}
    file = tmp_path / "keys.toml"
    file.write_text(
        f'[every]\nsha256 = "{hashes["all"]}"\n[shop]\nsha256 = "{hashes["some"]}"\nservices = ["plain"]\n'
        f'[rare]\nsha256 = "{hashes["slow"]}"\nper_second = 1e-6\n'
    )
    ask = Caller(App(served, keys=file))
    one = f"{PLAIN}?user_id=1"

    def status(path: str, key: str | None, scheme: str = "Bearer") -> int:
        headers = {} if key is None else {"authorization": f"{scheme} {key}"}
        return ask("GET", path, headers=headers).status_code

    assert [status(one, key) for key in ("all", "some", "slow", "slow")] == [200, 200, 200, 429]
    assert [status(one, key) for key in (None, "", "ALL", hashes["all"])] == [401] * 4
    assert status(one, "all", "Basic") == 401
    assert [status(path, None) for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 401]
    others = (
        f"{CHECKOUT}?user_id=1",
        "/v1/catalog",
        "/openapi.json",
        "/v1/features/spend",
        f"{PLAIN}/",
    )
    assert [status(path, "some") for path in others] == [403] * 5
    assert (
        ask("POST", FEATURES, json={}, headers={"authorization": "Bearer some"}).status_code == 403
    )
    assert ask("GET", one).headers["www-authenticate"] == "Bearer"
    refused = ask("GET", one, headers={"authorization": "Bearer slow"})
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    document = ask("GET", "/openapi.json", headers={"authorization": "Bearer all"}).json()
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_requests_are_let_in_again_as_time_goes_by() -> None:
    now = [0.0]
    key = ApiKey("app", sha256(b"key").hexdigest(), per_second=2)
    admission = Admission([key], lambda: now[0])

    def refused() -> bool:
        try:
            asyncio.run(
                admission.check({"path": PLAIN, "headers": [(b"authorization", b"Bearer key")]})
            )
        except Refused:
            return True
        return False

    assert [refused() for _ in range(3)] == [False, False, True]
    now[0] = 0.5
    assert [refused() for _ in range(2)] == [False, True]
    now[0] = 100.0
    assert [refused() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("[a", "cannot be read"),
        ("a = 1", "is no table"),
        ("[a]", "64 hex digits"),
        ('[a]\nsha256 = "HASH"\nservice = []', "did you mean 'services'?"),
        ('[a]\nsha256 = "HASH"\nservices = "plain"', "a list of names"),
        ('[a]\nsha256 = "HASH"\nservices = ["plan"]', "did you mean 'plain'?"),
        ('[a]\nsha256 = "HASH"\nper_second = 0', "a number above 0"),
        ('[a]\nsha256 = "HASH"\nper_second = true', "a number above 0"),
        ('[a]\nsha256 = "HASH"\n[b]\nsha256 = "HASH"', "two entries have one key"),
        (f'[a]\nsha256 = "{sha256(b"").hexdigest()}"', "which everybody has"),
    ],
)
def test_a_file_of_keys_that_is_not_understood_ends_the_start(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text.replace("HASH", "a" * 64))
    with pytest.raises(DefinitionError) as refused:
        keys_in(file, {"plain": None})
    assert said in str(refused.value)
    assert "a" * 64 not in str(refused.value)
    with pytest.raises(DefinitionError, match="cannot be read"):
        keys_in(tmp_path / "none.toml", {})


def test_definitions_without_an_online_store_cannot_be_served(served: Definitions) -> None:
    served.online_store = None
    with pytest.raises(DefinitionError, match="REDIS_URL"):
        App(served)
