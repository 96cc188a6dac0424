"""Labels: aggregations over the events ahead of a row, by plain Python on random histories, and what they refuse."""

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import TrainingSet, ahead, get_training_data, training_set
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.metrics import Rolling
from tests.support import oracle
from tests.support.projects import Project, at, rows

US_OF_DAY = 86_400_000_000
ENGINES = ["polars", "duckdb"]
AGGREGATIONS = ["sum", "count", "mean", "max", "median", "std", "first", "last", "count_distinct"]


def drawn(project: Project, seed: int, files: int = 3) -> list[tuple[int, float, float | None]]:
    """Events dropped into a project: many at one instant or a whole number of days apart, some without a value."""
    draw = random.Random(seed)
    events: list[tuple[int, float, float | None]] = []
    for number in range(files):
        some = [
            (
                draw.randrange(4),
                draw.choice([float(draw.randrange(40)), draw.random() * 40]),
                draw.choice([draw.random() * 100, float(draw.randrange(3)), None]),
            )
            for _ in range(25)
        ]
        project.drop(f"f{number}", rows(*some))
        events += some
    return events


def spine(seed: int, height: int = 60) -> pl.DataFrame:
    """Users, one of them never seen, at instants before, among and after the events; some null."""
    draw = random.Random(seed)
    days = [draw.choice([float(draw.randrange(-3, 45)), draw.random() * 45]) for _ in range(height)]
    return pl.DataFrame(
        {
            "user_id": [draw.choice([0, 1, 2, 3, 9, None]) for _ in range(height)],
            "at": [None if draw.random() < 0.1 else at(day) for day in days],
        },
        schema_overrides={"user_id": pl.Int64},
    )


def timed(
    events: list[tuple[int, float, float | None]],
) -> list[tuple[int, int, float | None]]:
    """The events, each at its instant in UTC microseconds."""
    return [(user, to_us(at(day)), amount) for user, day, amount in events]


def expected(
    events: list[tuple[int, int, float | None]], row: dict[str, Any], name: str, days: int
) -> oracle.Cell | None:
    """A label by plain Python; None where the horizon is not over by the newest event."""
    if row["at"] is None:
        return None
    t, horizon = to_us(row["at"]), days * US_OF_DAY
    if t + horizon > max(time for _, time, _ in events):
        return None
    mine = [e for e in events if e[0] == row["user_id"] and t < e[1] <= t + horizon]
    return oracle.aggregate(name, [amount for *_, amount in mine], [time for _, time, _ in mine])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("engine", ["duckdb", "polars"])
