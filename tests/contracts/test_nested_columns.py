"""Lists, embeddings and structs as event columns: the same Python values stored, in training and online."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import explain, get_online_features, get_training_data
from mlforge.build.diff import diff
from mlforge.cli import main
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import BuildError, OnlineError
from mlforge.maintenance.operations import verify
from mlforge.maintenance.sampling import ALL
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from tests.support.projects import Project, at

COLUMNS: dict[str, tuple[pl.DataType, list[Any]]] = {
    "tags": (pl.List(pl.String), [["a", None], [], None, ["é", '"']]),
    "embedding": (
        pl.Array(pl.Float32, 3),
        [[0.5, -1.25, 0.1], None, [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]],
    ),
    "place": (
        pl.Struct({"lat": pl.Float64, "a b": pl.List(pl.Int8)}),
        [{"lat": 1.5, "a b": [1]}, {"lat": None, "a b": None}, None, {"lat": -0.1, "a b": []}],
    ),
    "lines": (
        pl.List(pl.Struct({"sku": pl.String, "price": pl.Decimal(10, 2), "day": pl.Date})),
        [
            [{"sku": "x", "price": Decimal("1.50"), "day": date(2026, 1, 2)}],
            [],
            None,
            [{"sku": None, "price": None, "day": None}],
        ],
    ),
    "times": (
        pl.List(pl.Datetime("us", "UTC")),
        [
            [datetime(2026, 1, 1, 12, tzinfo=UTC), None],
            None,
            [],
            [datetime(1969, 1, 1, tzinfo=UTC)],
        ],
    ),
    "grid": (
        pl.Array(pl.Array(pl.Int16, 2), 2),
        [[[1, 2], [3, 4]], None, None, [[0, 0], [0, None]]],
    ),
}
NAMES = list(COLUMNS)
BERLIN = pl.Datetime("ns", "Europe/Berlin")


def events() -> pl.DataFrame:
    frame = pl.DataFrame(
        {"user_id": [1, 2, 3, 1], "at": [at(0), at(1), at(2), at(3)]},
        schema={"user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
    )
    return frame.with_columns(pl.Series(n, values, dtype=t) for n, (t, values) in COLUMNS.items())


def everything(df: pl.DataFrame) -> pl.DataFrame:
    return df


@pytest.fixture(params=["polars", "duckdb"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    project = Project(tmp_path, request.param)
    project.drop("a", events().head(3))
    project.drop("b", events().tail(1))
    return project


@pytest.mark.parametrize("timed", [True, False])
def test_training_and_online_give_the_values_that_were_dropped(
    timed: bool, project: Project, online: RedisStore
) -> None:
    if not timed:
        project.drop("b", events().clear())
    feature = project.define(everything, metrics=[], timestamp="at" if timed else None)
    defs = project.definitions(feature, online_store=online)
    with clock.fixed(to_us(at(4))):
        defs.build(online=True)
        assert (
            project.store.read("spend")
            .select(NAMES)
            .equals(events().select(NAMES) if timed else events().head(3).select(NAMES))
        )
        spine = pl.DataFrame({"user_id": [1, 2, 3, 9], "at": [at(4)] * 4})
        trained = get_training_data(spine, ["spend"], project.store).select(
            f"spend__{n}" for n in NAMES
        )
        row_of = dict(zip([1, 2, 3], [3 if timed else 0, 1, 2], strict=True))
        expected = [
            {f"spend__{n}": COLUMNS[n][1][row_of[user]] if user in row_of else None for n in NAMES}
            for user in (1, 2, 3, 9)
        ]
        assert json.dumps(trained.to_dicts(), default=str)
        assert _exact(trained.to_dicts()) == _exact(expected)
        served = get_online_features(
            ["spend"], [{"user_id": user} for user in (1, 2, 3, 9)], online
        )
        for want, row in zip(trained.to_dicts(), served, strict=True):
            assert {name: row[name] for name in want} == want
        audit = defs.audit("spend", ALL)
        assert (audit.mismatches, audit.unproven, audit.first, audit.skipped) == (0, 0, (), ())


def _exact(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Floats as Float32 has them."""

    def as_stored(name: str, value: Any) -> Any:
        dtype = COLUMNS[name.removeprefix("spend__")][0]
        return pl.Series([value], dtype=dtype).to_list()[0]

    return [{name: as_stored(name, value) for name, value in row.items()} for row in rows]


