"""A feature without keys: the whole source is one entity, wherever its value is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from mlforge import explain, get_online_features, get_training_data
from mlforge.build.diff import diff
from mlforge.cli import main
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import BuildError, RetrievalError
from mlforge.frames.encoding import key_hash
from mlforge.maintenance.sampling import ALL
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from tests.support.projects import Project, at, rows

METRICS = [Rolling(["2d", "7d"], {"amount": ["sum", "count"]})]


@pytest.fixture(params=["polars", "duckdb"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    project = Project(tmp_path, request.param)
    project.drop("a", rows((1, 0, 1.0), (2, 1.5, 5.0)))
    return project


def everything(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("at", "amount")


def total(df: Any) -> pl.DataFrame:
    return df.select(pl.col("amount").sum(), pl.len().alias("orders"))


def test_every_row_of_a_spine_joins_the_one_entity(project: Project) -> None:
    defs = project.definitions(
        project.define(everything, keys=[], name="windows", metrics=METRICS),
        project.define(everything, keys=[], name="days", metrics=METRICS, interval="1d"),
        project.define(everything, keys=[], name="last", metrics=[]),
        project.define(total, keys=[], name="total", metrics=[], timestamp=None),
    )
    defs.build()
    spine = pl.DataFrame({"user_id": [7, 8, 9], "at": [at(1), at(2.5), None]})
    answer = get_training_data(spine, ["windows", "days", "last", "total"], project.store)
    assert answer["windows__amount__sum__7d"].to_list() == [1.0, 6.0, None]
    assert answer["windows__amount__count__2d"].to_list() == [1, 1, 0]
    assert answer["days__amount__sum__7d"].to_list() == [1.0, 6.0, None]
    assert answer["last__amount"].to_list() == [1.0, 5.0, None]
    assert answer["total__orders"].to_list() == [2, 2, 2]
    without_columns = get_training_data(pl.DataFrame(height=2), ["total"], project.store)
    assert without_columns["total__amount"].to_list() == [6.0, 6.0]


@pytest.mark.parametrize("interval", [None, "1d"])
def test_a_drop_gives_what_a_full_build_gives(project: Project, interval: str | None) -> None:
    feature = project.define(everything, keys=[], metrics=METRICS, interval=interval)
    defs = project.definitions(feature)
    project.drop("many", rows(*((n % 5, n / 7, float(n)) for n in range(60))))
    defs.build()
    project.drop("late", rows((3, 2.2, 100.0), (None, 8.1, 7.0)))
    result = defs.build()["spend"]
    assert result.mode == "incremental"
    incremental = project.store.read("spend")
    (project.root / "events" / "late.parquet").rename(project.root / "events" / "other.parquet")
    defs.build(full=True, version="2.0.0")
    assert project.store.read("spend").equals(incremental)
    assert diff(project.store, "spend", "1.0.0", "1.0.1").rows is not None
    assert defs.audit("spend", ALL).mismatches == 0


def test_online_it_is_one_row_that_is_read_with_no_key(
    project: Project, online: RedisStore, redis_url: str
) -> None:
    features = [
        project.define(everything, keys=[], name="windows", metrics=METRICS),
        project.define(total, keys=[], name="total", metrics=[], timestamp=None),
        project.define(name="spend"),
    ]
    defs = project.definitions(*features, online_store=online)
    with clock.fixed(to_us(at(3))):
        assert defs.build(online=True)["windows"].keys_written == 1
        [row] = get_online_features(["windows", "total"], [{}], online)
        assert (row["windows__amount__sum__7d"], row["total__orders"]) == (6.0, 2)
        project.drop("b", rows((3, 2, 10.0)))
        defs.build(online=True)
        answers = get_online_features(
            ["windows", "spend"], [{"user_id": 1}, {"user_id": 3}], online
        )
        assert [row["windows__amount__sum__7d"] for row in answers] == [16.0, 16.0]
        assert online.exists("total", {})
        assert Redis.from_url(redis_url).get(f"mlforge:total:{key_hash({})}")
        assert [defs.audit(name, ALL).mismatches for name in ("windows", "total")] == [0, 0]
        with pytest.raises(RetrievalError, match="there are no keys: write"):
            get_online_features(["windows"], [{"user_id": 1}], online)


def test_its_row_goes_when_all_windows_are_empty(project: Project, online: RedisStore) -> None:
    feature = project.define(everything, keys=[], metrics=METRICS, online_clock="wall")
    defs = project.definitions(feature, online_store=online)
    with clock.fixed(to_us(at(3))):
        defs.build(online=True)
        assert online.exists("spend", {})
    with clock.fixed(to_us(at(30))):
        defs.build(online=True)
        assert not online.exists("spend", {})
        [row] = get_online_features(["spend"], [{}], online)
        assert row == {
            "spend__amount__sum__2d": None,
            "spend__amount__sum__7d": None,
            "spend__amount__count__2d": 0,
            "spend__amount__count__7d": 0,
        }


def test_two_rows_without_a_timestamp_are_refused(project: Project) -> None:
    feature = project.define(everything, keys=[], metrics=[], timestamp=None)
    with pytest.raises(BuildError, match="2 rows, and no keys; without a timestamp"):
        project.definitions(feature).build()


def test_a_file_without_rows_is_no_fault(project: Project) -> None:
    feature = project.define(total, keys=[], metrics=[], timestamp=None)
    project.drop("empty", rows())
    assert project.definitions(feature).build()["spend"].rows == 1
    alone = project.define(everything, keys=[], metrics=[], timestamp=None, name="alone")
    project.drop("a", rows())
    project.drop("unlike", rows().drop("amount"))
    assert project.definitions(alone).build()["alone"].quarantined == ()


def test_explain_takes_no_key(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    feature = project.define(everything, keys=[], metrics=METRICS)
    project.definitions(feature).build()
    explained = explain("spend", {}, project.store, at=at(2))
    assert [(v.column, v.value) for v in explained.values][:2] == [
        ("amount__sum__2d", 6.0),
        ("amount__sum__7d", 6.0),
    ]
    assert explained.rows.height == 2
    (project.root / "definitions.py").write_text(
        "import polars as pl\nfrom mlforge import *\nfrom mlforge.metrics import Rolling\n"
        "from mlforge.store import LocalStore\n"
        "@feature(keys=[], source='events', timestamp='at', metrics=[Rolling('7d', {'amount': ['sum']})])\n"
        "def spend(df): return df.select('at', 'amount')\n"
        "defs = Definitions(store=LocalStore('store'), features=[spend])\n"
    )
    options = ["--definitions", str(project.root / "definitions.py")]
    assert main(["explain", "spend", *options]) == 0
    assert "amount__sum__7d" in capsys.readouterr().out
    assert main(["explain", "spend", "user_id=1", *options]) == 1
    assert "there are no keys" in capsys.readouterr().err
