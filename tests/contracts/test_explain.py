"""`explain()` and `mlforge explain`: values, windows, rows, files, and what is online."""

import json
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import explain, get_training_data
from mlforge.cli import main
from mlforge.core import clock
from mlforge.core.aggregations import AGGREGATIONS
from mlforge.errors import FeatureNotFound, RetrievalError, VersionNotFound
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.retrieval.explanation import Explanation
from mlforge.retrieval.lineage import FILE
from tests.support.projects import Project, at, rows

US = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("built") / "a project of 100%20 #1 [x]")
    project.drop("a", rows((1, 0, 1.0), (2, 1.5, 5.0)))
    project.drop("more/b", rows((1, 1, 2.0), (1, 4, 4.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "a project of 100%20 #1 [x]")


def push(project: Project, online: RedisStore, *features: Any) -> None:
    project.definitions(*features, online_store=online).build(online=True)


def values(found: Explanation) -> dict[str, Any]:
    return {value.column: value.value for value in found.values}


def sources(found: Explanation) -> list[tuple[Any, ...]]:
    return found.rows.select("at", "amount", FILE).rows()


# -- values and what they were made of


@pytest.mark.parametrize("interval", [None, "1d"])
@pytest.mark.parametrize("day", [-1, 0, 1, 1.5, 4, 6, 6.5, 40])
def test_the_values_are_those_of_training(project: Project, interval: str | None, day: int) -> None:
    project.build(project.define(name="other", interval=interval))
    spine = pl.DataFrame({"user_id": [1], "at": [at(day)]})
    [row] = get_training_data(spine, ["other"], project.store).to_dicts()
    found = explain("other", {"user_id": 1}, project.store, at=at(day))
    assert {f"other__{column}": value for column, value in values(found).items()} == {
        name: value for name, value in row.items() if name.startswith("other__")
    }


def test_each_value_has_its_windows_bounds_and_rows(project: Project) -> None:
    found = explain("spend", {"user_id": 1}, project.store, at=at(2))
    [two, seven] = found.values[:2]
    assert (two.column, two.value, two.rows) == ("amount__sum__2d", 3.0, 2)
    assert two.bounds is not None
    assert seven.bounds is not None
    document = found.to_json()["values"][0]
    assert document["start"] == "2026-01-01T00:00:00.000000Z"
    assert document["end"] == "2026-01-03T00:00:00.000000Z"
    assert document["closed"] == "both"
    assert seven.bounds.start == two.bounds.start - 5 * 86_400_000_000


@pytest.mark.parametrize(
    ("closed", "days"), [("both", [0, 1, 2]), ("right", [1, 2]), ("left", [0, 1]), ("none", [1])]
)
def test_the_rows_are_those_within_the_windows_ends(
    project: Project, closed: str, days: list[int]
) -> None:
    project.drop("c", rows((3, 0, 1.0), (3, 1, 1.0), (3, 2, 1.0)))
    metrics = [Rolling("2d", {"amount": "count"}, closed=closed)]  # type: ignore[arg-type]
    project.build(project.define(metrics=metrics))
    found = explain("spend", {"user_id": 3}, project.store, at=at(2))
    assert found.rows["at"].to_list() == [at(day) for day in days]
    assert [(value.value, value.rows) for value in found.values] == [(len(days), len(days))]


def test_rows_between_windows_that_do_not_meet_are_left_out(project: Project) -> None:
    project.drop("c", rows(*((3, day, 1.0) for day in range(10))))
    metrics = [
        Rolling("1d", {"amount": "count"}),
        Rolling("1d", {"amount": "count"}, offset="5d"),
    ]
    project.build(project.define(metrics=metrics))
    found = explain("spend", {"user_id": 3}, project.store, at=at(9))
    assert found.rows["at"].to_list() == [at(3), at(4), at(8), at(9)]
    assert [row["windows"] for row in found.to_json()["rows"]] == [
        ["1d offset 5d"],
        ["1d offset 5d"],
        ["1d"],
        ["1d"],
    ]


def test_an_aligned_window_ends_before_its_boundary(project: Project) -> None:
    metrics = [Rolling("2d", {"amount": "sum"})]
    project.build(project.define(interval="1d", metrics=metrics))
    found = explain("spend", {"user_id": 1}, project.store, at=at(1.9))
    [value] = found.to_json()["values"]
    assert (value["start"], value["end"]) == (
        "2025-12-31T00:00:00.000000Z",
        "2026-01-02T00:00:00.000000Z",
    )
    assert (value["closed"], value["value"], value["rows"]) == ("left", 1.0, 1)


def test_rows_name_the_files_that_they_came_from(project: Project) -> None:
    found = explain("spend", {"user_id": 1}, project.store, at=at(4))
    assert sources(found) == [
        (at(0), 1.0, "a.parquet"),
        (at(1), 2.0, "more/b.parquet"),
        (at(4), 4.0, "more/b.parquet"),
    ]


def test_two_files_of_equal_content_are_both_named(project: Project) -> None:
    project.drop("copy", rows((1, 0, 1.0), (2, 1.5, 5.0)))
    project.build()
    found = explain("spend", {"user_id": 2}, project.store, at=at(2))
    assert sources(found) == [(at(1.5), 5.0, "a.parquet"), (at(1.5), 5.0, "copy.parquet")]
    assert values(found)["amount__sum__2d"] == 10.0


def test_of_a_function_that_sees_the_whole_source_no_file_is_named(project: Project) -> None:
    project.build(project.define(lambda df: df.unique(), name="whole"))
    found = explain("whole", {"user_id": 1}, project.store, at=at(1))
    assert sources(found) == [(at(0), 1.0, None), (at(1), 2.0, None)]


def test_the_instant_is_by_default_that_of_online_values(project: Project) -> None:
    with clock.fixed(at(3)):
        assert explain("spend", {"user_id": 1}, project.store).at == 1_767_484_800_000_000
    found = explain("spend", {"user_id": 1}, project.store)
    assert found.to_json()["at"] == "2026-01-05T00:00:00.000000Z"  # the newest event's


@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-03",
        "2026-01-03T00:00:00Z",
        "2026-01-03T05:30:00+05:30",
        date(2026, 1, 3),
        datetime(2026, 1, 3),  # noqa: DTZ001
        at(2),
        1_767_398_400_000_000,
    ],
)
def test_an_instant_may_be_written_in_several_ways(project: Project, instant: Any) -> None:
    found = explain("spend", {"user_id": 1}, project.store, at=instant)
    assert found.to_json()["at"] == "2026-01-03T00:00:00.000000Z"