def test_a_drop_changes_what_it_changes(project: Project) -> None:
    feature = project.define(everything, metrics=[])
    defs = project.definitions(feature)
    defs.build()
    project.drop("a", events().head(3).sample(fraction=1, shuffle=True, seed=1))
    assert defs.build()["spend"].reason == "unchanged"
    other = (
        events()
        .head(3)
        .with_columns(
            embedding=pl.Series(
                [[0.5, -1.25, 0.2], None, [1.0, 2.0, 3.0]], dtype=pl.Array(pl.Float32, 3)
            )
        )
    )
    project.drop("a", other)
    result = defs.build()["spend"]
    assert (result.bump, result.rows_changed) == ("patch", 2)  # a row went, a row came
    changes = diff(project.store, "spend", "1.0.0", "1.0.1").rows
    assert changes is not None
    assert (changes.added, changes.removed) == (1, 1)
    afresh = Project(project.root / "afresh", project.engine)
    afresh.drop("b", events().tail(1))
    afresh.drop("a", other)
    afresh.definitions(feature).build()
    hashes = [p.store.read_metadata("spend").rows_hash for p in (project, afresh)]
    assert hashes[0] == hashes[1]


def test_rows_of_one_instant_are_ordered_by_what_is_within(project: Project) -> None:
    tied = [["b"], None, ["a", "z"], [], ["a"]]
    frame = pl.DataFrame({"user_id": [1] * 5, "at": [at(5)] * 5}).with_columns(
        pl.Series("tags", tied, dtype=pl.List(pl.String))
    )
    project.drop("a", frame)
    project.drop("b", frame.clear())
    feature = project.define(everything, metrics=[])
    defs = project.definitions(feature)
    defs.build()
    assert project.store.read("spend")["tags"].to_list() == [None, [], ["a"], ["a", "z"], ["b"]]
    spine = pl.DataFrame({"user_id": [1], "at": [at(6)]})
    assert get_training_data(spine, ["spend"], project.store)["spend__tags"].to_list() == [["b"]]
    assert defs.audit("spend", ALL).mismatches == 0


def test_what_is_within_takes_the_form_that_columns_have(project: Project) -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1],
            "at": [at(0)],
            "x": pl.Series([[1.0, float("nan"), float("inf")]]),
            "t": pl.Series([[datetime(2026, 1, 1, 2, tzinfo=UTC)]]).cast(pl.List(BERLIN)),
            "c": pl.Series([["a", "b"]], dtype=pl.List(pl.Categorical)),
            "s": pl.Series([{"e": float("-inf")}]),
            "a": pl.Series([[float("nan"), 1.0]], dtype=pl.Array(pl.Float32, 2)),
        }
    )
    project.drop("a", frame)
    project.drop("b", frame.clear())
    defs = project.definitions(project.define(everything, metrics=[]))
    result = defs.build()["spend"]
    [row] = project.store.read("spend").to_dicts()
    assert (row["x"], row["s"], row["a"]) == ([1.0, None, None], {"e": None}, [None, 1.0])
    assert (row["c"], row["t"]) == (["a", "b"], [datetime(2026, 1, 1, 2, tzinfo=UTC)])
    assert result.rows_dropped["non_finite"] == 4
    dtypes = {column.name: column.dtype for column in result.manifest.columns}  # type: ignore[union-attr]
    assert dtypes["t"] == "List(Datetime(us, UTC))"
    assert dtypes["a"] == "Array(Float32, 2)"
    assert dtypes["s"] == 'Struct("e": Float64)'
    assert defs.audit("spend", ALL).mismatches == 0


