"""`mlforge profile` and `drift` over a project: figures, what is read again, screens, JSON, errors."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Service, feature
from mlforge.build.result import Options
from mlforge.build.rows import Layout
from mlforge.cli import main
from mlforge.core.values import DAY_US, Duration, TimeRange, to_us
from mlforge.maintenance.operations import prune
from mlforge.maintenance.retention import Retention
from mlforge.metrics import Rolling
from mlforge.profiles import table
from mlforge.profiles.measure import profile_frame
from mlforge.profiles.table import profile_rows, profile_version
from mlforge.profiles.warm_up import warm_from
from mlforge.store import LocalStore
from mlforge.training_sets.drift import drift
from mlforge.training_sets.making import training_set
from tests.support.commands import as_json, printed

START = datetime(2026, 1, 1, tzinfo=UTC)


def events(first_day: int, days: int, scale: float = 1.0, users: int = 10) -> pl.DataFrame:
    rows = [
        (u, START + timedelta(days=d, minutes=u), scale * (1 + u + d % 3))
        for d in range(first_day, first_day + days)
        for u in range(users)
    ]
    return pl.DataFrame(rows, schema=["user_id", "at", "amount"], orient="row")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events").mkdir()
    events(0, 40).write_parquet(tmp_path / "events" / "a.parquet")

    @feature(
        keys=["user_id"],
        source="events/",
        timestamp="at",
        metrics=[Rolling(["7d", "all"], {"amount": ["sum", "last", "last_time"]})],
        derive={"ratio": "amount__sum__7d / amount__sum__all"},
    )
    def spend(df: pl.DataFrame) -> pl.DataFrame:
        return df

    definitions = Definitions(store=LocalStore("feature_store"), features=[spend], root=tmp_path)
    definitions.build()
    return definitions


def test_the_profile_of_a_version_is_that_of_its_rows_and_is_made_once(
    project: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = project.store
    manifest = store.resolve("spend")
    assert not (Path(store.location("spend", manifest.version)).parents[1] / "_profiles").exists()
    whole = profile_frame(store.read("spend"))
    assert profile_version(store, manifest) == whole
    measured: list[str] = []
    measure = table.profile_column
    monkeypatch.setattr(
        table, "profile_column", lambda values: measured.append(values.name) or measure(values)
    )
    assert profile_version(store, manifest) == whole
    assert measured == []
    store.keep_profiles("spend", ())
    assert profile_version(store, manifest) == whole
    assert measured == list(whole)


def test_profiles_of_many_parts_and_of_ranges_that_cut_them_are_those_of_the_rows(
    project: Definitions,
) -> None:
    store, small = project.store, Options(layout=Layout(part_rows=32), full=True, version="1.1.0")
    project.refresh("spend", options=small)
    manifest = store.resolve("spend")
    assert len(manifest.parts) > 5
    rows = store.read("spend")
    assert profile_version(store, manifest) == profile_frame(rows)
    for start, end in ((0, 40), (3, 9), (10, 10), (50, 60)):
        days = [START + timedelta(days=day) for day in (start, end)]
        times = TimeRange(to_us(days[0]), to_us(days[1]) - 1)
        cut = rows.filter(pl.col("at").is_between(*days, closed="left")).select("at", "ratio")
        assert profile_rows(store, manifest, {"at": times, "ratio": times}) == profile_frame(cut)


def test_points_of_an_interval_are_warm_from_a_boundary_on(project: Definitions) -> None:
    manifest = project.store.resolve("spend")
    hourly = replace(manifest, spec=replace(manifest.spec, interval=Duration.parse("2d")))
    week = to_us(START + timedelta(days=7))
    assert warm_from(hourly)["ratio"] % (2 * DAY_US) == 0
    assert week <= warm_from(hourly)["ratio"] < week + 2 * DAY_US


def test_a_damaged_or_unwritable_memo_costs_time_alone(
    project: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = project.store
    manifest = store.resolve("spend")
    whole = profile_version(store, manifest)
    hash_ = manifest.parts[0].hash
    for document in ({"format": 2}, {"format": 1, "columns": {}}, {"format": 1, "columns": 7}):
        store.write_profiles("spend", {hash_: document})
        assert profile_version(store, manifest) == whole
    path = next(Path("feature_store/spend/_profiles").iterdir())
    path.write_bytes(b"\xff{")
    assert store.profiles("spend", [hash_]) == {}

    def full(self: object, documents: object) -> None:
        from mlforge.errors import StoreError

        raise StoreError("the disk is full")

    monkeypatch.setattr("mlforge.store.local.profiles.ProfileFolder.write", full)
    assert profile_version(store, manifest) == whole


def test_pruning_takes_the_profiles_of_parts_that_no_version_has(project: Definitions) -> None:
    store = project.store
    old = store.resolve("spend")
    profile_version(store, old)
    events(40, 5).write_parquet("events/b.parquet")
    project.build()
    new = store.resolve("spend")
    profile_version(store, new)
    hashes = {part.hash for part in (*old.parts, *new.parts)}
    assert store.profiles("spend", hashes).keys() == hashes
    prune(store, ["spend"], Retention(newest=1))
    assert store.profiles("spend", hashes).keys() == {part.hash for part in new.parts}


def test_rows_whose_windows_reach_before_the_first_event_are_left_out(project: Definitions) -> None:
    warm = warm_from(project.store.resolve("spend"))
    week = to_us(START + timedelta(days=7))
    assert warm["amount__sum__7d"] == warm["ratio"] == week
    assert warm["amount__sum__all"] == warm["user_id"] < week
    events(40, 5).write_parquet("events/b.parquet")
    project.build()
    by_column = {c.column: c for c in drift(project.store, "spend").columns}
    assert by_column["amount__sum__7d"].values == (330, 380)
    assert by_column["amount__sum__all"].values == (400, 450)
    assert "user_id" not in by_column
    assert "at" not in by_column


def test_a_file_older_than_all_others_is_no_drift(project: Definitions) -> None:
    events(-20, 1).write_parquet("events/b.parquet")
    project.build()
    training_set(
        events(0, 40).select("user_id", "at"),
        ["spend"],
        store=project.store,
        timestamp="at",
        out="train",
    )
    for sides in ((), ("1.0.0", "train"), ("train", "1.0.0")):
        by_column = {c.column: c for c in drift(project.store, "spend", *sides).columns}
        assert by_column["amount__sum__7d"].values == (330, 330), sides
        assert by_column["amount__sum__7d"].psi == 0


def test_drift_is_told_against_versions_ranges_of_time_and_training_sets(
    project: Definitions, capsys: pytest.CaptureFixture[str]
) -> None:
    spine = events(0, 40).select("user_id", "at")
    training_set(spine, ["spend"], store=project.store, timestamp="at", out="train")
    events(40, 20, scale=5.0).write_parquet("events/b.parquet")
    project.build()
    store = ["--store", "feature_store"]
    for sides in (
        ["2026-01-08..2026-02-10", "2026-02-17.."],
        ["train", "2026-02-17.."],
        ["1.0.0", "2026-02-17.."],
    ):
        document = as_json(capsys, "drift", "spend", *sides, *store)
        assert [document[key] for key in ("feature", "a", "b")] == ["spend", *sides]
        columns = {column["name"]: column for column in document["columns"]}
        assert columns["amount__sum__7d"]["verdict"] == "drifted", sides
        assert not [name for name in columns if "last_time" in name], sides
        assert columns["amount__sum__7d"]["values_a"] == 330
        assert columns["amount__sum__7d"]["null_rate_b"] == 0
    same = as_json(capsys, "drift", "spend", "train", "1.0.0", *store)
    assert {c["psi"] for c in same["columns"]} == {0}
    assert {c["ks"] for c in same["columns"]} == {0}


def test_defaults_fill_both_sides_and_each_use_is_compared(
    project: Definitions, capsys: pytest.CaptureFixture[str]
) -> None:
    """From some day on half of the users have no amounts, and a service says -1 for their sums; another reads the feature twice."""
    events(40, 20).with_columns(
        pl.when(pl.col("user_id") < 5).then("amount").alias("amount")
    ).write_parquet("events/b.parquet")
    project.build()
    spend, store = project.feature("spend"), project.store
    spine = events(40, 20).select("user_id", "at")
    wide = Service("wide", features=[spend], defaults={"amount__sum__7d": -1.0})
    made = training_set(spine, wide, store=store, out="wide")
    since = "2026-02-10.."
    against_rows = {c.column: c for c in drift(store, "spend", "wide", since).columns}
    assert made.read()["spend__amount__sum__7d"].null_count() == 0
    assert against_rows["amount__sum__7d"].null_rates == (0, 0)
    assert against_rows["amount__sum__7d"].psi == against_rows["amount__sum__7d"].ks == 0
    assert against_rows["ratio"].null_rates[1] == against_rows["ratio"].null_rates[0] > 0
    from_rows = {c.column: c for c in drift(store, "spend", since, "wide").columns}
    assert from_rows["amount__sum__7d"].psi == 0
    plain = drift(store, "spend", since, "1.0.1")
    assert next(c for c in plain.columns if c.column == "amount__sum__7d").null_rates[0] > 0

    both = Service(
        "both",
        features=[spend, spend.as_("other", user_id="other_id")],
        defaults={"other__amount__sum__7d": -1.0},
    )
    pairs = spine.with_columns(other_id=pl.lit(0, pl.Int64))
    training_set(pairs, both, store=store, out="both")
    by_label = {c.column: c for c in drift(store, "spend", "both", since).columns}
    assert by_label["spend__amount__sum__7d"].psi == 0
    assert by_label["spend__amount__sum__7d"].null_rates[0] > 0
    assert by_label["other__amount__sum__7d"].verdict() == "drifted"
    assert by_label["other__amount__sum__7d"].null_rates == (0, 0)
    columns_of_sets = drift(store, "spend", "wide", "both").columns
    of_sets = {c.column: c for c in columns_of_sets}
    assert len(of_sets) == len(columns_of_sets), "uses of one prefix alone are compared"
    assert list(of_sets) == [label for label in by_label if label.startswith("spend__")]
    assert of_sets["spend__amount__sum__7d"].null_rates == (0, 0)
    shown = as_json(capsys, "drift", "spend", "both", since, "--store", "feature_store")
    assert [column["name"] for column in shown["columns"]] == list(by_label)


@pytest.mark.parametrize("width", ["80", "60"])
def test_screens_keep_to_the_width(
    project: Definitions,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: str,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    events(40, 5).write_parquet("events/b.parquet")
    project.build()
    for command in ("profile", "drift"):
        text = printed(capsys, command, "spend", "--store", "feature_store")
        assert max(map(len, text.splitlines())) <= int(width)
        assert "amount__sum__7d" in text
        assert "steady" in text or "450 rows" in text
    document = as_json(capsys, "profile", "spend", "1.0.0", "--store", "feature_store")
    amount = next(c for c in document["columns"] if c["name"] == "amount__last__all")
    assert (document["rows"], amount["rows"], amount["least"], amount["distinct"]) == (
        400,
        400,
        1.0,
        12,
    )
    assert sum(bucket["rows"] for bucket in amount["histogram"]) == 400


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([], "no version before 1.0.0"),
        (["1.0.7"], "no version 1.0.7"),
        (["yesterday"], "no version, no range of time and no folder"),
        (["2026-01-01..soon"], "no range of time"),
        (["2026-02-01..2026-01-01"], "ends before it starts"),
        (["1.0.0", "elsewhere/"], "no version, no range of time and no folder"),
    ],
)
def test_a_side_that_there_is_not_is_an_error_that_says_what_works(
    project: Definitions, capsys: pytest.CaptureFixture[str], sides: list[str], said: str
) -> None:
    assert main(["drift", "spend", *sides, "--store", "feature_store"]) == 1
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_table_without_rows_has_a_profile(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    pl.DataFrame(schema={"k": pl.Int64, "v": pl.Float64}).write_parquet(
        tmp_path / "none" / "a.parquet"
    )

    @feature(keys=["k"], source="none/")
    def none(df: pl.DataFrame) -> pl.DataFrame:
        return df

    definitions = Definitions(store=LocalStore(tmp_path / "s"), features=[none], root=tmp_path)
    definitions.build()
    profile: Any = profile_version(definitions.store, definitions.store.resolve("none"))["v"]
    assert (profile.rows, profile.distinct, profile.mean, profile.null_rate) == (0, 0, None, None)
