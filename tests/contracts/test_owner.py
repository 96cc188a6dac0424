"""Rows online are one store's: no other pushes them, drops them or reads them for its own."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from mlforge import Definitions, explain, get_online_features
from mlforge.cli.main import main
from mlforge.core import clock, failpoints
from mlforge.errors import DefinitionError, NotServed, OwnedElsewhere
from mlforge.online import RedisStore
from mlforge.online import push as pushing
from mlforge.store import LocalStore
from tests.support.projects import Project, at, rows

ONE = [{"user_id": 1}]
SUM = "spend__amount__sum__7d"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        yield connection


@pytest.fixture
def make(tmp_path: Path, redis_url: str) -> Callable[..., tuple[Project, Definitions]]:
    """A project in a folder of its own, whose user 1 has spent so much; all are called `project`."""

    def made(name: str, amount: float = 1.0, **options: Any) -> tuple[Project, Definitions]:
        project = Project(tmp_path / name / "project")
        project.drop("one", rows((1, 0, amount)))
        online = RedisStore.from_url(redis_url, **options)
        return project, project.definitions(online_store=online)

    return made


Make = Callable[..., tuple[Project, Definitions]]


def test_a_push_of_a_feature_that_another_store_owns_is_refused_by_name(make: Make) -> None:
    _, first = make("a", 1.0)
    other, second = make("b", 2.0)
    with clock.fixed(at(3)):
        first.build(online=True)
    second.build()
    with pytest.raises(OwnedElsewhere) as caught:
        second.push("spend")
    told = str(caught.value)
    assert first.store.identity().id in told  # type: ignore[union-attr]
    assert str(first.root) in told
    assert socket.gethostname() in told
    assert "2026-01-04T00:00:00" in told, "since when"
    for way in ("prefix=", "another name", "mlforge adopt spend"):
        assert way in told
    assert get_online_features(["spend"], ONE, first.online_store)[0][SUM] == 1.0  # type: ignore[arg-type]
    planned = second.plan()["spend"]
    assert any("another owner" in warning for warning in planned.warnings)
    assert other.store.read_metadata("spend").row_count == 1, "it is built all the same"


def test_a_reader_gets_its_own_store_s_values_or_an_error(make: Make, redis_url: str) -> None:
    _, first = make("a", 1.0)
    project, second = make("b", 2.0)
    first.build(online=True)
    second.build()
    owner = first.store.identity()
    assert owner is not None
    readers: list[Callable[[RedisStore], Any]] = [
        lambda store: get_online_features(["spend"], ONE, store),
        lambda store: store.read("spend", ONE[0]),
        lambda store: store.read_batch("spend", ONE),
        lambda store: store.fetch([("spend", ONE)]),
    ]
    for meant in (
        second.online_store,
        RedisStore.from_url(redis_url, owner="another"),
        RedisStore.from_url(redis_url, owner=LocalStore(project.root / "none")),
    ):
        for read in readers:
            with pytest.raises(OwnedElsewhere, match=owner.id):
                read(meant)  # type: ignore[arg-type]
    for meant in (
        first.online_store,
        RedisStore.from_url(redis_url),
        RedisStore.from_url(redis_url, owner=owner.id),
        RedisStore.from_url(redis_url, owner=first.store),
    ):
        for read in readers:
            assert read(meant)  # type: ignore[arg-type]
    explained = explain("spend", {"user_id": 1}, second.store, online=second.online_store)
    assert explained.served is not None
    assert "another owner" in str(explained.served.problem)


def test_prefixes_and_names_keep_projects_apart(make: Make) -> None:
    _, first = make("a", 1.0)
    _, second = make("b", 2.0, prefix="team-b")
    first.build(online=True)
    second.build(online=True)
    got = [get_online_features(["spend"], ONE, d.online_store)[0][SUM] for d in (first, second)]  # type: ignore[arg-type]
    assert got == [1.0, 2.0]


def test_rows_are_dropped_by_their_owner_alone(make: Make) -> None:
    _, first = make("a", 1.0)
    _, second = make("b", 2.0)
    first.build(online=True)
    second.build()
    mine, theirs = first.store.identity(), second.store.identity()
    assert mine is not None
    assert theirs is not None
    online = first.online_store
    assert online is not None
    for refused in (
        lambda: online.drop("spend", theirs.id),
        lambda: online.forget("spend", theirs.id),
    ):
        with pytest.raises(OwnedElsewhere, match=mine.id):
            refused()
    assert get_online_features(["spend"], ONE, online)[0][SUM] == 1.0
    assert online.drop("spend", mine.id) == 1
    assert online.drop("spend", theirs.id) == 0


def test_who_adopts_a_feature_serves_its_own_values_and_bars_the_other(make: Make) -> None:
    first_project, first = make("a", 1.0)
    _, second = make("b", 2.0)
    for day in (1, 2, 3):  # the other has many generations more
        first_project.drop(f"d{day}", rows((9, day, 1.0)))
        first.build(online=True)
    second.build()
    seen: list[object] = []

    def look() -> None:
        try:
            seen.append(get_online_features(["spend"], ONE, second.online_store)[0][SUM])  # type: ignore[arg-type]
        except NotServed:
            seen.append("not served")

    for place in ("push.begun", "push.put", "push.removed"):
        failpoints.arm(place, look)
    try:
        pushed = second.adopt("spend")
    finally:
        failpoints.disarm()
    assert seen == ["not served"] * 3, "never the other's values"
    assert (pushed.full, pushed.written, pushed.deleted) == (True, 1, 1)
    assert get_online_features(["spend"], ONE, second.online_store)[0][SUM] == 2.0  # type: ignore[arg-type]
    with pytest.raises(OwnedElsewhere):
        first.push("spend")
    assert second.adopt("spend").written == 0, "it is its own already"


@pytest.mark.parametrize("more", [0, 3], ids=["its fence is the same", "its fence is lower"])
def test_a_push_under_way_is_barred_by_an_adoption(make: Make, more: int) -> None:
    """Two stores of the same files have the same versions, generations and instants."""
    first_project, first = make("a", 1.0)
    second_project, second = make("b", 1.0)
    first.build(online=True)
    for day in range(more):
        second_project.drop(f"d{day}", rows((9, 0, 1.0)))
        second.build()
    second.build()
    first_project.drop("two", rows((1, 0, 5.0)))
    first.refresh("spend")

    def adopt() -> None:
        failpoints.disarm()
        second.adopt("spend")

    failpoints.arm("push.begun", adopt)
    try:
        with suppress(OwnedElsewhere):  # or it ends quietly, as one that was overtaken
            first.push("spend")
    finally:
        failpoints.disarm()
    assert get_online_features(["spend"], ONE, second.online_store)[0][SUM] == 1.0  # type: ignore[arg-type]
    with pytest.raises(OwnedElsewhere):
        first.push("spend")


def test_a_store_made_anew_in_its_place_takes_over_by_itself_and_says_so(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    project, first = make("a", 1.0)
    for day in (1, 2):
        project.drop(f"d{day}", rows((9, day, 1.0)))
        first.build(online=True)
    before = first.store.identity()
    shutil.rmtree(project.store.path)
    for path in project.events.glob("d*"):
        path.unlink()
    first.build(online=True)
    assert before is not None
    assert first.store.identity() not in (None, before)
    assert "taken over" in capsys.readouterr().err
    assert (
        get_online_features(["spend"], [*ONE, {"user_id": 9}], first.online_store)[1][  # type: ignore[arg-type]
            "spend__amount__count__7d"
        ]
        == 0
    )


@pytest.mark.parametrize(
    "change", [{"host": "elsewhere"}, {"place": "LocalStore('/elsewhere')"}, {"place": ""}]
)
def test_a_store_of_another_place_or_host_does_not_take_over(
    make: Make, change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, first = make("a", 1.0)
    owner_of = pushing.owner_of
    _, other = make("b", 1.0)
    other.build()
    monkeypatch.setattr(
        "mlforge.definitions.registry.owner_of", lambda *args: replace(owner_of(*args), **change)
    )
    first.build(online=True)
    monkeypatch.undo()
    shutil.rmtree(project.store.path)
    first.build()
    with pytest.raises(OwnedElsewhere):
        first.push("spend")


def test_a_store_that_was_moved_is_still_the_owner(
    make: Make, tmp_path: Path, redis_url: str
) -> None:
    project, first = make("a", 1.0)
    first.build(online=True)
    shutil.move(project.root, tmp_path / "moved")
    moved = Project.__new__(Project)
    moved.root, moved.engine = tmp_path / "moved", "polars"
    moved.events, moved.store = moved.root / "events", LocalStore(moved.root / "store")
    moved.drop("two", rows((1, 0, 5.0)))
    online = RedisStore.from_url(redis_url)
    moved.definitions(online_store=online).build(online=True)
    assert get_online_features(["spend"], ONE, online)[0][SUM] == 6.0


def test_books_of_a_release_that_named_no_owner_are_taken_by_the_first_push(
    make: Make, client: redis.Redis
) -> None:
    project, first = make("a", 1.0)
    first.build(online=True)
    client.hdel("mlforge:spend", "owner", "owner_place", "store", "ttl")
    online = first.online_store
    assert online is not None
    assert get_online_features(["spend"], ONE, online)[0][SUM] == 1.0, "readers go on"
    project.drop("two", rows((2, 0, 5.0)))
    pushed = first.build(online=True)["spend"]
    assert pushed.keys_written == 2, "their TTL is not known, so all are written anew once"
    books = online.books("spend")
    assert books is not None
    assert books.owner is not None
    assert books.owner.store == first.store.identity().id  # type: ignore[union-attr]
    assert (books.owner.project, books.owner.root) == ("project", str(first.root))


def test_an_owner_that_is_none_is_refused() -> None:
    for owner in ("", 5, b"x"):
        with pytest.raises(DefinitionError, match="owner="):
            RedisStore(owner=owner)  # type: ignore[arg-type]


DEFINITIONS = """
import polars as pl
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events", timestamp="at", metrics=[Rolling("7d", {{"amount": "sum"}})])
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df

definitions = Definitions(LocalStore("store"), [spend], RedisStore.from_url({url!r}))
"""


def test_the_command_adopts_a_feature_and_says_whose_it_was(
    make: Make,
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, first = make("a", 1.0)
    first.build(online=True)
    owner = first.store.identity()
    assert owner is not None
    project = Project(tmp_path / "b")
    project.drop("one", rows((1, 0, 2.0)))
    (project.root / "definitions.py").write_text(DEFINITIONS.format(url=redis_url))
    monkeypatch.chdir(project.root)
    assert main(["adopt", "spend"]) == 1
    assert "build it first" in capsys.readouterr().err
    assert main(["build", "--online"]) == 1
    assert "another owner" in capsys.readouterr().err
    assert main(["adopt", "spend", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert owner.id in told["from"]
    assert (told["feature"], told["version"], told["written"]) == ("spend", "1.0.0", 1)
    assert main(["adopt", "spend"]) == 0
    assert "was this store's already" in capsys.readouterr().out
    assert RedisStore.from_url(redis_url).read("spend", ONE[0]) == {"amount__sum__7d": 2.0}