def test_without_metrics_the_latest_row_is_shown_with_its_ties(project: Project) -> None:
    project.drop("c", rows((1, 4, 3.0), (1, 4, None), (1, 4, 9.0)))
    project.build(project.define(name="raw", metrics=[]))
    found = explain("raw", {"user_id": 1}, project.store)
    assert values(found) == {"amount": 9.0}
    assert sources(found) == [
        (at(4), None, "c.parquet"),
        (at(4), 3.0, "c.parquet"),
        (at(4), 4.0, "more/b.parquet"),
        (at(4), 9.0, "c.parquet"),
    ]
    earlier = explain("raw", {"user_id": 1}, project.store, at=at(4) - US)
    assert sources(earlier) == [(at(1), 2.0, "more/b.parquet")]
    assert explain("raw", {"user_id": 1}, project.store, at=at(-1)).rows.is_empty()


def profiles(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "city", "credit")


def with_profiles(project: Project) -> Any:
    credit = pl.Series([Decimal("1.50")], dtype=pl.Decimal(10, 2))
    (project.root / "users").mkdir()
    users = pl.DataFrame({"user_id": [1], "city": ["Ulm"], "credit": credit})
    users.write_parquet(project.root / "users" / "u.parquet")
    return project.define(profiles, name="profile", source="users", timestamp=None, metrics=[])


