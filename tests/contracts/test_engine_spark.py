"""`engine="spark"`: polars computes, and what is big goes to Spark, of that feature alone."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Feature, feature
from mlforge.definitions.runners import without_address
from mlforge.errors import BuildError, DefinitionError
from mlforge.metrics import Rolling
from mlforge.runners import SparkRunner
from mlforge.store import LocalStore

NOBODY = "sc://127.0.0.1:1"


def _spend(name: str, engine: str | None) -> Feature:
    def function(df: pl.DataFrame) -> pl.DataFrame:
        return df

    return feature(
        keys=["user_id"],
        source="events.parquet",
        timestamp="at",
        metrics=[Rolling("7d", {"amount": "sum"})],
        engine=engine,
        name=name,
    )(function)


def _definitions(root: Path, *features: Feature, **settings: Any) -> Definitions:
    times = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    events = pl.DataFrame({"user_id": ["a", "b", "a"], "at": times, "amount": [1.0, 2.0, 4.0]})
    events.write_parquet(root / "events.parquet")
    return Definitions(LocalStore(root / "store"), features=features, root=root, **settings)


def test_small_work_stays_here_and_is_that_of_polars(tmp_path: Path) -> None:
    chosen, plain = _spend("chosen", "spark"), _spend("plain", None)
    definitions = _definitions(tmp_path, chosen, plain, runner=SparkRunner(remote=NOBODY))

    built = definitions.build()

    assert {result.engine for result in built.values()} == {"polars"}
    store = definitions.store
    hashes = {store.read_metadata(name).content_hash for name in built}
    assert len(hashes) == 1


def test_big_work_of_that_feature_alone_goes_to_spark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_REMOTE", NOBODY)
    definitions = _definitions(
        tmp_path, _spend("chosen", "spark"), _spend("plain", None), distribute_above=0
    )

    with pytest.raises(BuildError, match="chosen: spark: no file holds") as error:
        definitions.build(full=True)

    assert set(error.value.failures) == {"chosen"}
    assert definitions.build(features="chosen", engine="polars")["chosen"].changed


def test_without_an_address_small_work_goes_on_and_big_work_says_where_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    spend = _spend("plain", None)
    small = _definitions(tmp_path, spend, engine="spark")
    assert small.build()["plain"].changed
    [sentence] = without_address(small, ["plain"])
    assert "set SPARK_REMOTE=" in sentence
    assert sentence.endswith("it fails where work is of more than 50,000,000 events")
    assert without_address(small, ["plain"], "polars") == []
    big = _definitions(tmp_path, spend, engine="spark", distribute_above=0)
    with pytest.raises(BuildError, match=r"set SPARK_REMOTE=.*fallback=\"local\""):
        big.build(full=True, version="2.0.0")
    alone = _definitions(tmp_path, spend, engine="spark", distribute_above=0, fallback="local")
    assert alone.build(full=True, version="2.0.0")["plain"].changed


@pytest.mark.parametrize(
    "addresses", [{}, {"address": NOBODY, "remote": NOBODY}, {"remote": NOBODY, "master": "yarn"}]
)
def test_a_runner_has_one_address(addresses: dict[str, str]) -> None:
    with pytest.raises(DefinitionError, match="SparkRunner: give one address"):
        SparkRunner(**addresses)
    assert SparkRunner(master="yarn").address == "yarn"
