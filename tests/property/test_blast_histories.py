"""Blast radii of random histories: exactly the rows and columns that differ from the same set made again."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Feature, Service, TrainingSet, get_training_data, training_set
from mlforge.core.values import PRECISION
from mlforge.metrics import Rolling, ToDate
from tests.support.projects import Project, at, rows

USERS, DAYS = 9, 60


def features(project: Project) -> tuple[Feature, ...]:
    """One of each kind: windows of every sort, aligned, of the latest row, of a key, of the whole source, of a feature."""
    windows = [
        Rolling(["2d", "all"], {"amount": ["sum", "count", "last"]}),
        Rolling("7d", {"amount": ["mean"]}, closed="left", offset="1d"),
        ToDate("1mo", {"amount": ["max"]}),
    ]
    return (
        project.define(metrics=windows, derive={"rate": "amount__sum__2d / amount__count__2d"}),
        project.define(
            lambda df: df.with_columns(big=pl.col("amount") > 500),
            name="hourly",
            interval="1h",
            metrics=[Rolling("1d", {"amount": ["median"]}, where="big")],
        ),
        project.define(name="profile", metrics=[]),
        project.define(
            lambda df: df.group_by("user_id").agg(pl.col("amount").max()),
            name="users",
            metrics=[],
            timestamp=None,
        ),
        project.define(name="everyone", keys=[], metrics=[Rolling("1h", {"amount": ["sum"]})]),
        project.define(
            lambda df: df.select("user_id", "at", "amount__sum__2d"),
            name="peak",
            source="feature:spend",
            metrics=[Rolling("3d", {"amount__sum__2d": ["max"]})],
        ),
    )


def service(chosen: Sequence[Feature]) -> Service:
    """Some columns of some of the features, with request columns, defaults, and columns that follow from several."""
    spend, hourly, profile, *_ = chosen
    return Service(
        "checkout",
        [spend["amount__sum__2d", "rate"], hourly.as_("lately"), profile],
        request={"basket": pl.Float64},
        derive={
            "share": "basket / (spend__amount__sum__2d + 1)",
            "known": "not is_null(profile__amount) and user_id > 2",
        },
        defaults={"amount__sum__2d": 0},
    )


def spine(draw: random.Random, height: int) -> pl.DataFrame:
    """Entities and instants in no order, some null, some at an event's instant or a window's length after it."""
    return pl.DataFrame(
        {
            "user_id": [
                None if draw.random() < 0.05 else draw.randrange(USERS + 2) for _ in range(height)
            ],
            "at": [
                None if draw.random() < 0.05 else at(_day(draw) + draw.choice((0, 0, 1, 2, 8)))
                for _ in range(height)
            ],
            "basket": [draw.random() for _ in range(height)],
        }
    )


def _day(draw: random.Random) -> float:
    """A day that often comes again, so that instants lie on the edges of windows."""
    return draw.randrange(DAYS * 4) / 4 if draw.random() < 0.5 else draw.random() * DAYS


def events(draw: random.Random, count: int) -> pl.DataFrame:
    """So many events of the users."""
    return rows(*((draw.randrange(USERS), _day(draw), draw.random() * 1e3) for _ in range(count)))


def change(project: Project, draw: random.Random, number: int) -> None:
    """A late file, an amended one, one that goes, one that is renamed, or rows that move to another file."""
    files = sorted(project.events.glob("*.parquet"))
    some = draw.choice(files)
    match draw.choice(("late", "late", "amended", "amended", "removed", "renamed", "moved")):
        case "late":
            project.drop(f"late{number}", events(draw, draw.randint(1, 4)))
        case "amended":
            frame = pl.read_parquet(some)
            at_row = pl.int_range(pl.len()) == draw.randrange(frame.height)
            frame.with_columns(
                amount=pl.when(at_row).then(draw.random() * 1e3).otherwise("amount")
            ).write_parquet(some)
        case "removed" if len(files) > 1:
            some.unlink()
        case "renamed":
            some.rename(some.with_name(f"renamed{number}.parquet"))
        case "moved":
            frame = pl.read_parquet(some)
            project.drop(f"moved{number}", frame.tail(1))
            if frame.height > 1:
                frame.head(-1).write_parquet(some)


def differing(then: pl.DataFrame, now: pl.DataFrame) -> dict[int, list[str]]:
    """The columns in which each row differs, by the row's number, floats by more than their precision."""
    columns: dict[int, list[str]] = {}
    for name in now.columns:
        for row, pair in enumerate(zip(then[name], now[name], strict=True)):
            if not _same(*pair):
                columns.setdefault(row, []).append(name)
    return columns


def _same(one: Any, other: Any) -> bool:
    both = isinstance(one, float) and isinstance(other, float)
    return one == other or (both and abs(one - other) <= PRECISION * max(abs(one), abs(other)))


def check(made: TrainingSet, again: pl.DataFrame, project: Project, files: set[str]) -> int:
    """The radius is what a recomputation says, and names files that changed; returns how many rows differ."""
    radius = made.blast_radius(project.store)
    expected = differing(made.read(), again)
    named = {row: (columns, of) for row, columns, of in radius.rows.iter_rows()}
    assert {row: columns for row, (columns, _) in named.items()} == expected
    assert list(named) == sorted(named)
    assert all(of and set(of) <= files for _, of in named.values())
    assert radius.unlike == {}
    by_column = {
        name: sum(name in columns for columns in expected.values()) for name in again.columns
    }
    assert radius.by_column == {name: count for name, count in by_column.items() if count}
    in_rows = [file for _, of in named.values() for file in of]
    assert radius.by_file == {file: in_rows.count(file) for file in sorted({*in_rows})}
    assert len(expected) <= radius.looked_at <= made.rows
    return len(expected)


def history(folder: Path, number: int, engine: str, changes: int) -> int:
    """A set of features and one of a service, then changes of the source; returns how many rows differed in all."""
    draw = random.Random(number)
    project = Project(folder, engine)
    for file in range(3):
        project.drop(f"f{file}", events(draw, 80))
    chosen = features(project)
    project.definitions(*chosen).build()
    table, names = spine(draw, 300), [feature.name for feature in chosen]
    asked: list[Any] = [names, service(chosen)]
    sets = [
        training_set(table, what, project.store, folder / f"set{n}", engine=engine, part_rows=97)
        for n, what in enumerate(asked)
    ]
    before, files, total = _contents(project), set[str](), 0
    for step in range(changes):
        change(project, draw, step)
        project.definitions(*chosen).build()
        # A file that is renamed once it was taken in keeps its name in the version.
        files |= {f"events/{path}" for path, _ in before ^ _contents(project)}
        for what, made in zip(asked, sets, strict=True):
            again = get_training_data(table, what, project.store, engine=engine)
            total += check(made, again, project, files)
    return total


def _contents(project: Project) -> set[tuple[str, bytes]]:
    return {(file.name, file.read_bytes()) for file in project.events.glob("*.parquet")}


@pytest.mark.parametrize(
    ("number", "engine"), [(1, "polars"), pytest.param(2, "duckdb", marks=pytest.mark.slow)]
)
def test_a_radius_is_what_making_the_set_again_says(
    tmp_path: Path, number: int, engine: str
) -> None:
    assert history(tmp_path / "project", number, engine, changes=2)


@pytest.mark.slow
def test_many_radii_are_what_making_the_sets_again_says(tmp_path: Path) -> None:
    counts = [
        history(tmp_path / str(number), number, ("polars", "duckdb")[number % 2], changes=4)
        for number in range(100, 110)
    ]
    assert sum(count > 0 for count in counts) > 4
