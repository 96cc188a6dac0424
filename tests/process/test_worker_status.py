"""What `mlforge status` says of holds is true now, not only when they began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from mlforge.core import clock
from mlforge.errors import IntegrityError, MissingExtra, StoreUnavailable
from mlforge.maintenance.operations import rollback
from mlforge.sources.row_source import RowSource
from tests.support import contents
from tests.support.workers import Shop, eventually, purchases, write
from worker.monitor.screen import render
from worker.monitor.status import gather
from worker.project import Gone
from worker.service.embedded_redis import EmbeddedServer


@pytest.fixture
def shop(server: EmbeddedServer, redis: Redis, tmp_path: Path) -> Iterator[Shop]:
    """Two files, built; then both went, and an unattended refresh held the feature."""
    made = Shop(tmp_path, server.url)
    for name in "ab":
        write(made.folder / f"drops/{name}.parquet", purchases((1, 0, 2.0)))
    definitions = made.project.definitions
    definitions.refresh("spend")
    for name in "ab":
        (made.folder / f"drops/{name}.parquet").rename(made.folder / name)
    assert definitions.refresh("spend", attended=False).held
    yield made
    made.stop()


def shown(shop: Shop) -> str:
    return render(gather(shop.project))


def test_a_hold_says_what_is_missing_now(shop: Shop) -> None:
    assert "spend: held: 2 of 2 files are gone" in shown(shop)
    assert "spend: now: 2 of the 2 files of 1.0.0 are not there now" in shown(shop)
    (shop.folder / "a").rename(shop.folder / "drops/a.parquet")
    assert "spend: now: 1 of the 2 files of 1.0.0 are not there now" in shown(shop)


def test_a_hold_whose_files_are_back_says_so_and_what_to_do(shop: Shop) -> None:
    for name in "ab":
        (shop.folder / name).rename(shop.folder / f"drops/{name}.parquet")
    told = "all 2 files of 1.0.0 are there now: `mlforge approve spend` goes on with them"
    assert f"spend: now: {told}" in shown(shop)
    document = json.loads(shop.ask("status", "--json").stdout)
    [spend] = [f for f in document["features"] if f["feature"] == "spend"]
    assert (spend["state"], spend["held_now"], document["well"]) == ("held", told, False)
    shop.project.definitions.refresh("spend")
    write(shop.folder / "drops/c.parquet", purchases((1, 1, 2.0)))
    shop.project.definitions.refresh("spend")
    rollback(shop.project.definitions.store, "spend")
    assert "spend: held: rolled back from 1.0.1" in shown(shop)
    assert "spend: now:" not in shown(shop), (
        "an approval goes on with other files than the version's"
    )


def test_a_hold_whose_source_is_gone_says_that(shop: Shop) -> None:
    (shop.folder / "drops").rmdir()
    assert f"spend: now: its source {shop.folder / 'drops'} is not there" in shown(shop)


@pytest.mark.parametrize(
    "fault",
    [MissingExtra("a table needs an extra"), IntegrityError("a part is gone"), OSError("io")],
)
def test_a_held_feature_whose_source_cannot_be_looked_at_says_so_beside_all_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(type(shop.project.definitions.source("spend")), "scan", raising(fault))
    features = {each.feature: each for each in gather(shop.project).features}
    assert features["spend"].state == "held"
    assert str(fault) in (features["spend"].held_now or "")
    assert features["slow"].state == "waiting"


def test_a_feature_whose_source_lies_where_nobody_may_look_is_unreadable_beside_all_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowSource, "missing", property(raising(PermissionError("denied"))))
    features = gather(shop.project).features
    assert {each.unreadable for each in features} == {("its source cannot be read: denied",)}
    assert len(features) >= 2


def raising(fault: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise fault

    return fail


def test_a_hold_for_files_that_are_set_aside_does_not_say_that_an_approval_goes_on_with_them(
    shop: Shop,
) -> None:
    write(shop.folder / "slow/a.parquet", purchases((1, 0, 2.0)))
    definitions = shop.project.definitions
    definitions.refresh("slow")
    text = pl.read_parquet(shop.folder / "slow/a.parquet").with_columns(
        pl.col("amount").cast(pl.String)
    )
    for name in "bc":
        write(shop.folder / f"slow/{name}.parquet", contents.as_parquet(text))
    assert definitions.refresh("slow", attended=False).held
    assert "slow: now: 1 of the 1 files of 1.0.0 are there and set aside" in shown(shop)
    assert "`mlforge approve slow` goes on with them" not in shown(shop)
    for name in "bc":
        (shop.folder / f"slow/{name}.parquet").unlink()
    definitions.refresh("slow", attended=False)
    assert "slow: now:" not in shown(shop)


def test_status_shows_all_that_an_operator_asks_for(shop: Shop) -> None:
    [spend] = [f for f in gather(shop.project).to_json()["features"] if f["feature"] == "spend"]
    wanted = {"version", "rows", "as_of", "online_version", "lag", "quarantine", "freshness"}
    assert wanted | {"audit", "held", "error", "retry_at", "failing_since"} <= set(spend)
    whole = gather(shop.project).to_json()
    assert {"queued", "workers", "warnings", "well"} <= set(whole)


@pytest.mark.slow
def test_status_goes_on_showing_when_it_is_asked_to_watch(shop: Shop) -> None:
    watching = shop.start("status", "--watch", "--json")
    log = shop.folder / "output.log"
    eventually(lambda: log.read_text().count('"project": "shop"') >= 2)
    assert watching.poll() is None


@pytest.mark.slow
def test_a_file_that_is_no_parquet_is_shown_though_no_refresh_has_seen_it(shop: Shop) -> None:
    path = shop.folder / "drops/e.csv"
    path.write_text("user_id,amount\n1,2\n")
    assert "ignored" not in shown(shop)
    assert "spend: ignored e.csv: not parquet; convert it" in " ".join(
        shop.ask("status").stdout.split()
    )
    document = json.loads(shop.ask("status", "--json").stdout)
    [spend] = [f for f in document["features"] if f["feature"] == "spend"]
    assert list(spend["ignored"]) == ["e.csv"]
    waited = shop.ask("wait", str(path))
    assert (waited.returncode, "ignored e.csv: not parquet; convert it" in waited.stderr) == (
        1,
        True,
    )
    path.unlink()
    assert "ignored" not in shop.ask("status").stdout


@pytest.mark.parametrize(
    ("setting", "refusing"), [("min-replicas-to-write", "1"), ("maxmemory", "1")]
)
def test_a_server_that_answers_and_refuses_writes_is_named(
    shop: Shop, setting: str, refusing: str
) -> None:
    queue = shop.project.redis
    assert "refuses to write" not in shown(shop)
    before = queue.config_get(setting)[setting]
    queue.config_set(setting, refusing)
    try:
        assert "warning: Redis answers, but refuses to write" in shown(shop)
    finally:
        queue.config_set(setting, before)
    assert "refuses to write" not in shown(shop)
    assert not queue.exists(f"mlforge-work:{shop.project.scope}:nothing")


def test_status_goes_on_where_the_store_cannot_be_asked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the credentials of its bucket have expired."""

    def refuse(*_: object) -> None:
        raise StoreUnavailable("the credentials have expired")

    project = shop.project
    gone = [Gone("visits", clock.now(), clock.now())]
    monkeypatch.setattr(type(project), "gone", lambda _: gone)
    for name in ("pointer", "books", "audit", "renames"):
        monkeypatch.setattr(project.definitions.store, name, refuse)
    told = shown(shop)
    assert "warning: the store cannot be read (the credentials have expired): nothing new" in told
    assert told.count("the credentials have expired") == 1, "not once for each feature"
    assert "visits is gone from the definitions" in told