def test_a_feature_without_a_timestamp_has_the_row_of_its_key(project: Project) -> None:
    project.build(with_profiles(project))
    found = explain("profile", {"user_id": 1}, project.store)
    assert values(found) == {"city": "Ulm", "credit": Decimal("1.50")}
    assert found.at is None
    assert found.to_json()["rows"] == [
        {"file": "u.parquet", "windows": [], "values": {"city": "Ulm", "credit": "1.50"}}
    ]
    with pytest.raises(RetrievalError, match=r"profile has no timestamp.*leave out at"):
        explain("profile", {"user_id": 1}, project.store, at=at(0))


@pytest.mark.parametrize("user", [9, 2**80, -1])
def test_an_entity_never_seen_has_empty_windows(project: Project, user: int) -> None:
    found = explain("spend", {"user_id": user}, project.store)
    assert list(values(found).values()) == [None, None, 0, 0]
    assert found.rows.is_empty()


def test_a_window_that_begins_before_the_calendar_begins_with_it(project: Project) -> None:
    metrics = [Rolling("999999d", {"amount": "count"})]
    project.build(project.define(metrics=metrics))
    [value] = explain("spend", {"user_id": 1}, project.store).to_json()["values"]
    assert (value["start"], value["value"]) == ("0001-01-01T00:00:00.000000Z", 3)
    [value] = explain("spend", {"user_id": 1}, project.store, at="0001-01-02").to_json()["values"]
    assert (value["rows"], value["value"]) == (0, 0)


def test_a_feature_of_keys_alone_has_rows_but_no_values(project: Project) -> None:
    project.build(project.define(lambda df: df.select("user_id", "at"), name="seen", metrics=[]))
    found = explain("seen", {"user_id": 1}, project.store)
    assert found.values == ()
    assert found.rows.rows() == [("more/b.parquet", at(4))]


def test_before_any_event_the_instant_is_now(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows().clear())
    project.build()
    with clock.fixed(at(3)):
        found = explain("spend", {"user_id": 1}, project.store)
    assert found.to_json()["at"] == "2026-01-04T00:00:00.000000Z"
    assert list(values(found).values()) == [None, None, 0, 0]


def test_an_old_version_is_explained_by_its_own_files(project: Project) -> None:
    (project.events / "a.parquet").unlink()
    project.drop("c", rows((1, 0, 7.0)))
    project.build()
    new = explain("spend", {"user_id": 1}, project.store, at=at(0))
    old = explain("spend", {"user_id": 1}, project.store, at=at(0), version="1.0.0")
    assert sources(new) == [(at(0), 7.0, "c.parquet")]
    assert sources(old) == [(at(0), 1.0, "a.parquet")]
    assert (new.version, old.version) == ("1.0.1", "1.0.0")