def test_a_file_whose_lists_are_all_empty_fits(project: Project) -> None:
    frame = pl.DataFrame({"user_id": [1], "at": [at(0)], "tags": [["a"]]})
    project.drop("a", frame)
    project.drop("b", frame.with_columns(tags=pl.Series([[]], dtype=pl.List(pl.Null))))
    result = project.definitions(project.define(everything, metrics=[])).build()["spend"]
    assert result.quarantined == ()
    assert sorted(map(len, project.store.read("spend")["tags"].to_list())) == [0, 1]


@pytest.mark.parametrize(
    ("empty", "none", "full", "value", "aggregations"),
    [
        (pl.Null(), None, pl.List(pl.Int64), [5], ["count"]),
        (pl.List(pl.Null), [], pl.List(pl.Int64), [5], ["count"]),
        (pl.List(pl.Null), [], pl.List(pl.Int64), [5], ["last"]),
        (pl.List(pl.Null), [], pl.List(pl.Int64), [5], []),
        (pl.Array(pl.Null, 1), [None], pl.Array(pl.Int64, 1), [5], []),
        (pl.Struct({"a": pl.Null}), {"a": None}, pl.Struct({"a": pl.Int64}), {"a": 5}, ["last"]),
    ],
)
def test_parts_of_a_column_that_get_their_first_value_or_lose_the_last_are_data_alone(
    empty: pl.DataType,
    none: object,
    full: pl.DataType,
    value: object,
    aggregations: list[str],
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "p")
    metrics = [Rolling("7d", {"tags": aggregations})] if aggregations else []
    feature = project.define(everything, metrics=metrics)
    times = pl.DataFrame({"user_id": [1], "at": [at(0)]})
    made = []
    for dtype, content in ((empty, none), (full, value), (empty, none)):
        project.drop("a", times.with_columns(tags=pl.Series([content], dtype=dtype)))
        result = project.build(feature)
        made.append((result.bump, result.reason))
        rebuilt = project.rebuilt(project.root / str(len(made)), feature)
        assert project.store.read("spend").equals(rebuilt.read("spend"))
    assert made == [("major", "first_build"), *[("patch", "data_refresh")] * 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keys": ["tags"], "metrics": []}, "key 'tags' is List(String); keys are integers"),
        ({"keys": ["embedding"], "metrics": []}, "key 'embedding' is Array(Float32, 3); keys are"),
        ({"metrics": [Rolling("7d", {"tags": ["mean"]})]}, "mean of List(String) is not possible"),
        ({"metrics": [Rolling("7d", {"place": ["sum"]})]}, "sum of Struct("),
        (
            {"metrics": [Rolling("7d", {"embedding": ["max"]})]},
            "max of Array(Float32, 3) is not possible",
        ),
    ],
)
def test_keys_and_other_aggregations_refuse_them(
    changes: dict[str, Any], said: str, project: Project
) -> None:
    with pytest.raises(BuildError) as failure:
        project.definitions(project.define(everything, **changes)).build()
    message = str(failure.value)
    assert said in message
    assert "; use pl.col(" in message or ": pl.col(" in message


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [
        (pl.List(pl.Binary), "Binary within it"),
        (pl.Struct({"d": pl.Duration("us")}), "within it"),
        (pl.List(pl.Int128), "Int128 within it"),
    ],
)
def test_what_no_column_can_hold_is_refused_within_others_too(
    dtype: pl.DataType, bad: str, project: Project
) -> None:
    def made(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", pl.lit(None).alias("x")).with_columns(
            pl.lit(None, dtype=dtype).alias("x")
        )

    feature = project.define(made, metrics=[], incremental=True)
    with pytest.raises(BuildError, match=bad):
        project.definitions(feature).build()


