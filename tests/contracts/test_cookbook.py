"""The page "Cookbook" says what is true: its features are built, trained from and served."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Feature, get_online_features, get_training_data
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.online import RedisStore
from mlforge.store import LocalStore

PAGE = Path(__file__).parents[2] / "docs" / "cookbook.md"
END = datetime(2026, 3, 31, tzinfo=UTC)
ROWS = 240
IDS = ("user_id", "card_id", "device_id", "campaign_id", "creative_id", "product_id", "borrower_id")
DRAWS: dict[str, Any] = {
    **{name: (lambda r: r.randint(1, 4)) for name in (*IDS, "machine_id")},
    "merchant_id": lambda r: r.choice(["m1", "m2", "m3"]),
    "service": lambda r: r.choice(["api", "web"]),
    **dict.fromkeys(("amount", "bid", "price", "due", "paid"), lambda r: round(r.uniform(1, 90), 2)),
    **dict.fromkeys(("asked", "income", "minutes", "ms"), lambda r: r.uniform(1, 900)),
    "celsius": lambda r: r.gauss(60, 9),
    "status": lambda r: r.choice(["ok", "ok", "declined", "refunded"]),
    "country": lambda r: r.choice(["de", "de", "fr", "us"]),
    "category": lambda r: r.choice(["shoes", "books", "toys"]),
    "plan": lambda r: r.choice(["free", "plus", "pro"]),
    **dict.fromkeys(("clicked", "bought", "resolved"), lambda r: r.random() < 0.3),
    **dict.fromkeys(("days_late", "severity", "seats"), lambda r: r.randint(0, 9)),
    "since": lambda r: END - timedelta(days=r.randint(1, 900)),
    "code": lambda r: r.choice([200, 200, 404, 503]),
}  # fmt: skip
SOURCES = {
    "payments": ["user_id", "card_id", "device_id", "merchant_id", "amount", "status", "country"],
    "impressions": ["user_id", "campaign_id", "creative_id", "bid", "clicked"],
    "views": ["user_id", "product_id", "category", "price", "bought"],
    "repayments": ["borrower_id", "days_late", "due", "paid"],
    "applications": ["borrower_id", "asked", "income"],
    "sessions": ["user_id", "minutes"],
    "plans": ["user_id", "plan", "since", "price", "seats"],
    "tickets": ["user_id", "severity", "resolved"],
    "requests": ["service", "ms", "code"],
    "readings": ["machine_id", "celsius"],
}


def recipes() -> list[Feature]:
    """The features of the page's blocks, in order."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "cookbook"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # the page is ours
    return [value for value in names.values() if isinstance(value, Feature)]


def write_sources(root: Path) -> None:
    """Events of the last 80 days, the newest of them close together."""
    r = random.Random(7)
    for source, columns in SOURCES.items():
        ages = sorted((r.random() ** 4 * 80 for _ in range(ROWS)), reverse=True)
        frame = pl.DataFrame(
            {
                "at": [END - timedelta(days=age) for age in ages],
                **{name: [DRAWS[name](r) for _ in range(ROWS)] for name in columns},
            }
        )
        (root / source).mkdir()
        frame.rename({"code": "status"}, strict=False).write_parquet(root / source / "a.parquet")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Any:
    """All features of the page, built and pushed, and their online store."""
    root = tmp_path_factory.mktemp("cookbook")
    write_sources(root)
    online = RedisStore.from_url(redis_server, prefix="cookbook")
    defs = Definitions(
        store=LocalStore(root / "store"), features=recipes(), online_store=online, root=root
    )
    with clock.fixed(to_us(END + timedelta(hours=1))):
        defs.build(online=True)
        yield defs, online
    online.close()


def spine() -> pl.DataFrame:
    keys = {name: [1, 2, 3, 4] for name in (*IDS, "machine_id")}
    texts = {"merchant_id": ["m1", "m2", "m3", "m1"], "service": ["api", "web", "api", "web"]}
    return pl.DataFrame({**keys, **texts, "at": [END - timedelta(minutes=1)] * 4})


def test_there_are_at_least_25_recipes_and_each_runs(shelf: Any) -> None:
    defs, _ = shelf
    names = list(defs.features)
    assert len(names) >= 25
    training = get_training_data(spine(), names, defs.store)
    for name, feature in defs.features.items():
        for column in feature.spec.derived:
            values = training[f"{name}__{column.name}"]
            assert values.null_count() < len(values), f"{name}: {column.name} is null everywhere"


def test_each_recipe_answers_online_what_training_says(shelf: Any) -> None:
    defs, online = shelf
    for name, feature in defs.features.items():
        target = online.books(name).target
        rows = spine().with_columns(at=pl.lit(target.as_of).cast(pl.Datetime("us", "UTC")))
        training = get_training_data(rows, [name], defs.store)
        entities = rows.select(feature.spec.keys).to_dicts() if feature.spec.keys else [{}] * 4
        answers = get_online_features([name], entities, online, at=target.as_of)
        columns = [column for column in training.columns if column.startswith(f"{name}__")]
        expected = training.select(columns).to_dicts()
        for answer, want in zip(answers, expected, strict=True):
            for column, value in want.items():
                near = pytest.approx(value) if isinstance(value, float) else value
                assert answer[column] == near, column
