"""The store in a bucket: the shared contract over objects in memory, and what is its own."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mlforge import get_training_data, training_set
from mlforge.build.refresh import Options
from mlforge.build.rows import Layout
from mlforge.core.values import Version
from mlforge.errors import (
    DefinitionError,
    IntegrityError,
    StoreBusy,
    StoreError,
    VersionConflict,
    VersionNotFound,
)
from mlforge.maintenance.operations import verify
from mlforge.store import Books, ObjectStore, Pointer, Store
from mlforge.store.objects import removal
from mlforge.store.objects.objects import ConditionFailed, Entry
from mlforge.testing.store_contract import StoreContract
from mlforge.testing.store_values import FIRST, SECOND, THIRD, events, publish, version_of
from tests.support.objects import MemoryObjects, lost_answer
from tests.support.projects import Project, at, rows

URL = "s3://memory/store"


def opened(objects: MemoryObjects, cache: Path) -> ObjectStore:
    return ObjectStore(URL, cache, grace="1ms", objects=objects)


class TestObjectStore(StoreContract):
    """Each time that the store is opened again it is on another machine, whose cache is empty."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        self.objects, self.cache, self.machines = MemoryObjects(), tmp_path / "cache", 0
        return opened(self.objects, self.cache)

    def again(self, store: Store) -> Store:
        self.machines += 1
        return opened(MemoryObjects(self.objects.stored), self.cache / str(self.machines))

    def beside(self, store: Store) -> Store:
        assert isinstance(store, ObjectStore)
        return opened(MemoryObjects(self.objects.stored), store.cache.parent)

    def read_location(self, location: str) -> pl.DataFrame:
        return pl.read_parquet(self.objects.stored[location.removeprefix(f"{URL}/")][0])

    def damage(self, file: str, hash_: str) -> None:
        [key] = [key for key in self.objects.stored if f"/{hash_}." in key]
        content, *rest = self.objects.stored[key]
        self.objects.stored[key] = (content[: len(content) // 2], *rest)


class Killed(BaseException):
    """The end of a process in the midst of its work."""


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def store(objects: MemoryObjects, tmp_path: Path) -> ObjectStore:
    return opened(objects, tmp_path / "cache")


def elsewhere(store: ObjectStore, name: str = "elsewhere") -> ObjectStore:
    """The same store on a machine whose cache is empty."""
    objects = store._objects
    assert isinstance(objects, MemoryObjects)
    return opened(MemoryObjects(objects.stored), store.cache.parent.parent / name)


def rounds(requests: list[tuple[str, str, float, float]]) -> int:
    """How often one waits for answers, where requests that overlap in time are waited for together."""
    count, end = 0, 0.0
    for _, _, start, stop in sorted(requests, key=lambda request: request[2]):
        count += start > end
        end = max(end, stop)
    return count


# What it costs


@pytest.mark.parametrize("files", [3, 120])
def test_a_drop_costs_few_requests_in_few_rounds_and_none_that_grows_with_the_files(
    objects, store, files, tmp_path
):
    project = Project(tmp_path)
    project.store = store
    for number in range(files):
        project.drop(str(number), rows((number % 7, number / 10, 1.0)))
    definitions = project.definitions()
    definitions.build()
    objects.before = lambda deed, key: threading.Event().wait(0.01)
    ways = {"1.0.1": lambda: definitions.refresh("spend"), "1.0.2": definitions.build}
    for version, build in ways.items():
        project.drop(version, rows((1, 20.0, 2.0)))
        objects.requests.clear()
        build()
        requests = [*objects.requests]
        assert len(requests) <= 9, requests
        assert rounds(requests) <= 5, requests
        assert store.read_metadata("spend").version == Version.parse(version)
    definitions.refresh("spend")  # a file that was young when it was looked at has settled by now
    objects.requests.clear()
    assert definitions.refresh("spend").reason == "unchanged"
    assert len(objects.requests) <= 2, objects.requests


def fetched(store: ObjectStore) -> int:
    """How many bytes a machine has read."""
    objects = store._objects
    assert isinstance(objects, MemoryObjects)
    read = [key for deed, key, *_ in objects.requests if deed in ("read", "download")]
    return sum(len(objects.stored[key][0]) for key in read if key in objects.stored)


@pytest.fixture
def month(objects: MemoryObjects, store: ObjectStore, tmp_path: Path) -> Project:
    """A store of forty days' drops, a file each."""
    project = Project(tmp_path)
    project.store = store
    for day in range(40):
        project.drop(str(day), rows(*((n % 50, day + n / 500, float(n)) for n in range(500))))
    project.build()
    return project


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(("first", "last"), [(30, 35), (10, 12), (0, 40)])
def test_a_training_set_on_an_empty_cache_fetches_little_more_than_it_needs(
    month, objects, store, tmp_path, engine, first, last
):
    points = 2_000
    spine = pl.DataFrame(
        {
            "user_id": [n % 50 for n in range(points)],
            "at": [at(first + (last - first) * n / points) for n in range(points)],
        }
    )
    seen = [p for p in store.resolve("spend").partials if p.times is not None]
    start, end = (int(at(day).timestamp() * 1e6) for day in (first - 7, last))
    seen = [p for p in seen if p.times and p.times.start <= end and start <= p.times.end]
    needed = sum(len(objects.stored[f"spend/_partials/{p.hash}.parquet"][0]) for p in seen)
    for name in ("values", "set"):
        machine = elsewhere(store, name)
        if name == "values":
            got = get_training_data(spine, ["spend"], store=machine, engine=engine)
        else:
            got = training_set(spine, ["spend"], machine, tmp_path / "out", engine=engine).scan()
            got = got.collect()
        assert got.equals(get_training_data(spine, ["spend"], store=store, engine=engine))
        assert fetched(machine) <= 1.5 * needed


def test_a_drop_on_an_empty_cache_fetches_what_its_rows_depend_on(month, objects, store):
    machine = elsewhere(store)
    month.drop("new", rows((1, 39.5, 1.0)))
    assert month.on(machine).build().version == "1.0.1"
    downloads = [key for deed, key, *_ in machine._objects.requests if deed == "download"]
    partials = [key for key in downloads if "/_partials/" in key]
    assert len(partials) <= 8, (
        "files of the week that its rows see, and of the day that one ends in"
    )
    assert len(downloads) == len(partials) + 1, "and the part that they are written into"
    assert verify(elsewhere(store, "third"), ["spend"]) == []


# Answers that are lost, and processes that end


@pytest.mark.parametrize(
    ("deed", "key"),
    [
        ("create", "_latest.json"),
        ("create", "1.0.1.json"),
        ("replace", "_latest.json"),
        ("create", "store.json"),
    ],
)
def test_a_lost_answer_is_no_lost_race(objects, store, deed, key):
    objects.after = lost_answer(deed, key)
    try:
        publish(store, FIRST, 1)
    except StoreError:  # nothing was published then
        publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    assert store.versions("spend") == [FIRST, SECOND]
    assert elsewhere(store).pointer("spend") == Pointer(SECOND, 2)
    assert verify(store, ["spend"]) == []


def test_a_version_that_was_made_but_not_served_is_served_by_the_next_writer(objects, store):
    publish(store, FIRST, 1)
    objects.before = _killed_at("replace")
    with pytest.raises(Killed):
        publish(store, SECOND, 1, 2)
    other = elsewhere(store)
    assert other.pointer("spend") == Pointer(FIRST, 1)
    with other.lock("spend"):
        assert other.pointer("spend") == Pointer(SECOND, 2)
    assert other.read("spend").equals(events(1, 2))


def test_a_held_feature_keeps_its_version_whatever_was_made(objects, store):
    publish(store, FIRST, 1)
    with store.lock("spend"):
        store.write_books("spend", Books(hold="because"))
    objects.before = _killed_at("replace")
    with pytest.raises(Killed):
        publish(store, SECOND, 1, 2)
    other = elsewhere(store)
    with other.lock("spend"):
        assert other.pointer("spend") == Pointer(FIRST, 1)


@pytest.mark.parametrize(("lost", "won"), [(THIRD, SECOND), (SECOND, THIRD)])
def test_a_version_that_lost_the_race_goes_though_its_publisher_has_ended(
    objects, store, lost, won
):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with other.open("spend") as snapshot:
        objects.before = _killed_at("replace")
        with pytest.raises(Killed):
            publish(store, lost, 3)
        with other.transaction(snapshot) as tx:
            tx.commit(version_of(tx, won, events(2)))
    third = elsewhere(store, "third")
    with third.open("spend") as snapshot:
        assert snapshot.versions == (FIRST, won)
        assert snapshot.pointer == Pointer(won, 2)
    assert elsewhere(store, "fourth").versions("spend") == [FIRST, won]


def test_a_number_that_a_dead_publisher_left_is_taken_while_another_writer_still_looks_at_it(
    objects, store
):
    publish(store, FIRST, 1)
    second, third = elsewhere(store, "second"), elsewhere(store, "third")
    objects.before = _killed_at("replace")
    with pytest.raises(Killed):
        publish(store, SECOND, 3)
    third.serve("spend", FIRST)  # nobody can serve what was left any more
    slow = MemoryObjects(objects.stored)
    _raced(slow, "read", f"{SECOND}.json", lambda: publish(second, SECOND, 2))
    with opened(slow, store.cache.parent.parent / "slow").lock("spend"):
        pass
    fourth = elsewhere(store, "fourth")
    with fourth.open("spend") as snapshot:
        assert (snapshot.versions, snapshot.pointer) == ((FIRST, SECOND), Pointer(SECOND, 3))
    assert fourth.read("spend").equals(events(2))
    assert verify(fourth, ["spend"]) == []


def test_what_a_dead_publisher_left_is_never_there_for_readers_and_goes_with_the_next_sweep(
    objects, store
):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with other.open("spend") as snapshot:
        objects.before = _killed_at("replace")
        with pytest.raises(Killed):
            publish(store, SECOND, 3)
        with other.transaction(snapshot) as tx:
            tx.commit(version_of(tx, THIRD, events(2)))
    with pytest.raises(VersionNotFound):
        other.manifest("spend", SECOND)
    for patch in range(3, 40):  # longer than a document remembers versions one by one
        publish(other, Version(1, 0, patch), 2)
        assert SECOND not in elsewhere(store, "third").versions("spend")
    _swept(other)
    assert f"spend/_versions/{SECOND}.json" not in objects.stored
    assert len(elsewhere(store, "fourth").versions("spend")) == 39


def test_a_version_that_a_server_lists_late_is_known_by_the_document(objects, store, monkeypatch):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    late = MemoryObjects(objects.stored)
    listed = late.entries
    monkeypatch.setattr(late, "entries", lambda folder: [*listed(folder)][:1])
    machine = opened(late, store.cache.parent.parent / "late")
    with machine.open("spend") as snapshot:
        assert snapshot.versions == (FIRST, SECOND)
    assert machine.versions("spend") == [FIRST, SECOND]


def test_objects_of_a_version_that_a_server_lists_late_are_not_swept(objects, store, monkeypatch):
    for number in range(4):
        publish(store, Version(1, 0, number), number + 1)
    late = MemoryObjects(objects.stored)
    listed = late.entries

    def without_the_last_three(folder: str) -> list[Entry]:
        return [*listed(folder)][:1] if folder.endswith("_versions") else listed(folder)

    monkeypatch.setattr(late, "entries", without_the_last_three)
    machine = opened(late, store.cache.parent.parent / "late")
    _swept(machine)
    assert machine.versions("spend") == [Version(1, 0, number) for number in (0, 3)]
    assert verify(elsewhere(store), ["spend"]) == []
    assert len(elsewhere(store).versions("spend")) == 4


def test_a_version_that_was_served_stays_though_its_answer_was_lost_and_another_followed(
    objects, store
):
    publish(store, FIRST, 1)
    other = elsewhere(store)

    def follow() -> None:
        publish(other, THIRD, 1, 2, 3)
        raise ConditionFailed("the request was sent again, and its condition does not hold now")

    _raced(objects, "replace", "_latest.json", follow)
    assert publish(store, SECOND, 1, 2) == Pointer(SECOND, 2)
    assert elsewhere(store, "third").versions("spend") == [FIRST, SECOND, THIRD]
    assert store.pointer("spend") == Pointer(THIRD, 3)
    assert verify(elsewhere(store, "fourth"), ["spend"]) == []


def test_a_publisher_that_was_overtaken_leaves_the_version_that_took_its_number(objects, store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    operator, third = elsewhere(store), elsewhere(store, "third")

    def overtake() -> None:
        operator.serve("spend", FIRST)
        publish(third, THIRD, 4)  # what was not served is deleted before

    _raced(objects, "create", f"{THIRD}.json", overtake)
    with operator.lock("spend"), pytest.raises(VersionConflict):
        publish(store, THIRD, 3)
    for machine in (store, third, elsewhere(store, "fourth")):
        assert machine.pointer("spend") == Pointer(THIRD, 4)
        assert machine.read("spend").equals(events(4))


def test_nothing_is_published_of_a_feature_that_was_erased_and_made_anew_meanwhile(objects, store):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with store.open("spend") as snapshot:
        with other.lock("spend"):
            other.erase("spend")
        publish(other, FIRST, 5)  # the pointer is as it was
        with pytest.raises(VersionConflict), store.transaction(snapshot) as tx:
            tx.commit(version_of(tx, SECOND, events(1, 2)))
    third = elsewhere(store, "third")
    with third.lock("spend"):
        assert third.versions("spend") == [FIRST]
    assert third.read("spend").equals(events(5))


def test_what_a_killed_publisher_left_of_an_erased_feature_is_not_served_of_the_next(
    objects, store
):
    publish(store, FIRST, 1)
    objects.before = _killed_at("replace")
    with pytest.raises(Killed):
        publish(store, SECOND, 1, 2)
    key = "spend/_versions/1.0.1.json"
    late = objects.stored[key]
    other = elsewhere(store)
    with other.lock("spend"):
        other.erase("spend")
    publish(other, FIRST, 5)
    other._objects.stored[key] = late  # its request came behind the eraser's
    third = elsewhere(store, "third")
    with third.open("spend") as snapshot:
        assert (snapshot.versions, snapshot.pointer) == ((FIRST,), Pointer(FIRST, 1))


def test_a_version_that_another_machine_removes_is_not_served(objects, store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    other = elsewhere(store)
    with store.lock("spend"):
        other.remove("spend", FIRST)
        with pytest.raises(VersionNotFound):
            store.serve("spend", FIRST)
    assert store.pointer("spend") == Pointer(SECOND, 2)


def _spare_part(store: ObjectStore) -> None:
    """Publish two versions and remove the first, the part of which may be deleted then."""
    publish(store, FIRST, 1)
    publish(store, SECOND, 2)
    with store.lock("spend"):
        store.remove("spend", FIRST)


def _swept(store: ObjectStore) -> None:
    threading.Event().wait(0.005)  # the grace period
    with store.lock("spend"):
        store.remove_partials("spend", [])


def test_a_part_that_is_written_again_just_when_it_is_deleted_is_not_missed(objects, store):
    _spare_part(store)
    other = elsewhere(store)
    with other.open("spend") as snapshot:

        def again() -> None:
            with pytest.raises(VersionConflict), other.transaction(snapshot) as tx:
                tx.commit(version_of(tx, THIRD, events(1)))

        _raced(objects, "look", "parquet", again)
        _swept(store)
    assert other.versions("spend") == [SECOND]
    publish(other, THIRD, 1)
    third = elsewhere(store, "third")
    assert third.read("spend").equals(events(1))
    assert verify(third, ["spend"]) == []


def test_a_publisher_that_slept_while_its_parts_were_deleted_serves_nothing(objects, store):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with other.lock("spend"):

        def sleep() -> None:
            threading.Event().wait(0.005)
            other.remove_partials("spend", [])

        _raced(objects, "put", "parquet", sleep)
        with pytest.raises(VersionConflict):
            publish(store, SECOND, 1, 2)
    publish(store, SECOND, 1, 2)
    third = elsewhere(store, "third")
    assert (third.versions("spend"), verify(third, ["spend"])) == ([FIRST, SECOND], [])


def test_a_killed_publisher_whose_parts_were_deleted_is_not_helped(objects, store):
    _spare_part(store)
    other = elsewhere(store)
    with other.lock("spend"):
        objects.before = _killed_at("replace")
        with pytest.raises(Killed):
            publish(store, THIRD, 1, 2)
        threading.Event().wait(0.005)
        other.remove_partials("spend", [])
    third = elsewhere(store, "third")
    with third.lock("spend"):
        assert third.versions("spend") == [SECOND]
    publish(third, THIRD, 1, 2)
    assert verify(third, ["spend"]) == []


def test_a_sweep_that_was_killed_holds_nobody_up_for_long(objects, store, monkeypatch):
    _spare_part(store)
    is_killed = threading.Event()

    def killed(deed: str, key: str) -> None:
        if deed == "look" or is_killed.is_set():
            is_killed.set()
            raise Killed

    objects.before = killed
    with pytest.raises(Killed):
        _swept(store)
    other = elsewhere(store)
    monkeypatch.setattr(removal, "_WAIT_S", 0)
    with pytest.raises(StoreBusy, match="try again"):
        publish(other, THIRD, 1)
    monkeypatch.setattr(removal, "_ABANDONED_US", 0)
    publish(other, THIRD, 1)
    _swept(other)
    assert verify(elsewhere(store, "third"), ["spend"]) == []


def test_an_eraser_that_was_given_up_deletes_nothing_of_the_next_life(objects, store, monkeypatch):
    publish(store, FIRST, 1)
    other = elsewhere(store)

    def given_up() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(removal, "_ABANDONED_US", 0)
            publish(other, FIRST, 1)  # the very objects

    _raced(objects, "list", "spend", given_up)
    with store.lock("spend"), pytest.raises(StoreBusy, match="erased by another"):
        removal.erase(store._documents, objects, store._renames, "spend")
    third = elsewhere(store, "third")
    assert third.read("spend").equals(events(1))
    assert verify(third, ["spend"]) == []


def test_a_killed_eraser_leaves_a_name_that_begins_anew(objects, store, monkeypatch):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    objects.before = _killed_at("delete")
    with store.lock("spend"), pytest.raises(Killed):
        store.erase("spend")
    other = elsewhere(store)
    assert other.features() == []
    with pytest.raises(StoreBusy, match="erased by another"):
        publish(other, FIRST, 5)
    monkeypatch.setattr(removal, "_ABANDONED_US", 0)
    with other.open("spend") as snapshot:
        assert (snapshot.versions, snapshot.pointer) == ((), None)


def test_a_version_that_was_published_while_books_were_written_is_known_at_the_next_lock(store):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with store.lock("spend"):
        publish(other, SECOND, 1, 2)
        store.write_books("spend", Books(description="spend of users"))
    with store.open("spend") as snapshot:
        assert snapshot.versions == (FIRST, SECOND)


def test_only_one_of_two_machines_wins_and_the_other_is_told(store):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with store.open("spend") as mine, other.open("spend") as theirs:
        with store.transaction(mine) as tx:
            tx.commit(version_of(tx, SECOND, events(2)))
        for version, why in ((SECOND, r"1\.0\.1 exists"), (THIRD, "another publisher was faster")):
            with (
                other.transaction(theirs) as tx,
                pytest.raises(VersionConflict, match=why),
            ):
                tx.commit(version_of(tx, version, events(3)))
    assert other.versions("spend") == [FIRST, SECOND]
    assert elsewhere(store, "third").read("spend").equals(events(2))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_bucket_that_goes_away_at_any_request_of_a_drop_loses_nothing(
    objects, store, moment, tmp_path
):
    """A request fails, or is done and its answer is lost; and so do all that follow, until the bucket is back."""
    project = Project(tmp_path)
    project.store = store
    project.drop("first", rows((1, 0.0, 1.0)))
    definitions = project.definitions()
    definitions.build()
    for nth in range(1, 9):
        project.drop(str(nth), rows((nth, nth, 1.0)))
        requests = iter(range(1, 100))

        def fail(deed: str, key: str, nth: int = nth, requests: Iterator[int] = requests) -> None:
            if next(requests) >= nth:
                raise StoreError("the bucket is gone")

        setattr(objects, moment, fail)
        with suppress(StoreError):
            definitions.refresh("spend")
        setattr(objects, moment, lambda deed, key: None)
        definitions.refresh("spend")
        assert store.read("spend").height == nth + 1
        assert [version.patch for version in store.versions("spend")] == list(range(nth + 1))
        shutil.rmtree(store.cache)
    assert elsewhere(store).read("spend").equals(store.read("spend"))
    assert verify(store, ["spend"]) == []


@pytest.mark.parametrize("is_read_meanwhile", [False, True])
def test_books_that_another_machine_has_changed_are_not_overwritten(store, is_read_meanwhile):
    publish(store, FIRST, 1)
    other = elsewhere(store)
    with store.lock("spend"):
        mine = store.books("spend")
        with other.lock("spend"):
            other.write_books("spend", Books(pins=("1.0.0",)))
        if is_read_meanwhile:  # as by a page of the same server
            with ThreadPoolExecutor() as threads:
                assert threads.submit(store.books, "spend").result().pins == ("1.0.0",)
        with pytest.raises(VersionConflict, match="another machine has changed its books"):
            store.write_books("spend", replace(mine, hold="because"))
    with store.lock("spend"):
        store.write_books("spend", replace(store.books("spend"), hold="because"))
    assert other.books("spend") == Books(pins=("1.0.0",), hold="because")


# The cache


def test_the_cache_may_be_deleted_at_any_time(store, tmp_path):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    shutil.rmtree(store.cache)
    assert store.read("spend").equals(events(1, 2))
    assert store.read("spend", "1.0.0").equals(events(1))
    shutil.rmtree(store.cache)
    assert publish(store, THIRD, 1, 2, 3) == Pointer(THIRD, 3)
    assert [summary.version for summary in store.summaries("spend")] == [FIRST, SECOND, THIRD]


def test_a_bucket_that_was_emptied_is_another_store_for_all_machines(objects, store):
    publish(store, FIRST, 1)
    before = store.identity()
    objects.stored.clear()
    publish(store, FIRST, 2)
    other = elsewhere(store)
    assert before != store.identity() == other.identity() == other.establish()
    assert other.read("spend").equals(events(2))


def test_a_damaged_file_of_the_cache_is_fetched_again_and_a_damaged_object_is_named(objects, store):
    publish(store, FIRST, 1)
    [file] = store.files("spend", FIRST)
    assert store.files("spend", "1.0.0") == [file]
    assert store.urls("spend", "1.0.0") == store.urls("spend", FIRST)
    Path(file).write_bytes(b"damaged")
    assert verify(store, ["spend"]) == []
    assert store.read("spend").equals(events(1))
    key = next(key for key in objects.stored if "/_parts/" in key)
    objects.stored[key] = b"damaged", 1, 1
    [problem] = verify(store, ["spend"])
    assert problem.what.endswith("is not what was published: its bytes have changed")
    with pytest.raises(IntegrityError, match="its bytes have changed"):
        elsewhere(store).read("spend")


def test_events_that_are_missing_in_the_bucket_are_computed_from_the_sources(objects, tmp_path):
    project = Project(tmp_path / "project")
    project.store = opened(objects, tmp_path / "first")
    project.drop("a", rows((1, 0.0, 1.0), (2, 0.5, 2.0)))
    project.build()
    for key in [key for key in objects.stored if "_partials" in key]:
        del objects.stored[key]
    project.store = opened(objects, tmp_path / "second")  # on another machine
    project.drop("b", rows((1, 1.0, 3.0)))
    assert project.build().version == "1.0.1"
    assert project.store.read("spend").height == 3
    assert not verify(project.store, ["spend"], "1.0.1")


def test_parts_and_events_that_are_missing_are_made_anew_by_a_drop_that_meets_one(
    objects, tmp_path
):
    small = Options(layout=Layout(part_rows=8))
    project = Project(tmp_path / "project")
    project.store = opened(objects, tmp_path / "first")
    events, others = (
        [(user, float(day), 1.0) for day in days for user in range(4)]
        for days in (range(4), range(4, 8))
    )
    project.drop("a", rows(*events))
    project.drop("b", rows(*others))
    project.definitions().refresh("spend", options=small)
    first, *_, last = project.store.read_metadata("spend").parts
    for part in (first, last):
        del objects.stored[f"spend/_parts/{part.hash}.parquet"]
    for key in [key for key in objects.stored if "_partials" in key]:
        del objects.stored[key]
    project.store = opened(objects, tmp_path / "second")  # on another machine
    project.drop("b", rows(*others[:-1], (3, 7.0, 2.0)))
    project.definitions().refresh("spend", options=small)
    assert project.store.read_metadata("spend").parts[0].hash == first.hash
    assert [fault.what for fault in verify(project.store, ["spend"], "1.0.1")] == []
    assert project.store.read("spend").height == 32


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_a_full_build_mends_a_part_in_the_bucket_although_no_row_has_changed(
    objects, tmp_path, fault
):
    project = Project(tmp_path / "project")
    project.store = opened(objects, tmp_path / "first")
    project.drop("a", rows((1, 0.0, 1.0), (2, 1.0, 2.0)))
    assert project.build().version == "1.0.0"
    before = project.store.read("spend")
    [part] = project.store.read_metadata("spend").parts
    key = f"spend/_parts/{part.hash}.parquet"
    content, *rest = objects.stored[key]
    if fault == "missing":
        del objects.stored[key]
    else:
        objects.stored[key] = content[:-9] + b"x" + content[-8:], *rest
    project.store = opened(objects, tmp_path / "second")  # on another machine
    result = project.definitions().build(full=True)["spend"]
    assert (result.version, result.reason) == ("1.0.1", "table_restored")
    assert verify(project.store, ["spend"]) == []
    project.store = opened(objects, tmp_path / "third")
    assert project.store.read("spend").equals(before)


def test_what_no_version_names_goes_once_it_is_old_enough(objects, tmp_path):
    young = ObjectStore(URL, tmp_path / "a", objects=objects)
    for version, users in ((FIRST, (1,)), (SECOND, (2,)), (THIRD, (3,))):
        publish(young, version, *users)
    parts = [key for key in objects.stored if "/_parts/" in key]
    for store in (young, opened(objects, tmp_path / "b")):
        with store.lock("spend"):
            for version in store.versions("spend")[:-1]:
                store.remove("spend", version)
            store.remove_partials("spend", [])
        assert store.versions("spend") == [THIRD]
        left = [key for key in objects.stored if "/_parts/" in key]
        assert left == (parts if store is young else parts[-1:])
    assert verify(store, ["spend"]) == []
    assert young.read("spend").equals(events(3))


def test_an_address_is_checked(tmp_path):
    for wrong in ("bucket/store", "ftp://bucket/store", "s3://", "s3:///store", "s3://b/a?x=1", 7):
        with pytest.raises(DefinitionError, match="ObjectStore: url must be an address such as"):
            ObjectStore(wrong, tmp_path)
    assert repr(ObjectStore("gs://b/a/", tmp_path)) == "ObjectStore('gs://b/a')"


def test_a_cache_that_is_too_large_loses_what_was_not_used_for_longest(objects, tmp_path):
    store = ObjectStore(URL, tmp_path, cache_bytes=1, objects=objects)
    for version, users in ((FIRST, (1,)), (SECOND, (2,))):
        publish(store, version, *users)
    files = [Path(file) for version in (FIRST, SECOND) for file in store.files("spend", version)]
    os.utime(files[0], (0, 0))
    store._trimmer.trim()
    assert [file.exists() for file in files] == [False, True]  # the other is young
    assert store.read("spend", "1.0.0").equals(events(1))
    assert files[0].exists()


def test_a_cache_loses_what_a_process_fetched_in_part_that_was_killed(
    objects, tmp_path, monkeypatch
):
    publish(opened(objects, tmp_path / "writer"), FIRST, 1)
    reader = ObjectStore(URL, tmp_path / "reader", cache_bytes=1, objects=objects)
    path = Path(reader.files("spend", FIRST)[0])
    path.unlink()
    objects.after = lambda deed, key: _perhaps(random.Random(7), 1, Killed(), deed == "download")
    with monkeypatch.context() as ended:
        ended.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(Killed):
            reader.files("spend", FIRST)
    objects.after = lambda deed, key: None
    [left] = path.parent.iterdir()
    os.utime(left, (0, 0))

    reader._trimmer.trim()

    assert list(path.parent.iterdir()) == []
    assert reader.read("spend", "1.0.0").equals(events(1))


# Races


def test_publishers_that_race_make_versions_that_follow_each_other(objects, tmp_path):
    """Six machines publish at once; a tenth of them ends between manifest and pointer, and some answers are lost."""
    chance = random.Random(7)
    opened(objects, tmp_path / "first").establish()

    def machine(number: int) -> None:
        own = MemoryObjects(objects.stored)
        own.before = lambda deed, key: _perhaps(chance, 0.1, Killed(), deed == "replace")
        own.after = lambda deed, key: _perhaps(
            chance, 0.15, StoreError("no answer"), deed in ("create", "replace")
        )
        done = attempt = 0
        while done < 4:
            attempt += 1
            store = opened(own, tmp_path / f"{number}-{attempt}")
            try:
                with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
                    parent = snapshot.pointer.version if snapshot.pointer else None
                    patch = snapshot.versions[-1].patch + 1 if snapshot.versions else 0
                    tx.commit(version_of(tx, Version(1, 0, patch), events(number), parent=parent))
                    done += 1
            except (Killed, StoreError):
                continue

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    last = opened(objects, tmp_path / "last")
    with last.lock("spend"):
        versions = last.versions("spend")
    assert [version.patch for version in versions] == list(range(len(versions)))
    assert len(versions) >= 24
    parents = [last.manifest("spend", version).parent for version in versions]
    assert parents == [None, *versions[:-1]]
    assert verify(last, ["spend"]) == []


def _killed_at(deed: str) -> Callable[[str, str], None]:
    def before(asked: str, key: str) -> None:
        if asked == deed:
            raise Killed

    return before


def _perhaps(chance: random.Random, share: float, error: BaseException, applies: bool) -> None:
    if applies and chance.random() < share:
        raise error


def _raced(objects: MemoryObjects, deed: str, key: str, meanwhile: Callable[[], object]) -> None:
    """Have something happen, once, between a request of that kind and its answer."""
    left = [1]

    def happen(done: str, of: str) -> None:
        if left and done == deed and of.endswith(key):
            left.clear()
            meanwhile()

    objects.after = happen
