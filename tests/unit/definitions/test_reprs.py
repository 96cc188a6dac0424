"""What people see of a project's values at a prompt."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mlforge import Definitions, Service, events_of, feature
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
    (tmp_path / "events" / "b.parquet").touch()
    [built] = definitions.build().values()
    [again] = definitions.build().values()
    some = spend["amount__sum__7d"].as_("buyer", user_id="buyer_id")
    service = Service("checkout", [some], request={"n": pl.Int64}, derive={"twice": "n * 2"})
    shown = [
        spend,
        some,
        service,
        definitions.store.latest("spend"),
        service.lock(definitions.store),
        definitions,
        Definitions(definitions.store, [spend], root=tmp_path, name="shop", services=[service]),
        again,
        events_of(spend),
        events_of("spend", every="1d", between=("2026-01-01", "2026-03-01")),
    ]
    summary = "BuildResult('spend': 1.0.0 new, first_build, 2 rows, full in "
    assert repr(built).startswith(summary)
    assert repr(built).endswith(", 1 file set aside)")
    assert [*map(repr, shown)] == [
        "Feature('spend': keys user_id, source 'events/', timestamp at, interval 1d, 2 metrics)",
        "spend['amount__sum__7d'].as_('buyer', user_id='buyer_id')",
        "Service('checkout': of spend, 2 columns of its own)",
        "Manifest('spend' 1.0.0: 2 rows, 4 columns, of 1 file)",
        "Lock('checkout': 3 columns of spend@1.0.0)",
        f"Definitions({tmp_path.name!r}: 1 feature, LocalStore({str(tmp_path / 'store')!r}))",
        f"Definitions('shop': 1 feature, 1 service, LocalStore({str(tmp_path / 'store')!r}))",
        "BuildResult('spend': 1.0.0, unchanged, 2 rows, 1 file set aside)",
        "events_of(spend)",
        "events_of(spend, every='1d', between=('2026-01-01T00:00:00.000000Z', '2026-03-01T00:00:00.000000Z'))",
    ]
