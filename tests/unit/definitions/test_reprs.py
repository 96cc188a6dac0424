"""What people see of a project's values at a prompt."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


def test_values_print_as_one_line_that_names_what_they_are(tmp_path: Path) -> None:
    @feature(
        keys=["user_id"],
        source="events/",
        timestamp="at",
        interval="1d",
        metrics=[Rolling(["1d", "7d"], {"amount": "sum"})],
    )
    def spend(df: pl.DataFrame) -> pl.DataFrame:
        return df

    events = pl.DataFrame({"user_id": [1, 2], "at": [0, 86_400_000_000], "amount": [1.0, 2.0]})
    (tmp_path / "events").mkdir()
    at = pl.col("at").cast(pl.Datetime("us", "UTC"))
    events.with_columns(at).write_parquet(tmp_path / "events" / "a.parquet")
    definitions = Definitions(LocalStore(tmp_path / "store"), [spend], root=tmp_path)
    definitions.build()
    some = spend["amount__sum__7d"].as_("buyer", user_id="buyer_id")
    service = Service("checkout", [some], request={"n": pl.Int64}, derive={"twice": "n * 2"})
    shown = [
        spend,
        some,
        service,
        definitions.store.latest("spend"),
        service.lock(definitions.store),
    ]
    assert [*map(repr, shown)] == [
        "Feature('spend': keys user_id, source 'events/', timestamp at, interval 1d, 2 metrics)",
        "spend['amount__sum__7d'].as_('buyer', user_id='buyer_id')",
        "Service('checkout': of spend, 2 columns of its own)",
        "Manifest('spend' 1.0.0: 2 rows, 4 columns, of 1 file)",
        "Lock('checkout': 3 columns of spend@1.0.0)",
    ]
