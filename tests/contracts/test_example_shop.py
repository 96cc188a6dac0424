"""The example shop: what it generates, builds, lets flow down its chain and serves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from examples.shop.definitions import defs as shop
from examples.shop.generate import days, write
from mlforge import Definitions, get_online_features, get_training_data
from mlforge.core import clock
from mlforge.core.values import from_us
from mlforge.online import RedisStore
from mlforge.store import LocalStore

UNTIL = datetime(2026, 3, 12, 18, tzinfo=UTC)


def test_the_same_seed_gives_the_same_rows_and_another_gives_others() -> None:
    one, again, other = (next(days(1, UNTIL, seed)) for seed in (7, 7, 8))
    for table in ("transactions", "profiles", "products"):
        assert getattr(one, table).equals(getattr(again, table))
        assert not getattr(one, table).equals(getattr(other, table))


def test_a_day_does_not_depend_on_the_days_before_it() -> None:
    *_, late = days(3, UNTIL)
    *_, later = days(5, UNTIL)
    assert late.transactions.equals(later.transactions)
    assert late.products.equals(later.products)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Any:
    """The shop of nine days, a tenth day dropped after the first build: definitions, online store, outcomes."""
    root = tmp_path_factory.mktemp("shop")
    *history, last = days(10, UNTIL)
    online = RedisStore.from_url(redis_server, prefix="example_shop")
    defs = Definitions(
        store=LocalStore(root / "store"),
        features=list(shop.features.values()),
        online_store=online,
        root=root,
    )
    with clock.fixed(UNTIL):
        for day in history:
            write(root / "data", day)
        defs.build(online=True)
        write(root / "data", last)
        yield defs, online, defs.build(online=True)
    online.close()


def test_a_drop_flows_to_the_feature_on_a_feature(built: Any) -> None:
    defs, _, outcomes = built
    assert {name: str(outcomes[name].version) for name in defs.features} == dict.fromkeys(
        defs.features, "1.0.1"
    )
    assert defs.store.read_metadata("user_peaks").source == "feature:user_spend@1.0.1"


def test_nothing_of_it_is_null_everywhere(built: Any) -> None:
    defs, _, _ = built
    for name in defs.features:
        table = defs.store.read(name)
        for column in table.columns:
            assert table[column].null_count() < table.height, f"{name}: {column}"


def test_training_and_online_agree_for_each_entity(built: Any) -> None:
    defs, online, _ = built
    for name, feature in defs.features.items():
        key = feature.spec.keys[0]
        as_of = from_us(online.books(name).target.as_of)
        entities = defs.store.read(name, columns=[key]).unique().sort(key)
        spine = entities.with_columns(at=pl.lit(as_of))
        training = get_training_data(spine, [name], store=defs.store, timestamp="at").drop("at")
        answers = get_online_features([name], entities.to_dicts(), store=online, at=as_of)
        assert len(answers) == entities.height > 0
        for want, answer in zip(training.iter_rows(named=True), answers, strict=True):
            for column, value in want.items():
                near = pytest.approx(value) if isinstance(value, float) else value
                assert answer[column] == near, f"{column} of {answer[key]}"