@pytest.mark.parametrize("name", NAMES)
def test_first_and_last_take_them_on_both_engines(
    name: str, project: Project, online: RedisStore
) -> None:
    metrics = [Rolling("10d", {name: ["first", "last", "last_2", "count"]})]
    defs = project.definitions(project.define(everything, metrics=metrics), online_store=online)
    with clock.fixed(to_us(at(4))):
        defs.build(online=True)
        values = events()[name].to_list()
        mine = [value for value in (values[0], values[3]) if value is not None]
        spine = pl.DataFrame({"user_id": [1], "at": [at(3)]})
        [row] = get_training_data(spine, ["spend"], project.store).drop("user_id", "at").to_dicts()
        assert list(row.values()) == [mine[0], mine[-1], mine[::-1], len(mine)]
        [served] = get_online_features(["spend"], [{"user_id": 1}], online)
        assert {key: served[key] for key in row} == row
        assert defs.audit("spend", ALL).first == ()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
@pytest.mark.parametrize("incremental", [None, False])
def test_versions_keep_the_columns_that_are_needed_whatever_was_needed_before(
    incremental: bool | None, order: slice, project: Project
) -> None:
    project.drop("a", pl.DataFrame({"user_id": [1], "at": [at(0)], "x": [[1]], "y": [[2]]}))
    project.drop("b", pl.DataFrame({"user_id": [1], "at": [at(1)], "x": [[3]], "y": [[4]]}))

    def content_of(store: LocalStore, **changes: Any) -> tuple[str, list[tuple[Any, ...]]]:
        feature = project.define(lambda df: df, incremental=incremental, **changes)
        defs = project.on(store).definitions(feature)
        result = defs.build()["spend"]
        if result.changed:
            assert defs.build()["spend"].version == result.version
        assert defs.audit("spend", ALL).first == ()
        return store.read_metadata("spend").rows_hash, store.read("spend").rows()

    steps: list[dict[str, Any]] = [
        {"metrics": [Rolling("7d", {"user_id": ["count"]})]},
        {"metrics": [Rolling("7d", {"user_id": ["count"], "x": ["last", "last_2"]})]},
        {"metrics": [Rolling("7d", {"y": ["first"], "x": ["last"]})]},
        {"metrics": []},
    ]
    for number, changes in enumerate([*steps[order], *steps[order][::-1]]):
        rebuilt = content_of(LocalStore(project.root / f"afresh{number}"), **changes)
        assert content_of(project.store, **changes) == rebuilt
    project.drop("c", pl.DataFrame({"user_id": [1], "at": [at(2)], "x": [[5]], "y": [[6]]}))
    rebuilt = content_of(LocalStore(project.root / "afresh"), **steps[0])
    assert content_of(project.store, **steps[0]) == rebuilt
    assert verify(project.store, ["spend"]) == []


def test_a_forged_value_is_refused_by_its_dtype(project: Project, online: RedisStore) -> None:
    defs = project.definitions(project.define(everything, metrics=[]), online_store=online)
    with clock.fixed(to_us(at(4))):
        defs.build(online=True)
    good = json.loads(json.dumps(online.read("spend", {"user_id": 1}), default=str))
    for name, forged in [
        ("embedding", [1.0, 2.0]),
        ("tags", ["a", 1]),
        ("place", {"lat": 1.0}),
        ("place", {"lat": 1.0, "a b": [400]}),
        ("lines", [{"sku": "x"}]),
        ("grid", [[1, 2]]),
    ]:
        online.write("spend", {"user_id": 1}, {**good, "lines": None, "times": None, name: forged})
        with pytest.raises(OnlineError, match=name):
            get_online_features(["spend"], [{"user_id": 1}], online)


def test_the_commands_show_them(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "definitions.py").write_text(
        "from mlforge import *\nfrom mlforge.store import LocalStore\n"
        "@feature(keys=['user_id'], source='events', timestamp='at')\n"
        "def spend(df): return df\n"
        "defs = Definitions(store=LocalStore('store'), features=[spend])\n"
    )
    options = ["--definitions", str(project.root / "definitions.py")]
    assert main(["build", *options]) == 0
    for command in (["explain", "spend", "user_id=1"], ["inspect", "spend"], ["verify"], ["audit"]):
        assert main([*command, *options, "--json"]) == 0
    assert explain("spend", {"user_id": 1}, project.store).to_json()["values"]
    assert main(["inspect", "spend", *options]) == 0
    assert "Array(Float32, 3)" in capsys.readouterr().out