def test_keys_may_come_as_text(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    events = rows((1, 0, 1.0)).with_columns(day=date(2026, 1, 1), new=True, text=pl.lit("a=b"))
    project.drop("a", events)
    project.build(project.define(lambda df: df, keys=["user_id", "day", "new", "text"]))
    entity = {"user_id": "1", "day": "2026-01-01", "new": "true", "text": "a=b"}
    found = explain("spend", entity, project.store)
    assert found.entity == {"user_id": 1, "day": date(2026, 1, 1), "new": True, "text": "a=b"}
    assert sources(found) == [(at(0), 1.0, "a.parquet")]


@pytest.mark.parametrize("at", [1.5, True, [], {}, b"2026-01-01", 2**63, "now", "2026-13-01"])
def test_an_at_of_another_kind_is_no_instant(project: Project, at: Any) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    with pytest.raises(RetrievalError, match="is no instant; write ISO 8601"):
        explain("spend", {"user_id": 1}, project.store, at=at)


def test_what_cannot_be_explained_is_refused_by_name(project: Project) -> None:
    with pytest.raises(FeatureNotFound, match="no feature 'spent'; there are: spend"):
        explain("spent", {"user_id": 1}, project.store)
    with pytest.raises(VersionNotFound, match=r"no version 3\.0\.0"):
        explain("spend", {"user_id": 1}, project.store, version="3.0.0")
    with pytest.raises(RetrievalError, match="'user_id' is missing, 'user' is no key"):
        explain("spend", {"user": 1}, project.store)
    with pytest.raises(RetrievalError, match="at='soon' is no instant; write ISO 8601"):
        explain("spend", {"user_id": 1}, project.store, at="soon")
    with pytest.raises(RetrievalError, match="at=4611686018427387904 is no instant"):
        explain("spend", {"user_id": 1}, project.store, at=2**62)


# -- beside what is online


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("user", [1, 2, 9])
def test_the_online_values_stand_beside_and_agree(
    tmp_path: Path, online: RedisStore, engine: str, user: int
) -> None:
    project = Project(tmp_path / "project", engine)
    amounts = [0.1, 1e9 + 0.3, -1e9, 0.7, 1 / 3]
    project.drop("a", rows(*((1, day / 10, x) for day, x in enumerate(amounts)), (2, 0, 0.1)))
    metrics = [Rolling(["2d", "7d"], {"amount": [*AGGREGATIONS, "count"][1:]})]
    push(project, online, project.define(metrics=metrics))
    found = explain("spend", {"user_id": user}, project.store, online=online)
    assert found.agrees is True
    assert found.served is not None
    assert (found.served.version, found.served.as_of) == ("1.0.0", found.at)
    assert all((value.online is None) == (value.value is None) for value in found.values)
    assert {type(value.online) for value in found.values if "last_3" in value.column} == {list}
    assert found.values[-1].online == {1: 5, 2: 1, 9: 0}[user]


def test_online_values_of_another_instant_are_compared_with_that_instants(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    found = explain("spend", {"user_id": 1}, project.store, at=at(1), online=online)
    value = found.values[0]
    assert (value.value, value.online, value.offline_then, value.agrees) == (3.0, 4.0, 4.0, True)
    assert found.agrees is True


def test_online_values_of_another_version_are_compared_with_that_versions(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    project.drop("c", rows((1, 3, 10.0)))
    project.build()
    found = explain("spend", {"user_id": 1}, project.store, online=online)
    assert found.version == "1.0.1"
    assert found.served is not None
    assert found.served.version == "1.0.0"
    assert [(v.value, v.online, v.agrees) for v in found.values[:1]] == [(14.0, 4.0, True)]


def test_values_whose_squares_no_float_holds_are_compared(
    tmp_path: Path, online: RedisStore
) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1e200), (1, 1, 1e200)))
    push(project, online, project.define(metrics=[Rolling("2d", {"amount": ["var"]})]))
    found = explain("spend", {"user_id": 1}, project.store, online=online)
    assert values(found) == {"amount__var__2d": 0.0}
    assert found.agrees is True


