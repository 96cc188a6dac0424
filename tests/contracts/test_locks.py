"""Locks: a model gets the columns that it was made with, or an error that says what changed; never others in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Feature, Service, get_online_features, get_training_data
from mlforge.build.broken_locks import FOR_A_LOCK, end_lock
from mlforge.cli import main
from mlforge.core import clock
from mlforge.core.lock import Lock
from mlforge.core.values import to_us
from mlforge.errors import (
    BooksDamaged,
    FeatureNotFound,
    IntegrityError,
    LockMismatch,
    NotServed,
    RetrievalError,
    StoreError,
    UnsupportedStore,
)
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from tests.support.projects import Project, at, identity, rows

SUM, RATE = "amount__sum__7d", "rate"
ENTITY = [{"user_id": 1}]
REQUEST = [{"price": 2.0}]
RATED = {RATE: "amount__sum__7d / amount__count__7d"}


def doubled(df: pl.DataFrame) -> pl.DataFrame:
    return identity(df).with_columns(amount=pl.col("amount") * 2)


def whole(df: pl.DataFrame) -> pl.DataFrame:
    return identity(df).with_columns(amount=pl.col("amount").cast(pl.Int64))


def sums(window: str = "7d", *, names: Any = ("sum", "count"), **ends: Any) -> dict[str, Any]:
    return {"metrics": [Rolling(window, {"amount": list(names)}, **ends)]}


def checkout(of: Feature, **changes: Any) -> Service:
    settings: dict[str, Any] = {
        "request": {"price": pl.Float64},
        "derive": {"share": "price / spend__rate"},
        "defaults": {SUM: 0},
    }
    return Service("checkout", [of[SUM, RATE]], **(settings | changes))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)))
    return project


def spend(project: Project, function: Callable[..., Any] = identity, **changes: Any) -> Feature:
    return project.define(function, **{"derive": RATED, **sums(), **changes})


def unattended(project: Project, feature: Feature) -> Any:
    return project.definitions(feature).refresh("spend", attended=False)


BREAKING: dict[str, tuple[Callable[[Project], Feature], str, str]] = {
    "code": (lambda p: spend(p, doubled), "1.1.0", "the function's code changed"),
    "window": (
        lambda p: spend(p, derive={RATE: "amount__sum__14d / amount__count__14d"}, **sums("14d")),
        "2.0.0",
        r"window 7d became 14d \(spend__amount__sum__14d\)",
    ),
    "ends": (lambda p: spend(p, **sums(closed="left")), "1.1.0", "closed ends both became left"),
    "metric": (
        lambda p: spend(p, derive=None, **sums(names=["count"])),
        "2.0.0",
        "spend__amount__sum__7d: it is gone",
    ),
    "interval": (lambda p: spend(p, interval="1d"), "1.1.0", "interval none became 1d"),
    "expression": (
        lambda p: spend(p, derive={RATE: "amount__sum__7d / 7"}),
        "1.1.0",
        "became 'amount__sum__7d / 7'",
    ),
    "type": (lambda p: spend(p, whole), "2.0.0", "its type Float64 became Int64"),
    "key": (
        lambda p: spend(
            p, lambda df: identity(df).with_columns(shop=pl.lit(1)), keys=["user_id", "shop"]
        ),
        "",
        "keys user_id became shop, user_id",
    ),
}
PASSING: dict[str, Callable[[Project], Feature]] = {
    "rows": spend,
    "a further metric": lambda p: spend(p, **sums(names=["max", "count", "sum"])),
    "a further derived column": lambda p: spend(p, derive={"x": "amount__sum__7d + 1", **RATED}),
    "another engine": lambda p: spend(p, engine="duckdb"),
    "an expression laid out otherwise": lambda p: spend(
        p, derive={RATE: "(amount__sum__7d)/amount__count__7d"}
    ),
}


@pytest.mark.parametrize("what", BREAKING)
def test_a_version_that_breaks_a_registered_lock_is_held_and_then_refused_to_its_model(
    project: Project, what: str
) -> None:
    define, version, words = BREAKING[what]
    before = spend(project)
    project.build(before)
    lock = checkout(before).lock(project.store)
    project.store.register_lock("fraud", lock)
    held = unattended(project, define(project))
    assert (held.changed, held.version) == (False, "1.0.0")
    assert held.held.startswith(
        f"{FOR_A_LOCK}would break the lock of model fraud (service checkout)"
    )
    spine = pl.DataFrame({"user_id": [1], "at": [at(4)], "price": [2.0]})
    training = get_training_data(spine, checkout(before), project.store, lock=lock)
    assert training["spend__amount__sum__7d"].to_list() == [3.0]
    # A person's build goes on, and what the model was made with is refused.
    built = project.build(define(project))
    assert built.changed
    assert version in (built.version, "")
    assert project.store.books("spend").hold is None
    with pytest.raises(LockMismatch, match=words):
        get_training_data(spine, ["spend"], project.store, lock=lock)
    # What is broken already holds nothing back.
    project.drop("b", rows((1, 3.5, 4.0)))
    assert unattended(project, define(project)).changed


@pytest.mark.parametrize("what", PASSING)
def test_a_lock_lets_pass(project: Project, what: str) -> None:
    before = spend(project)
    project.build(before)
    lock = checkout(before).lock(project.store)
    project.store.register_lock("fraud", lock)
    project.drop("b", rows((1, 3.5, 4.0)))
    now = PASSING[what](project)
    result = unattended(project, now)
    assert (result.changed, result.held) == (True, None)
    spine = pl.DataFrame({"user_id": [1], "at": [at(4)], "price": [2.0]})
    answer = get_training_data(spine, checkout(now), project.store, lock=lock)
    assert answer["spend__amount__sum__7d"].to_list() == [7.0]


def test_a_hold_for_a_lock_goes_with_the_lock_or_with_the_change(project: Project) -> None:
    before = spend(project)
    project.build(before)
    project.store.register_lock("fraud", checkout(before).lock(project.store))
    project.drop("b", rows((1, 3.5, 4.0)))
    assert unattended(project, spend(project, doubled)).held
    assert unattended(project, before).changed
    assert project.store.books("spend").hold is None
    assert unattended(project, spend(project, doubled)).held
    project.build(spend(project, doubled))
    more = spend(project, doubled, **sums(names=("sum", "count", "max")))
    assert unattended(project, more).changed, "what is broken already is broken no further"
    project.build(before)
    assert unattended(project, spend(project, doubled)).held
    assert project.store.remove_lock("fraud")
    assert not project.store.remove_lock("fraud")
    assert unattended(project, spend(project, doubled)).changed


def test_a_hold_tells_a_loss_and_a_broken_lock_together(project: Project) -> None:
    project.drop("b", rows((1, 3.5, 4.0)))
    before = spend(project)
    project.build(before)
    project.store.register_lock("fraud", checkout(before).lock(project.store))
    (project.root / "events/a.parquet").unlink()
    held = unattended(project, spend(project, doubled)).held
    assert held.startswith("1 of 2 files are gone")
    assert f". Also, {FOR_A_LOCK}would break the lock of model fraud" in held
    only_lost = unattended(project, before).held
    assert (only_lost.startswith("1 of 2 files are gone"), "fraud" in only_lost) == (True, False)


def test_a_lock_that_cannot_be_read_holds_what_it_may_forbid(project: Project) -> None:
    before = spend(project)
    project.build(before)
    project.store.register_lock("fraud", checkout(before).lock(project.store))
    [path] = (project.root / "store/_metadata/locks").iterdir()
    text = path.read_text()
    for wrong, error in [("{", IntegrityError), (text.replace('"format": 1', '"format": 2'), UnsupportedStore)]:  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(error, match=r"fraud\.json"):
            project.store.locks()
        project.drop("b", rows((1, 3.5, float(len(wrong)))))
        assert unattended(project, before).changed  # rows break no lock, so none is read
        assert "lock that cannot be read" in unattended(project, spend(project, doubled)).held


def test_a_lock_of_another_store_is_registered_only_where_it_holds(
    project: Project, tmp_path: Path
) -> None:
    before = spend(project)
    project.build(before)
    lock = checkout(before).lock(project.store)
    other = project.on(LocalStore(tmp_path / "other"))
    with pytest.raises(FeatureNotFound, match="no feature 'spend'"):
        other.store.register_lock("fraud", lock)
    other.build(spend(project, doubled))
    with pytest.raises(
        LockMismatch, match=r"does not hold in this store.*the function's code changed"
    ):
        other.store.register_lock("fraud", lock)
    other.build(before)
    other.store.register_lock("fraud", lock)
    assert other.store.locks() == {"fraud": lock}
    for name in ("../x", ""):
        with pytest.raises(StoreError, match="model name"):
            other.store.register_lock(name, lock)


def test_what_a_service_says_counts_too(project: Project) -> None:
    feature = spend(project)
    project.build(feature)
    lock = checkout(feature).lock(project.store)
    spine = pl.DataFrame({"user_id": [1], "seller": [2], "at": [at(4)], "price": [2.0]})
    renamed = Service(
        "checkout",
        [feature.as_("spend", user_id="seller")[SUM, RATE]],
        request={"price": pl.Float64},
        derive={"share": "price / spend__rate"},
        defaults={SUM: 0},
    )
    for changed, words in [
        (renamed, "the names of its keys none became user_id as seller"),
        (checkout(feature, defaults={SUM: 1}), "the value in place of null 0.0 became 1.0"),
        (checkout(feature, defaults=None), "the value in place of null 0.0 became none"),
        (checkout(feature, derive={"share": "spend__rate / price"}), "the expression 'price / spend__rate' became"),
        (checkout(feature, request={"price": pl.Int64}), "price: its type Float64 became Int64"),
        (checkout(feature, derive=None), "share: it is gone"),
    ]:  # fmt: skip
        with pytest.raises(LockMismatch, match=words):
            get_training_data(spine.cast({"price": changed.request and pl.Int64 if "Int64" in words else pl.Float64}), changed, project.store, lock=lock)  # fmt: skip
    with pytest.raises(RetrievalError, match="lock must be a Lock or the path"):
        get_training_data(spine, checkout(feature), project.store, lock=3)  # type: ignore[arg-type]
    with pytest.raises(RetrievalError, match="not of"):
        checkout(feature).lock("store")  # type: ignore[arg-type]


def test_a_key_whose_type_changes_breaks_a_lock_by_name_and_none_of_a_release_before(
    project: Project, online: RedisStore
) -> None:
    feature = spend(project)
    service = checkout(feature)
    project.build(feature)
    lock = service.lock(project.store)
    document = lock.to_json()
    former = Lock.from_json(
        {**document, "columns": [{**c, "keys": {}} for c in document["columns"]]}
    )
    project.store.register_lock("fraud", lock)
    texts = rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)).cast({"user_id": pl.String})
    project.drop("a", texts)
    held = unattended(project, feature)
    assert (held.changed, held.version) == (False, "1.0.0")
    assert "the type of its key user_id Int64 became String" in held.held
    definitions = project.definitions(feature)
    definitions.online_store = online
    with clock.fixed(to_us(at(4))):
        assert definitions.build(online=True)["spend"].version == "2.0.0"
    spine = pl.DataFrame({"user_id": ["1"], "at": [at(4)], "price": [2.0]})
    request: dict[str, Any] = {"request": REQUEST, "store": online}
    words = f"spend__{SUM}: the type of its key user_id Int64 became String"
    with pytest.raises(LockMismatch, match=words):
        get_training_data(spine, service, project.store, lock=lock)
    with pytest.raises(LockMismatch, match=words):
        get_online_features(service, [{"user_id": "1"}], lock=lock, **request)
    trained = get_training_data(spine, service, project.store, lock=former)
    [served] = get_online_features(service, [{"user_id": "1"}], lock=former, **request)
    assert trained[f"spend__{SUM}"].to_list() == [served[f"spend__{SUM}"]] == [3.0]


def test_ids_that_a_drop_widens_break_no_lock_and_make_no_version_of_a_service(
    project: Project, online: RedisStore
) -> None:
    feature = spend(project)
    service = checkout(feature)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0)).cast({"user_id": pl.Int32}))
    definitions = project.definitions(feature, services=[service])
    definitions.online_store = online
    with clock.fixed(to_us(at(4))):
        definitions.build(online=True)
        lock = service.lock(project.store)
        project.store.register_lock("fraud", lock)
        project.drop("b", rows((1, 3.5, 4.0), (1 << 40, 3, 8.0)))
        result = definitions.refresh("spend", attended=False)
        assert (result.held, result.reason) == (None, "dtype_changed")
        definitions.build(online=True)
    assert [*map(str, project.store.service_versions("checkout"))] == ["1.0.0"]
    for each in (service, Service.at(project.store, "checkout@1")):
        options: dict[str, Any] = {"request": REQUEST * 2, "store": online, "lock": lock}
        answers = get_online_features(each, [*ENTITY, {"user_id": 1 << 40}], **options)
        assert [answer[f"spend__{SUM}"] for answer in answers] == [7.0, 8.0]


def test_online_answers_are_held_against_a_lock(
    project: Project, online: RedisStore, tmp_path: Path
) -> None:
    before = spend(project)

    def push(feature: Feature) -> Definitions:
        defs = project.definitions(feature)
        defs.online_store = online
        with clock.fixed(to_us(at(4))):
            defs.build(online=True)
        return defs

    push(before)
    service = checkout(before)
    path = service.lock(project.store).save(tmp_path / "features.lock")

    def answer(of: Any = service, lock: Any = path) -> Any:
        request = REQUEST if isinstance(of, Service) else None
        return get_online_features(of, ENTITY, online, request=request, lock=lock)

    assert answer() == answer(lock=None)
    with pytest.raises(LockMismatch, match="price: it is gone; share: it is gone"):
        answer(["spend"])
    further = spend(project, **sums(names=["max", "count", "sum"]))
    push(further)
    assert answer()[0]["spend__amount__sum__7d"] == 3.0
    push(spend(project, doubled))
    with pytest.raises(LockMismatch, match="spend__amount__sum__7d: the function's code changed"):
        answer()
    assert answer(lock=None)[0]["spend__amount__sum__7d"] == 6.0
    # Books of a release that told no meaning, or whose push left the text of another version.
    fields = {"meaning": ""}, {"meaning": "9.9.9 {}"}
    key = f"{online.prefix}:spend"
    for changed in fields:
        with online._server.asking() as client:
            client.hset(key, mapping=changed)
        with pytest.raises(NotServed, match="mlforge build --features spend --online"):
            answer()
        assert answer(lock=None)[0]["spend__amount__sum__7d"] == 6.0
        push(spend(project, doubled))  # nothing moved: the meaning alone is written
        with pytest.raises(LockMismatch):
            answer()
    with online._server.asking() as client:
        version = client.hget(key, "version")
        text = version.decode() if isinstance(version, bytes) else version
        client.hset(key, "meaning", f"{text} {{")
    with pytest.raises(BooksDamaged, match="do not say what its columns mean"):
        answer()


def test_no_lock_is_held_against_rows_of_which_some_may_mean_something_else(
    project: Project, online: RedisStore
) -> None:
    """A push that has begun may have written rows, and its books say what they mean at its end."""
    feature = spend(project)
    defs = project.definitions(feature)
    defs.online_store = online
    with clock.fixed(to_us(at(4))):
        defs.build(online=True)
    service = checkout(feature)
    lock = service.lock(project.store)

    def answer(lock: Any = lock) -> Any:
        return get_online_features(service, ENTITY, online, request=REQUEST, lock=lock)

    books = online.books("spend")
    assert books is not None
    target = books.target
    assert target is not None
    patch = replace(target, version="1.0.9", generation=target.generation + 1)
    online.begin("spend", patch)
    assert answer() == answer(None)
    online.begin("spend", replace(target, version="1.1.0", generation=target.generation + 2))
    with pytest.raises(NotServed, match=r"1\.1\.0, whose columns may mean something else"):
        answer()
    assert answer(None)[0]["spend__amount__sum__7d"] == 3.0


def test_the_end_of_a_lock_ends_the_holds_that_protected_it(project: Project) -> None:
    before = spend(project)
    project.build(before)
    project.store.register_lock("fraud", checkout(before).lock(project.store))
    changed = spend(project, doubled)
    held = unattended(project, changed)
    assert held.held is not None
    assert project.store.books("spend").hold == held.held
    assert not end_lock(project.store, "another")
    assert project.store.books("spend").hold == held.held
    assert end_lock(project.store, "fraud")
    assert project.store.books("spend").hold is None
    assert unattended(project, changed).version == "1.1.0"
    project.store.register_lock("credit", checkout(changed).lock(project.store))
    by_person = f"{FOR_A_LOCK}is not wanted before Monday"
    with project.store.lock("spend"):
        books = project.store.books("spend").held(by_person, by_person=True)
        project.store.write_books("spend", books)
    assert end_lock(project.store, "credit")
    assert project.store.books("spend").hold == by_person


def test_commands_write_list_and_end_locks_and_a_plan_names_the_models(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    text = (
        "from mlforge import Definitions, Service, feature\n"
        "from mlforge.metrics import Rolling\nfrom mlforge.store import LocalStore\n"
        '@feature(keys=["user_id"], source="events", timestamp="at", '
        'metrics=[Rolling("7d", {"amount": "sum"})])\n'
        "def spend(df):\n    return df\n"
        'defs = Definitions(LocalStore("store"), [spend], services=[Service("checkout", [spend])])\n'
    )
    definitions = project.root / "definitions.py"
    definitions.write_text(text)

    def run(*words: str, code: int = 0) -> str:
        assert main([*words]) == code
        captured = capsys.readouterr()
        return " ".join((captured.out + captured.err).split())

    run("build")
    assert "1 column of spend@1.0.0 in features.lock" in run("lock", "checkout")
    assert "no service 'checkoot'; did you mean 'checkout'?" in run("lock", "checkoot", code=1)
    run("lock", "checkout", "--model", "fraud", "--out", "nowhere/x.lock", code=1)
    assert project.store.locks() == {}
    document = json.loads(run("lock", "checkout", "--model", "fraud", "--out", "x.lock", "--json"))
    assert (document["path"], document["model"]) == ("x.lock", "fraud")
    assert Lock.load("x.lock") == project.store.locks()["fraud"]
    assert json.loads(run("locks", "--json"))[0]["changes"] == []
    assert json.loads(run("plan", "--json"))["locks"] == []
    definitions.write_text(text.replace("7d", "14d"))
    words = "window 7d became 14d"
    assert f"the lock of model fraud (service checkout): spend__amount__sum__7d: it is gone: {words}" in run("plan")  # fmt: skip
    [broken] = json.loads(run("plan", "--json"))["locks"]
    assert (broken["model"], words in broken["changes"][0]["why"]) == ("fraud", True)
    run("build")
    assert words in run("locks", code=1)
    assert "no lock is registered for the model 'frod'" in run("locks", "--remove", "frod", code=1)
    run("locks", "--remove", "fraud")
    assert json.loads(run("locks", "--json")) == []


def test_a_store_without_locks_has_no_trace_of_them(project: Project) -> None:
    project.build(spend(project))
    assert project.build(spend(project, doubled)).version == "1.1.0"
    assert not (project.root / "store/_metadata/locks").exists()
    assert project.store.locks() == {}
    assert replace(project.store.books("spend"), hold=None) == project.store.books("spend")


def test_two_versions_of_a_feature_are_locked_by_the_names_that_answers_have(
    project: Project,
) -> None:
    project.build(spend(project))
    project.build(spend(project, doubled))
    both = Service("both", [("spend", "1.0.0"), ("spend", "1.1.0")])
    table = get_training_data(pl.DataFrame({"user_id": [1], "at": [at(1)]}), both, project.store)
    lock = both.lock(project.store)
    assert [column.name for column in lock.columns] == table.columns[2:]
