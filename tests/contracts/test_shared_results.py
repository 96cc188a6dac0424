"""Features of one source that a job serves one after the other have the very bytes that each alone would have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import redis

import mlforge.validators as v
from mlforge import Definitions, Feature, get_online_features
from mlforge.build import gathering
from mlforge.build.result import Options
from mlforge.core import clock, failpoints
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.core.values import to_us
from mlforge.engines import Events, function_pass
from mlforge.engines import asked_together as asking
from mlforge.engines.asked_together import asked_together
from mlforge.engines.polars_engine import PolarsEngine
from mlforge.errors import BuildError, DataError, MlforgeError
from mlforge.frames.shared_results import SharedResults, shared_results
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.online.prefetch import read_ahead
from tests.support.projects import Project, at, identity, rows

NOW = to_us(at(40))


def doubled(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.col("amount") * 2)


def with_condition(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount", is_large=pl.col("amount") > 2)


def of(windows: list[str], *aggregations: str, **options: Any) -> list[Rolling]:
    return [Rolling(windows, {"amount": list(aggregations)}, **options)]


FEW: Mapping[str, Mapping[str, Any]] = {
    "spend": {},
    "same": {},
    "other_metrics": {"metrics": of(["2d", "7d"], "mean", "max")},
    "more_metrics": {"metrics": of(["2d", "7d"], "std", "sum", "median", "mean", "count")},
    "other_windows": {"metrics": of(["3d"], "sum", "count")},
    "aligned": {"interval": "1d", "metrics": of(["2d", "7d"], "sum", "count")},
}
ALL = {
    **FEW,
    "left": {"metrics": of(["2d", "7d"], "sum", "count", closed="left")},
    "rows_alone": {"metrics": []},
    "by_wall_clock": {"online_clock": "wall"},
    "checked": {"validators": {"amount": [v.greater_than_or_equal(0)]}},
    "derived": {"derive": {"twice": "amount__sum__2d * 2"}},
    "whole": {"incremental": False},
    "trusted": {"incremental": True},
    "by_duckdb": {"engine": "duckdb"},
    "more_by_duckdb": {
        "engine": "duckdb",
        "metrics": of(["2d", "7d"], "std", "sum", "median", "mean", "count"),
    },
    "one_window_more": {
        "metrics": [
            *of(["2d", "7d"], "sum"),
            *of(["7d"], "min"),
            *of(["2d"], "mean", "count_distinct"),
        ]
    },
}


def features(project: Project, changes: Mapping[str, Mapping[str, Any]]) -> list[Feature]:
    of_one_function = [project.define(name=name, **its) for name, its in changes.items()]
    all_of_them = of(["2d", "7d"], "sum", "max")
    some_of_them = [Rolling(["2d", "7d"], {"amount": ["sum", "max"]}, where="is_large")]
    return [
        *of_one_function,
        project.define(doubled, name="of_another_function"),
        project.define(with_condition, name="large", metrics=some_of_them),
        project.define(with_condition, name="large_or_not", metrics=all_of_them),
        project.define(with_condition, name="both", metrics=[*all_of_them, *some_of_them]),
    ]


def drops(project: Project) -> Iterator[None]:
    """Drops of each kind: the first, a new file, an amended one, one that goes, late and zero amounts."""
    project.drop("a", rows((1, 0, 10.0), (2, 1, 1.0), (3, 6, 2.0), (1, 20, -0.0)))
    yield
    project.drop("b", rows((1, 21, 5.0), (4, 22, 7.0)))
    yield
    project.drop("a", rows((1, 0, 10.0), (2, 1, 3.0), (3, 6, 2.0), (1, 20, 0.0)))
    yield
    project.drop("late", rows((2, 2, 4.0), (None, 3, 1.0), (4, 22, 7.0)))
    yield
    (project.events / "b.parquet").unlink()
    yield


def served(defs: Definitions, names: list[str]) -> SharedResults | None:
    """Refresh and push features in one job."""
    with shared_results() as shared, asked_together(defs.features.values()):
        for name in names:
            # Never a full rebuild for being cheaper.
            refreshed = defs.refresh(name, options=Options(attended=False, cost_share=99))
            defs.push(name, diff=refreshed.diff)
    return shared


def state(project: Project, client: redis.Redis, prefix: str, name: str) -> tuple[Any, ...]:
    """What was published of a feature, the bytes of its events, and all of its rows online, without prefix."""
    versions = [project.store.read_metadata(name, v) for v in project.store.list_versions(name)]
    published = [
        (str(m.version), m.content_hash, m.rows_hash, m.partials, m.watermark) for m in versions
    ]
    events = (project.store.path / name / "_partials").iterdir()
    stored = {file.name: file.read_bytes() for file in events}
    keys = sorted(client.scan_iter(f"{prefix}:{name}:" + "?" * 64))
    return published, stored, {key[len(prefix) :]: client.get(key) for key in keys}


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        yield connection


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "backwards", "warm"),
    [
        pytest.param(FEW, False, True, id="few, with events in memory"),
        pytest.param(ALL, False, True, id="all, with events in memory"),
        pytest.param(ALL, False, False, id="all"),
        pytest.param(ALL, True, True, id="all, backwards"),
    ],
)
def test_what_each_feature_has_does_not_depend_on_those_before_it(
    tmp_path: Path,
    redis_url: str,
    client: redis.Redis,
    changes: Mapping[str, Mapping[str, Any]],
    backwards: bool,
    warm: bool,
) -> None:
    together, alone = Project(tmp_path / "together"), Project(tmp_path / "alone")
    made = {
        project: project.definitions(
            *features(project, changes), online_store=RedisStore.from_url(redis_url, prefix=prefix)
        )
        for prefix, project in (("together", together), ("alone", alone))
    }
    names = [*made[alone].features]
    order = names[::-1] if backwards else names
    handed_on = 0
    with clock.fixed(NOW):
        for _ in zip(drops(together), drops(alone), strict=True):
            shared = served(made[together], order)
            handed_on += shared.handed_on
            for name in names:
                served(made[alone], [name])
            for project in made if warm else ():
                for name in names:
                    read_ahead(project.store, project.store.read_metadata(name))
            for name in names:
                ours = state(together, client, "together", name)
                assert ours == state(alone, client, "alone", name), name
    assert handed_on > 40
    for defs in made.values():
        defs.close()


@pytest.mark.parametrize(
    ("room", "where"),
    [
        pytest.param(16_000_000, function_pass, id="kept"),
        pytest.param(0, function_pass, id="too many values"),
        pytest.param(0, gathering, id="too many events"),
    ],
)
def test_features_of_one_function_are_evaluated_in_one_pass_whatever_their_windows(
    tmp_path: Path,
    redis_url: str,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    where: ModuleType,
) -> None:
    evaluated: list[int] = []
    values = PolarsEngine.values

    def counted(engine: PolarsEngine, events: Events, points: pl.DataFrame) -> pl.DataFrame:
        evaluated.append(len(events.spec.columns))
        return values(engine, events, points)

    monkeypatch.setattr(PolarsEngine, "values", counted)
    monkeypatch.setattr(where, "MOST_BYTES", room)
    metrics = {
        "short": of(["4d"], "sum", "last"),
        "long": of(["7d"], "mean", "min", "count"),
        "several": of(["5d", "7d"], "sum", "max", where="is_large"),
        "derived": of(["6d"], "sum"),
    }
    together, alone = Project(tmp_path / "together"), Project(tmp_path / "alone")
    made = {
        project: project.definitions(
            *(
                project.define(
                    with_condition,
                    name=name,
                    metrics=its,
                    derive={"twice": "amount__sum__6d * 2"} if name == "derived" else None,
                )
                for name, its in metrics.items()
            ),
            online_store=RedisStore.from_url(redis_url, prefix=prefix),
        )
        for prefix, project in (("pass_together", together), ("pass_alone", alone))
    }
    passes = []
    with clock.fixed(NOW):
        for _ in zip(frequent_drops(together), frequent_drops(alone), strict=True):
            evaluated.clear()
            served(made[together], [*metrics])
            passes.append([*evaluated])
            for name in metrics:
                served(made[alone], [name])
                ours = state(together, client, "pass_together", name)
                assert ours == state(alone, client, "pass_alone", name), name
            for project in made:
                for name in metrics:
                    read_ahead(project.store, project.store.read_metadata(name))
    of_all = sum(len(feature.spec.columns) for feature in made[alone].features.values())
    for several in passes[1:]:
        assert several == [of_all] if room else len(several) == len(metrics)
    for defs in made.values():
        defs.close()


def frequent_drops(project: Project) -> Iterator[None]:
    """A history of some days, then a drop behind it, an amended file, late events, and a file that goes."""
    for day in range(10):
        project.drop(f"d{day}", rows((day % 3, day, 1.0 + day), (day % 4, day + 0.5, 2.5)))
    yield
    project.drop("new", rows((1, 9.7, 5.0), (7, 9.8, 7.0), (2, 9.9, -0.0)))
    yield
    project.drop("d9", rows((0, 9, 10.0), (1, 9.5, 11.0), (0, 9.6, 0.1)))
    yield
    project.drop("late", rows((2, 9.55, 4.0), (None, 3, 1.0), (3, 9.5, 7.0)))
    yield
    (project.events / "new.parquet").unlink()
    yield


def test_a_feature_whose_sum_does_not_fit_harms_none_of_its_function_over_other_windows(
    tmp_path: Path, redis_url: str
) -> None:
    def whole(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", amount=pl.col("amount").cast(pl.Int64))

    project = Project(tmp_path)
    kinds = {"counts": of(["2d"], "count"), "sums": of(["7d"], "sum"), "least": of(["3d"], "min")}
    defs = project.definitions(
        *(project.define(whole, name=name, metrics=its) for name, its in kinds.items()),
        online_store=RedisStore.from_url(redis_url, prefix="other_sums"),
    )
    with clock.fixed(NOW):
        project.drop("a", rows((1, 0, 1.0), (2, 1, 1.0)))
        served(defs, [*kinds])
        for name in kinds:
            read_ahead(project.store, project.store.read_metadata(name))
        project.drop("b", rows((1, 1, 2.0**62), (1, 1.5, 2.0**62)))
        with shared_results(), asked_together(defs.features.values()):
            for name in kinds:
                refused = pytest.raises(DataError, match="sums: amount__sum__7d")
                with refused if name == "sums" else nullcontext():
                    defs.refresh(name, options=Options(attended=False, cost_share=99))
    assert project.store.read("counts")["amount__count__2d"].to_list() == [1, 2, 1, 3]
    assert project.store.list_versions("sums") == ["1.0.0"]
    assert project.store.read("least")["amount__min__3d"].to_list() == [1, 1, 1, 1]
    defs.close()


def test_files_that_features_have_alike_are_encoded_once(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, names = Project(tmp_path), ["spend", "outlay", "expense"]
    online = RedisStore.from_url(redis_url, prefix="encoded")
    defs = project.definitions(*(project.define(name=n) for n in names), online_store=online)
    project.drop("a", rows((1, 0, 10.0), (2, 1, 1.0)))
    served(defs, names)
    project.drop("b", rows((1, 2, 5.0)))
    encoded: list[int] = []
    write = pl.DataFrame.write_parquet

    def counted(frame: pl.DataFrame, *arguments: Any, **options: Any) -> None:
        encoded.append(frame.height)
        write(frame, *arguments, **options)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", counted)
    served(defs, names)
    assert sorted(encoded) == [1, 3], "the events that came, and the rows"
    defs.close()


def test_a_metric_of_one_window_has_the_bytes_that_it_has_beside_those_of_longer_ones(
    tmp_path: Path,
) -> None:
    amounts = (((37 * n) % 101) / 103 for n in range(1_000))
    dense = rows(*((1, n / 100, amount) for n, amount in enumerate(amounts)))
    large = rows((2, 9, 1e4))  # beside it deviations of the small ones are rounded
    hashes = []
    for place, sharing in (("shared", True), ("alone", False)):
        project = Project(tmp_path / place)
        defs = project.definitions(
            project.define(name="both", metrics=of(["2d", "7d"], "sum")),
            project.define(name="short", metrics=[*of(["7d"], "sum"), *of(["2d"], "std", "var")]),
        )
        project.drop("a", dense.head(900))
        defs.build()
        project.drop("b", pl.concat([dense.tail(100), large]))
        with shared_results() if sharing else nullcontext():
            for name in defs.features:
                defs.refresh(name, options=Options(attended=False, cost_share=99))
        hashes.append(project.store.read_metadata("short").content_hash)
    assert hashes[0] == hashes[1]


def test_a_feature_whose_sum_does_not_fit_harms_none_that_is_evaluated_with_it(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", amount=pl.col("amount").cast(pl.Int64))

    passes = []

    def counted(evaluate: Any, metrics: Any, others: Any) -> Any:
        passes.append((len(metrics), len(others)))
        return asking.with_others(evaluate, metrics, others)

    for module in ("known_metrics", "known_values"):
        monkeypatch.setattr(f"mlforge.engines.{module}.with_others", counted)
    project = Project(tmp_path)
    kinds = {"counts": ["count"], "sums": ["sum"], "extremes": ["min", "max"]}
    defs = project.definitions(
        *(
            project.define(whole, name=name, metrics=of(["2d", "7d"], *kind))
            for name, kind in kinds.items()
        ),
        online_store=RedisStore.from_url(redis_url, prefix="sums"),
    )
    with clock.fixed(NOW):
        project.drop("a", rows((1, 0, 1.0), (2, 1, 1.0)))
        served(defs, [*kinds])
        project.drop("b", rows((1, 1, 2.0**62), (1, 1.5, 2.0**62)))
        passes.clear()
        served(defs, ["counts"])
        assert passes == [(2, 6)], "rows of the table and online, in one pass"
        with pytest.raises(DataError, match="sums: amount__sum__2d"):
            served(defs, ["sums"])
        served(defs, ["extremes"])
        [online] = get_online_features(["counts"], [{"user_id": 1}], store=defs.online_store)
    assert online["counts__amount__count__7d"] == 3
    assert project.store.list_versions("sums") == ["1.0.0"]
    assert project.store.read("extremes")["amount__max__7d"].max() == 2**62
    defs.close()


def test_a_feature_whose_metric_no_engine_computes_harms_none_that_is_evaluated_with_it(
    tmp_path: Path,
) -> None:
    def named(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", amount="n" + pl.col("amount").cast(pl.String))

    project = Project(tmp_path)
    defs = project.definitions(
        project.define(named, name="counts", metrics=of(["2d"], "count")),
        project.define(named, name="sums", metrics=of(["2d"], "sum", "p90")),
    )
    with asked_together(defs.features.values()), shared_results():
        for name in "ab":  # a first version, and one with rows of a drop
            project.drop(name, rows((1, ord(name), 1.0), (2, ord(name), 2.0)))
            defs.refresh("counts", options=Options(attended=False, cost_share=99))
            with pytest.raises(MlforgeError, match=r"sums: a\.parquet: column 'amount'"):
                defs.refresh("sums")
    assert project.store.read("counts")["amount__count__2d"].to_list() == [1, 1, 2, 2]


def test_rows_that_are_forgotten_amid_a_job_are_in_no_later_feature(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 10.0), (2, 1, 1.0)))
    defs = project.definitions(project.define(name="first"), project.define(name="second"))
    with shared_results():
        defs.refresh("first")
        project.store.write_forgotten(Forgotten("00").with_entities([Entity("user_id", "1")]))
        defs.refresh("second")
    assert project.store.read("first")["user_id"].to_list() == [1, 2], "it was before that"
    assert project.store.read("second")["user_id"].to_list() == [2]


def test_a_feature_whose_function_is_not_proven_is_none_for_one_that_says_it_is(
    tmp_path: Path,
) -> None:
    def ranked(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", amount=pl.col("amount").rank())

    stores = []
    for place, sharing in (("shared", True), ("alone", False)):
        project = Project(tmp_path / place)
        for name in "ab":
            project.drop(name, rows((1, 0, 10.0 + ord(name)), (2, 1, 1.0)))
        defs = project.definitions(
            project.define(ranked, name="said", incremental=True),
            project.define(ranked, name="proven"),
        )
        with shared_results() if sharing else nullcontext():
            for name in defs.features:
                defs.refresh(name)
        stores.append(project.store)
    for name in ("said", "proven"):
        assert stores[0].read(name).equals(stores[1].read(name))
    assert not stores[0].read("said").equals(stores[0].read("proven"))


def test_functions_of_one_code_hash_that_hides_what_they_do_get_none_of_each_other(
    tmp_path: Path,
) -> None:
    def looked_up(amounts: Mapping[float, float]) -> Any:
        # of the Python within an expression the hash has nothing
        amount = pl.col("amount").map_elements(amounts.get, return_dtype=pl.Float64)

        def function(df: pl.DataFrame) -> pl.DataFrame:
            return df.select("user_id", "at", amount=amount)

        return function

    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 10.0)))
    first, second = (looked_up({10.0: amount}) for amount in (1.0, 2.0))
    defs = project.definitions(
        project.define(first, name="first"),
        project.define(second, name="second"),
        project.define(second, name="third"),
    )
    with shared_results() as shared:
        for name in ("first", "second"):
            defs.refresh(name)
        before = shared.handed_on
        defs.refresh("third")
    assert defs.feature("first").code_hash == defs.feature("second").code_hash
    sums = {name: project.store.read(name)["amount__sum__2d"].to_list() for name in defs.features}
    assert sums == {"first": [1.0], "second": [2.0], "third": [2.0]}
    assert shared.handed_on > before, "of one function it is the same"


def test_a_feature_that_fails_hands_nothing_on(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 10.0), (2, 1, 1.0)))
    defs = project.definitions(project.define(identity, name="fails"), project.define(name="works"))

    def fail() -> None:
        failpoints.disarm()
        raise ValueError("as a bug would")

    failpoints.arm("parts.written", fail)
    with shared_results() as shared:
        with pytest.raises((ValueError, BuildError), match="as a bug would"):
            defs.refresh("fails")
        assert defs.refresh("works").version == "1.0.0"
    failpoints.disarm()
    assert shared.handed_on > 0, "what was right before it failed"
    assert project.store.versions("fails") == []
    assert defs.refresh("fails").version == "1.0.0"
    assert project.store.read("fails").equals(project.store.read("works"))