def test_an_online_value_that_someone_changed_does_not_agree(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    row = online.read("spend", {"user_id": 1})
    assert row is not None
    online.write("spend", {"user_id": 1}, {**row, "amount__sum__2d": 4.00001})
    found = explain("spend", {"user_id": 1}, project.store, online=online)
    assert [value.agrees for value in found.values] == [False, True, True, True]
    assert found.agrees is False
    online.delete("spend", {"user_id": 1})
    lost = explain("spend", {"user_id": 1}, project.store, online=online)
    assert [value.agrees for value in lost.values] == [False] * 4


def test_untimed_rows_are_compared_with_their_types(project: Project, online: RedisStore) -> None:
    push(project, online, with_profiles(project))
    found = explain("profile", {"user_id": 1}, project.store, online=online)
    assert [(value.online, value.agrees) for value in found.values] == [
        ("Ulm", True),
        (Decimal("1.50"), True),
    ]


def test_values_of_every_dtype_agree_with_their_json(project: Project, online: RedisStore) -> None:
    columns = {
        "f": pl.Series([0.1, 1e30, None], dtype=pl.Float32),
        "d": pl.Series([Decimal("0.10"), Decimal("-7.25"), None], dtype=pl.Decimal(12, 2)),
        "i": pl.Series([2**53 + 1, 1, None]),
        "b": pl.Series([True, False, None]),
        "s": pl.Series(["\u00e9", "", None]),
        "t": pl.Series([at(0), at(1) + US, None]),
        "day": pl.Series([date(2026, 1, 1), date(1, 1, 1), None]),
        "clock": pl.Series([time(1, 2, 3, 4), time(0), None]),
    }
    every = {
        **{name: ["sum", "mean", "std", "median", "min", "max"] for name in "fdib"},
        **{name: ["count", "min", "max"] for name in ("s", "t", "day", "clock")},
    }
    project.drop("a", rows((1, 0, 0.0), (1, 1, 0.0), (1, 1, 0.0)).with_columns(**columns))
    (project.events / "more" / "b.parquet").unlink()
    wide = project.define(lambda df: df, metrics=[Rolling("9d", every)])
    raw = project.define(lambda df: df, name="raw", metrics=[])
    push(project, online, wide, raw)
    for name in ("spend", "raw"):
        found = explain(name, {"user_id": 1}, project.store, online=online)
        assert {value.column: value.agrees for value in found.values} == {
            value.column: True for value in found.values
        }
        assert found.agrees is True


def test_what_cannot_be_compared_is_said_and_not_raised(
    project: Project, online: RedisStore
) -> None:
    never = explain("spend", {"user_id": 1}, project.store, online=online)
    assert never.served is not None
    assert never.served.problem == "not served: it was never pushed"
    away = RedisStore(port=1)
    silent = explain("spend", {"user_id": 1}, project.store, online=away)
    assert silent.served is not None
    assert "does not answer" in str(silent.served.problem)
    push(project, online)
    other = Project(project.root / "other")
    other.drop("a", rows((1, 0, 1.0)))
    other.build(version="7.0.0")
    unknown = explain("spend", {"user_id": 1}, other.store, online=online)
    assert unknown.served is not None
    assert "spend has no version 1.0.0" in str(unknown.served.problem)
    assert {never.agrees, silent.agrees, unknown.agrees} == {None}
    assert values(never)["amount__count__2d"] == 1


# -- the command


DEFINITIONS = """
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events", timestamp="at",
         metrics=[Rolling(["2d", "7d"], {"amount": ["sum", "count"]})])
def spend(df):
    return df.select("user_id", "at", "amount")

defs = Definitions(store=LocalStore("store"), features=[spend])
"""


@pytest.fixture
def folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    (project.root / "definitions.py").write_text(DEFINITIONS)
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("MLFORGE_DEFINITIONS", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return project


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["explain", *arguments]) == code
    text = capsys.readouterr().out
    if "--json" not in arguments:
        assert max(map(len, text.splitlines()), default=0) <= 80
    return text


def test_the_page_shows_values_windows_rows_and_files(
    folder: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    page = printed(capsys, "spend", "user_id=1", "--at", "2026-01-05T00:00:00Z")
    assert page == (
        "spend 1.0.0\n"
        "\n"
        "  user_id  1\n"
        "  at       2026-01-05 00:00:00\n"
        "  online   not asked: the definitions have no online store, REDIS_URL is not\n"
        "           set, and no `mlforge up` runs here\n"
        "\n"
        "column             value\n"
        "amount__sum__2d      4.0\n"
        "amount__sum__7d      7.0\n"
        "amount__count__2d      1\n"
        "amount__count__7d      3\n"
        "\n"
        "window  holds events of                             rows\n"
        "2d      [2026-01-03 00:00:00, 2026-01-05 00:00:00]     1\n"
        "7d      [2025-12-29 00:00:00, 2026-01-05 00:00:00]     3\n"
        "\n"
        "file            at                   amount  windows\n"
        "a.parquet       2026-01-01 00:00:00  1.0     7d\n"
        "more/b.parquet  2026-01-02 00:00:00  2.0     7d\n"
        "more/b.parquet  2026-01-05 00:00:00  4.0     2d, 7d\n"
    )


def test_the_page_says_how_many_rows_more_there_are(
    folder: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.drop("many", rows(*((5, day / 100, float(day)) for day in range(30))))
    folder.build()
    page = printed(capsys, "spend", "user_id=5")
    assert page.endswith("\nand 10 earlier rows: --json has all\n")
    assert page.count("many.parquet") == 20
    assert len(json.loads(printed(capsys, "spend", "user_id=5", "--json"))["rows"]) == 30
    assert "no rows contribute" in printed(capsys, "spend", "user_id=6")


WIDE = """
import polars as pl
from mlforge import Definitions, feature
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events", timestamp="at")
def wide(df):
    return df.with_columns(*(pl.lit("long " * 20).alias(f"text_{i}") for i in range(8)))

defs = Definitions(store=LocalStore("store"), features=[wide])
"""


def test_a_page_of_wide_rows_keeps_files_and_times_whole(
    folder: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("definitions.py").write_text(WIDE)
    folder.drop("more/b", rows((1, 4, 1.0), (1, 4, 2.0)))
    assert main(["build"]) == 0
    page = printed(capsys, "wide", "user_id=1")
    assert page.count("more/b.parquet  2026-") == 2
    assert page.endswith("\nand 5 more columns: --json has all\n")
    [other] = printed(capsys, "wide", "user_id=2").splitlines()[-1:]
    assert other == "a.parquet  2026-01-02 12:00:00"


def test_the_page_sets_the_online_values_at_redis_url_beside(
    folder: Project,
    online: RedisStore,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    assert "not served: it was never pushed" in printed(capsys, "spend", "user_id=1")
    push(folder, online)
    page = printed(capsys, "spend", "user_id=1")
    assert "1.0.0 as of 2026-01-05 00:00:00; agrees with the offline store" in page
    assert "column             value  online  agrees" in page
    assert "amount__sum__2d      4.0     4.0  yes" in page
    earlier = printed(capsys, "spend", "user_id=1", "--at", "2026-01-02")
    assert "column             value  offline then  online  agrees" in earlier
    assert "amount__sum__2d      3.0           4.0     4.0  yes" in earlier
    online.delete("spend", {"user_id": 1})
    wrong = printed(capsys, "spend", "user_id=1", code=1)
    assert "; differs from the offline store" in wrong
    assert "amount__sum__2d      4.0    null  no" in wrong


def test_json_holds_all_of_it(
    folder: Project,
    online: RedisStore,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    push(folder, online)
    document = json.loads(
        printed(capsys, "spend", "user_id=2", "--at", "2026-01-05", "--version", "1.0.0", "--json")
    )
    instant = datetime(2026, 1, 5, tzinfo=UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    assert document["values"][1] == {
        "column": "amount__sum__7d",
        "value": 5.0,
        "window": "7d",
        "start": "2025-12-29T00:00:00.000000Z",
        "end": instant,
        "closed": "both",
        "rows": 1,
        "online": 5.0,
        "offline_then": 5.0,
        "agrees": True,
    }
    assert document["rows"] == [
        {
            "file": "a.parquet",
            "windows": ["7d"],
            "values": {"at": "2026-01-02T12:00:00.000000Z", "amount": 5.0},
        }
    ]
    assert document["entity"] == {"user_id": 2}
    assert document["online"] == {
        "version": "1.0.0",
        "as_of": instant,
        "agrees": True,
        "problem": None,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["spend", "user_id"], 2, "write 'user_id' as key=value"),
        (["spend"], 1, "'user_id' is missing; the keys are user_id"),
        (["spend", "user_id=x"], 1, "is not a whole number"),
        (["spend", "user=1"], 1, "the keys are user_id"),
        (["spend", "user_id=1", "user_id=2"], 1, "key 'user_id' is given twice"),
        (["spent", "user_id=1"], 1, "no feature 'spent'"),
        (["spend", "user_id=1", "--at", "soon"], 1, "'soon' is no instant"),
        (["spend", "user_id=1", "--version", "9"], 2, "'9' is not a version"),
    ],
)
def test_mistakes_are_explained_in_a_line(
    folder: Project, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["explain", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err
