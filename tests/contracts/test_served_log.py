"""Served answers that are logged: files of a source, which training takes as its rows and a feature reads."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from mlforge import Definitions, Service, feature, get_training_data
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import DefinitionError
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.serve.app import App
from mlforge.serve.values import served_log
from mlforge.serve.values.served_log import is_logged
from tests.support.projects import Project, at, rows

USERS = list(range(1, 41))


def project_of(tmp_path: Path, online: RedisStore, **options: Any) -> Definitions:
    project = Project(tmp_path)
    project.drop("a", rows(*((user, 1, float(user)) for user in USERS)))
    spend = project.define()
    services = [
        Service(
            "checkout",
            [spend["amount__sum__7d"]],
            request={"price": pl.Float64},
            derive={"share": "price / spend__amount__sum__7d"},
            **options,
        ),
        Service(
            "timed",
            [spend["amount__sum__7d"]],
            request={"when": pl.Datetime("us", "UTC")},
            derive={"waited": "seconds(t - when)"},
            **options,
        ),
        Service("noted", [spend["amount__sum__7d"]], request={"note": pl.String}, **options),
        Service("silent", [spend]),
    ]
    definitions = project.definitions(spend, online_store=online, services=services)
    definitions.root = project.root
    with clock.fixed(to_us(at(5))):
        definitions.build(online=True)
    return definitions


def served(app: App, *requests: tuple[str, dict[str, Any]]) -> list[httpx.Response]:
    """The answers of an application, from its start to its end."""

    async def ask() -> list[httpx.Response]:
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        life = asyncio.create_task(app({"type": "lifespan"}, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            answers = [await client.post(path, content=json.dumps(b)) for path, b in requests]
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await life
        return answers

    with clock.fixed(to_us(at(5.5))):
        return asyncio.run(ask())


def request(*users: Any, **options: Any) -> dict[str, Any]:
    entities = [{"user_id": user} for user in users]
    return {"entities": entities, "request": [{"price": 2.0} for _ in users], **options}


def logged(definitions: Definitions, service: str = "checkout") -> pl.DataFrame:
    files = sorted((definitions.root / "served" / service).glob("*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files]) if files else pl.DataFrame()


def test_what_was_served_is_a_source_from_which_training_makes_the_same_values(
    tmp_path: Path, online: RedisStore
) -> None:
    definitions = project_of(tmp_path, online, log=1)
    path, when = "/v1/services/checkout", at(5.25)
    answers = served(
        App(definitions),
        (path, request(1, "2", 99)),  # 99 has no row
        (path, request(3, at=when.isoformat(), details=True)),
        ("/v1/services/silent", {"entities": [{"user_id": 1}]}),
        (path, request("nobody")),
    )
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    frame = logged(definitions)
    assert frame.schema == {
        "user_id": pl.Int64,
        "price": pl.Float64,
        "spend__amount__sum__7d": pl.Float64,
        "share": pl.Float64,
        "served_at": pl.Datetime("us", "UTC"),
        "spend@version": pl.String,
        "spend@as_of": pl.Datetime("us", "UTC"),
    }
    assert frame["user_id"].to_list() == [1, 2, 99, 3]
    assert frame["served_at"].to_list() == [at(5.5)] * 3 + [when]
    assert set(frame["spend@version"]) == {"1.0.0"}
    assert not (definitions.root / "served" / "silent").exists()
    spine = frame.select("user_id", "price", pl.col("spend@as_of").alias("event_time"))
    trained = get_training_data(
        spine, definitions.services["checkout"], definitions.store, timestamp="event_time"
    )
    same = ["spend__amount__sum__7d", "share"]
    assert trained.select(same).equals(frame.select(same)), "no skew between online and offline"

    @feature(
        keys=["user_id"],
        source="served/checkout/",
        timestamp="served_at",
        metrics=[Rolling(["1d"], {"share": ["mean"]})],
    )
    def shares(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "served_at", "share")

    reading = Definitions(definitions.store, [shares], root=definitions.root)
    with clock.fixed(to_us(at(6))):
        reading.build()
    assert reading.store.books("shares").quarantine == {}
    latest = reading.store.latest("shares")
    assert latest is not None
    assert latest.row_count > 0


def test_the_share_is_of_entities_the_same_at_each_request(
    tmp_path: Path, online: RedisStore
) -> None:
    definitions = project_of(tmp_path, online, log=0.5)
    path = "/v1/services/checkout"
    served(App(definitions), *[(path, request(*USERS))] * 2)
    twice = logged(definitions)["user_id"].to_list()
    users = twice[: len(twice) // 2]
    assert twice == users * 2
    assert users == [user for user in USERS if is_logged({"user_id": user}, 0.5)]
    assert 8 < len(users) < 32
    shares = [{user for user in range(2_000) if is_logged({"u": user}, s)} for s in (0.01, 0.1, 1)]
    assert shares[0] < shares[1] < shares[2] == set(range(2_000))
    assert 5 <= len(shares[0]) <= 40


def test_the_instant_that_is_logged_is_that_of_derived_columns(
    tmp_path: Path, online: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions, when = project_of(tmp_path, online, log=1), at(5.25)
    ticks = count(to_us(at(5.5)), 1_000_000)
    monkeypatch.setattr(clock, "now", lambda: next(ticks))
    asked = {"entities": [{"user_id": 1}], "request": [{"when": when.isoformat()}]}
    [answer] = served(App(definitions), ("/v1/services/timed", asked))
    assert answer.status_code == 200
    [row] = logged(definitions, "timed").rows(named=True)
    assert (row["served_at"] - when).total_seconds() == row["waited"]


def test_a_disk_that_takes_no_log_fails_no_answer_and_its_rows_wait(
    tmp_path: Path, online: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = project_of(tmp_path, online, log=1.0)
    (definitions.root / "served").write_text("no folder")
    app = App(definitions)
    monkeypatch.setattr(served_log, "MOST_HELD", 3)
    answers = served(app, *[("/v1/services/checkout", request(1, 2))] * 2)
    assert [answer.status_code for answer in answers] == [200, 200]
    (definitions.root / "served").unlink()
    served(app)
    assert logged(definitions)["user_id"].to_list() == [1, 2], "more than there is room for"


def test_a_text_that_no_column_holds_is_refused_and_keeps_no_other_rows_from_the_log(
    tmp_path: Path, online: RedisStore
) -> None:
    definitions = project_of(tmp_path, online, log=1)
    notes = [{"entities": [{"user_id": 1}], "request": [{"note": n}]} for n in ("\ud800", "ü")]
    asked = [("/v1/services/noted", note) for note in notes]
    answers = served(App(definitions), *asked, ("/v1/services/checkout", request(1)))
    assert [answer.status_code for answer in answers] == [422, 200, 200]
    assert logged(definitions, "noted")["note"].to_list() == ["ü"]
    assert logged(definitions).height == 1


@pytest.mark.parametrize("share", [0, -0.1, 1.01, True, "1%", float("nan")])
def test_a_share_that_is_none_is_refused(share: Any) -> None:
    with pytest.raises(DefinitionError, match="checkout: log"):
        Service("checkout", ["spend"], log=share)


def test_a_column_of_the_logs_own_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="'served_at' holds the instants"):
        Service("checkout", ["spend"], request={"served_at": pl.Int64}, log=1)
    assert Service("checkout", ["spend"], request={"served_at": pl.Int64}).log is None
