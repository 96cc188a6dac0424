"""The page "Services" says what is true: its blocks are run, in order, over features as it names them."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, aget_online_features, get_online_features, get_training_data
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.definitions.services import keep_services
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.retrieval.details import ValueDetails
from tests.support.paths import ROOT
from tests.support.projects import Project, at, rows

PAGE = ROOT / "docs" / "services.md"


def profile(df: pl.DataFrame) -> pl.DataFrame:
    ages = df.select("user_id", seen="at", age=pl.col("user_id") + 20)
    return ages.with_columns(country=pl.lit("DE")).unique(
        "user_id", keep="last", maintain_order=True
    )


def daily(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("at", "amount", merchant_id=pl.col("user_id") % 2)


@pytest.fixture
def names(tmp_path: Path, online: RedisStore) -> dict[str, Any]:
    """What the page's blocks speak of, built and pushed."""
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 5, 5.0)))
    metrics = [Rolling("7d", {"amount": ["sum", "count"]})]
    spend = project.define(name="user_spend", metrics=metrics)
    merchants = project.define(daily, name="merchant_daily", keys=["merchant_id"], metrics=metrics)
    profiles = project.define(profile, name="user_profile", metrics=[], timestamp=None)
    definitions = project.definitions(spend, merchants, profiles)
    definitions.online_store = online
    with clock.fixed(to_us(at(5))):
        definitions.build(online=True)
    ids = {"user_id": [1, 2], "merchant_id": [1, 0], "buyer_id": [2, 1], "seller_id": [1, 1]}
    return {
        "Definitions": Definitions,
        "get_training_data": get_training_data,
        "get_online_features": get_online_features,
        "user_spend": spend,
        "merchant_daily": merchants,
        "user_profile": profiles,
        "store": definitions.store,
        "redis": online,
        "spine": pl.DataFrame({**ids, "at": [at(4), at(4)], "amount": [12.5, 3.0]}),
        "entities": [{"user_id": 1}],
    }


def test_the_blocks_of_the_page_do_what_it_says(names: dict[str, Any]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    with clock.fixed(to_us(at(5))):
        for block in blocks:
            keep_services(filter(None, [names.get("checkout")]), names["store"])
            exec(compile(block, str(PAGE), "exec"), names)  # the page is ours
        checkout, store, redis = names["checkout"], names["store"], names["redis"]
        trained = get_training_data(names["spine"], checkout, store=store, timestamp="at")
        shown = [name for name in trained.columns if name not in names["spine"].columns]
        request: dict[str, Any] = {"request": [{"amount": 12.5}], "store": redis, "details": True}
        [answer] = get_online_features(checkout, [{"user_id": 1, "buyer_id": 2}], **request)
        details = answer.pop("details")
        assert [*shown] == [
            name for name in answer if name not in ("user_id", "buyer_id", "amount")
        ]
        assert shown[-2:] == ["share", "idle"]
        assert {name: answer[name] for name in shown[:-1]} == {
            name: trained[name][0] for name in shown[:-1]
        }
        assert answer["user_spend__amount__sum__7d"] == 3.0
        two = names["features"]
        both = get_training_data(names["spine"], two, store=store).columns
        assert both[-4:] == ["buyer__age", "buyer__country", "seller__age", "seller__country"]
        assert isinstance(details["share"], ValueDetails)
        assert (details["share"].status, details["idle"].as_of) == ("present", None)
        assert details["user_spend__amount__sum__7d"].age == timedelta(0)
        nobody = [{"user_id": 9, "buyer_id": 9}]
        [answer] = get_online_features(checkout, nobody, **request)
        assert answer["user_spend__amount__sum__7d"] == 0  # the default, and the status stays
        assert answer["details"]["user_spend__amount__sum__7d"].status == "empty"
        assert answer["details"]["buyer__age"].status == "missing"
        [same] = asyncio.run(aget_online_features(checkout, nobody, **request))
        assert same == answer