@pytest.mark.parametrize("interval", [None, "1d"])
def test_labels_are_what_plain_python_makes_of_the_events_ahead(
    tmp_path: Path, seed: int, engine: str, interval: str | None
) -> None:
    project = Project(tmp_path / "p")
    events = timed(drawn(project, seed))
    project.build(project.define(interval=interval, metrics=[Rolling(["2d"], {"amount": ["sum"]})]))
    labels = {
        f"{name}_{days}": ahead("spend", "amount", name, f"{days}d")
        for name in AGGREGATIONS
        for days in (1, 7)
    }
    table = spine(seed)
    answer = get_training_data(table, ["spend"], project.store, engine=engine, labels=labels)
    assert answer.columns[-len(labels) :] == list(labels)
    plain = get_training_data(table, ["spend"], project.store, engine=engine)
    assert answer.drop(*labels).equals(plain)
    for row in answer.to_dicts():
        for label in labels:
            name, days = label.rsplit("_", 1)
            cell = expected(events, row, name, int(days))
            same = (
                row[label] is None
                if cell is None
                else oracle.close(row[label], cell.value, cell.magnitude)
            )
            assert same, (label, row, cell)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("built") / "project")
    project.drop("f", rows((1, 1, 1.0), (1, 2, 2.0), (2, 5, 4.0), (1, 9, 8.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def one(user: int, day: float) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [user], "at": [at(day)]})


def test_an_event_at_the_instant_is_no_label_and_one_at_the_end_of_the_horizon_is(
    project: Project,
) -> None:
    labels = {"next": ahead("spend", "amount", "sum", "8d")}
    days = {
        day: get_training_data(one(1, day), ["spend"], project.store, labels=labels)["next"][0]
        for day in (0.5, 1, 1 + 1 / US_OF_DAY)
    }
    assert list(days.values()) == [3.0, 10.0, None]


def test_a_set_with_labels_says_what_they_are_and_how_many_are_not_known_yet(
    project: Project, tmp_path: Path
) -> None:
    table = pl.concat([one(1, day) for day in (0.0, 1.0, 3.0, 8.5, 8.6)] + [one(2, 4.0)])
    labels = {
        "next": ahead("spend", "amount", "sum", "4d"),
        "often": ahead("spend", "amount", "count", timedelta(days=1)),
    }
    for part_rows in (1, 2, 100):
        made = training_set(
            table,
            ["spend"],
            project.store,
            tmp_path / f"set{part_rows}",
            labels=labels,
            part_rows=part_rows,
        )
        assert made.read().equals(get_training_data(table, ["spend"], project.store, labels=labels))
        assert made.read()["next"].to_list() == [3.0, 2.0, None, None, None, 4.0]
        assert made.read()["often"].to_list() == [1, 1, 0, None, None, 1]
        assert {label.name: label.unknown for label in made.document.labels} == {
            "next": 2,
            "often": 2,
        }
        assert TrainingSet.open(made.path).document == made.document
        assert [column.name for column in made.lock.columns] == made.columns[2:-2]
    spoken = json.loads((made.path / "training_set.json").read_text())["labels"]
    assert [(each["name"], each["column"], each["horizon"]) for each in spoken] == [
        ("next", "amount", "4d"),
        ("often", "amount", "1d"),
    ]


def test_a_label_may_have_any_name(project: Project) -> None:
    labels = {name: ahead("spend", "amount", "count", "3d") for name in ("row", "other")}
    answer = get_training_data(spine(5), ["spend"], project.store, labels=labels)
    assert answer["row"].equals(answer["other"])


def test_a_label_of_a_feature_that_is_not_asked_for_keeps_its_version(
    project: Project, tmp_path: Path
) -> None:
    project.definitions(project.define(name="other")).build()
    labels = {"next": ahead("other", "amount", "sum", "4d")}
    made = training_set(one(1, 1), ["spend"], project.store, tmp_path / "set", labels=labels)
    assert project.store.books("other").kept_at(clock.now()) == {"1.0.0"}
    assert made.release(project.store) == ("other", "spend")


# -- what changed since


def recomputed(made: TrainingSet, project: Project, labels: dict[str, Any]) -> dict[int, list[str]]:
    """The rows and columns of a set that differ from those of today, by making them again."""
    then = made.read()
    now = get_training_data(then.select("user_id", "at"), ["spend"], project.store, labels=labels)
    return {
        row: names
        for row, (a, b) in enumerate(zip(then.to_dicts(), now.to_dicts(), strict=True))
        if (names := [n for n in a if a[n] != b[n] and not _near(a[n], b[n])])
    }


def _near(a: Any, b: Any) -> bool:
    both = isinstance(a, float) and isinstance(b, float)
    return both and abs(a - b) <= 1e-9 * max(abs(a), abs(b))


@pytest.mark.parametrize("seed", range(6))
def test_the_blast_radius_of_labels_is_what_a_recomputation_finds(
    tmp_path: Path, seed: int
) -> None:
    project = Project(tmp_path / "project")
    draw = random.Random(seed)
    drawn(project, seed)
    project.build()
    labels = {
        "next": ahead("spend", "amount", "sum", "5d"),
        "often": ahead("spend", "amount", "count", "1d"),
        "last": ahead("spend", "amount", "last", "20d"),
    }
    made = training_set(
        spine(seed, 200), ["spend"], project.store, tmp_path / "set", labels=labels, part_rows=60
    )
    changed = rows(*((draw.randrange(5), draw.random() * 50, draw.random()) for _ in range(3)))
    if seed % 3 == 0:
        project.drop("late", changed)
    elif seed % 3 == 1:
        project.drop("f1", pl.concat([drawn_rows(seed), changed]))
    else:
        (project.root / "events" / "f2.parquet").unlink()
    project.build()
    radius = made.blast_radius(project.store)
    told = dict(radius.rows.select("row", "columns").iter_rows())
    assert told == recomputed(made, project, labels)
    assert told
    assert all(radius.rows["files"].list.len() > 0)
    assert set(radius.versions) == {"spend", *labels}


def drawn_rows(seed: int) -> pl.DataFrame:
    draw = random.Random(-seed)
    return rows(*((draw.randrange(4), draw.random() * 40, draw.random()) for _ in range(20)))


def test_a_horizon_that_is_over_now_is_told_with_the_file_that_shows_it(
    project: Project, tmp_path: Path
) -> None:
    labels = {"often": ahead("spend", "amount", "count", "2d")}
    made = training_set(one(1, 8.0), ["spend"], project.store, tmp_path / "set", labels=labels)
    assert made.read()["often"].to_list() == [None]
    project.drop("new", rows((7, 10, 1.0)))
    project.build()
    radius = made.blast_radius(project.store)
    assert radius.by_column == {"often": 1}
    assert list(radius.by_file) == ["events/new.parquet"]


def test_an_untimed_feature_beside_a_label_is_told_with_its_files(
    project: Project, tmp_path: Path
) -> None:
    users = project.define(
        lambda df: df.group_by("user_id").agg(pl.col("amount").max()),
        name="users",
        metrics=[],
        timestamp=None,
    )
    project.definitions(project.define(), users).build()
    labels = {"often": ahead("spend", "amount", "count", "2d")}
    made = training_set(one(1, 1.0), ["users"], project.store, tmp_path / "set", labels=labels)
    project.drop("new", rows((1, 30, 99.0)))
    project.definitions(project.define(), users).build()
    radius = made.blast_radius(project.store)
    assert radius.by_column == {"users__amount": 1}
    assert "events/new.parquet" in radius.by_file


def test_a_label_whose_column_is_gone_is_told(project: Project, tmp_path: Path) -> None:
    labels = {"often": ahead("spend", "amount", "count", "2d")}
    made = training_set(one(1, 1.0), ["spend"], project.store, tmp_path / "set", labels=labels)
    paid = project.define(
        lambda df: df.rename({"amount": "paid"}), metrics=[Rolling("7d", {"paid": ["sum"]})]
    )
    project.build(paid)
    radius = made.blast_radius(project.store)
    assert "amount" in radius.unlike["often"]
