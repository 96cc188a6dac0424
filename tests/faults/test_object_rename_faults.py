"""A rename in a bucket: killed at any request, and amid the work of others, on machines that have caches."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlforge.core import failpoints
from mlforge.core.values import Version
from mlforge.errors import FeatureNotFound, MlforgeError, StoreError, VersionConflict
from mlforge.maintenance.operations import verify
from mlforge.store import ObjectStore
from mlforge.store.objects import removal
from mlforge.testing.store_values import publish
from tests.support.objects import MemoryObjects


class Killed(BaseException):
    """The end of a process in the midst of its work."""


@dataclass
class World:
    """A bucket, and machines with caches of their own."""

    stored: dict[str, tuple[bytes, int, int]]
    root: Path
    machines: int = 0

    def machine(self, name: str | None = None) -> ObjectStore:
        """A machine, by default a new one."""
        self.machines += 1
        cache = self.root / (name or str(self.machines))
        return ObjectStore("s3://memory/store", cache, objects=MemoryObjects(self.stored))

    def copied(self) -> World:
        """The bucket as it is now, and machines of its own."""
        self.machines += 1
        return World(dict(self.stored), self.root / f"copy{self.machines}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A feature of two versions, and another."""
    world = World({}, tmp_path)
    make(world.machine("first"), "spend", 0, 1)
    make(world.machine("first"), "other", 0)
    return world


def make(store: ObjectStore, name: str, *numbers: int) -> None:
    """Publish versions of a feature, each of other rows."""
    for number in numbers:
        publish(store, Version(1, 0, number), *range(number + 1), name=name)


def objects_of(store: ObjectStore) -> MemoryObjects:
    assert isinstance(store._objects, MemoryObjects)
    return store._objects


def at_request(store: ObjectStore, number: int, when: str, do: Callable[[], None]) -> list[int]:
    """Have something happen before or after one of a store's requests; the list is [0] once it has."""
    objects, left = objects_of(store), [number]

    def count(deed: str, key: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            do()

    setattr(objects, when, count)
    return left


def die() -> None:
    raise Killed


def judged(world: World, names: Sequence[str], versions: Sequence[str]) -> str:
    """The feature has one of the names, whole, and whoever asks for another is told; returns the name."""
    store = world.machine()
    [name] = set(names) & {*store.features()}
    assert store.renames().now("spend") == name
    assert store.list_versions(name) == [*versions]
    assert verify(store, [name]) == []
    for other in {*names} - {name}:
        assert store.versions(other) == []
        with pytest.raises(FeatureNotFound):
            store.read(other)
    return name


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rename_killed_at_any_request_leaves_a_whole_feature_under_one_name(
    world: World, when: str
) -> None:
    expected, ends = world.machine().read("spend"), set[str]()
    for number in range(1, 100):
        now = world.copied()
        dying = now.machine("first")
        at_request(dying, number, when, die)
        try:
            dying.rename("spend", "outlay")
        except Killed:
            pass
        else:
            assert number > 8
            assert ends == {"spend", "outlay"}
            return
        name = judged(now, ["spend", "outlay"], ["1.0.0", "1.0.1"])
        ends.add(name)
        went_on = now.copied()
        # A writer goes on, or another feature takes the name that was not given.
        if name == "spend":
            make(went_on.machine("second"), "spend", 2)
            taken = now.copied()
            make(taken.machine("second"), "outlay", 0)
            assert taken.machine().features() == ["other", "outlay", "spend"]
            with pytest.raises(StoreError, match="outlay is taken"):
                taken.machine("first").rename("spend", "outlay")
            taken.machine("first").rename("spend", "sums")
            assert taken.machine().features() == ["other", "outlay", "sums"]
        now.machine("second").rename("spend", "outlay")
        assert judged(now, ["spend", "outlay"], ["1.0.0", "1.0.1"]) == "outlay"
        assert now.machine().read("outlay").equals(expected)
        went_on.machine("second").rename("spend", "outlay")
        make(went_on.machine("first"), "outlay", 3)
        for each in (now, went_on):
            assert [rename.after for rename in each.machine().renames().done] == ["outlay"]
            assert b"begun" not in each.stored["_metadata/renamed.json"][0]
    pytest.fail("it goes on dying")


RENAMING = ("rename.made_room", "rename.noted", "rename.moved", "rename.settled")
ERASING = ("erase.unserved", "erase.hidden", "erase.unnamed")


def killed_at(place: str, work: Callable[[], None]) -> None:
    failpoints.arm(place, die)
    try:
        with pytest.raises(Killed):
            work()
    finally:
        failpoints.disarm()


def all_names_are_free(world: World) -> None:
    """Nothing is left of a feature but documents that say so, and both its names can be had again."""
    store = world.machine()
    assert (store.features(), store.renames().done) == (["other"], ())
    left = [key for key in world.stored if key.startswith(("spend/", "outlay/"))]
    assert {key.partition("/")[2] for key in left} == {"_latest.json"}
    make(world.machine(), "outlay", 0)
    make(world.machine(), "spend", 0)
    assert verify(store, ["outlay", "spend"]) == []
    _erase(store, "outlay")
    world.machine("first").rename("spend", "outlay")
    assert store.features() == ["other", "outlay"]


@pytest.mark.parametrize("erasing", ERASING)
@pytest.mark.parametrize("renaming", RENAMING)
def test_a_rename_and_an_erasure_killed_behind_it_leave_no_name_refused(
    world: World, renaming: str, erasing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_ABANDONED_US", -1)
    store = world.machine("first")
    killed_at(renaming, lambda: store.rename("spend", "outlay"))
    [name] = {*world.machine().features()} - {"other"}
    killed_at(erasing, lambda: _erase(world.machine("second"), name))
    begun = world.copied()
    _erase(world.machine(), name)
    all_names_are_free(world)
    if erasing == "erase.unnamed":  # whoever comes with the other name ends it as well
        make(begun.machine(), "outlay", 0)
        make(begun.machine(), "spend", 0)
        assert begun.machine().features() == ["other", "outlay", "spend"]


@pytest.mark.parametrize("erasing", ERASING)
@pytest.mark.parametrize("renaming", RENAMING)
def test_an_erasure_and_a_rename_killed_behind_it_leave_no_name_refused(
    world: World, renaming: str, erasing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_ABANDONED_US", -1)
    killed_at(erasing, lambda: _erase(world.machine("first"), "spend"))
    assert world.machine().features() == ["other"]
    killed_at(renaming, lambda: world.machine().rename("other", "spend"))
    store = world.machine()
    store.rename("other", "spend")
    assert (store.features(), verify(store, ["spend"])) == (["spend"], [])
    make(store, "outlay", 0)
    assert [rename.after for rename in store.renames().done] == ["spend"]


def count_requests(world: World, work: Callable[[ObjectStore], None]) -> int:
    """How many requests some work on a copy of the bucket makes."""
    store = world.copied().machine("first")
    work(store)
    return len(objects_of(store).requests)


def test_a_publisher_elsewhere_is_amid_a_rename_and_no_version_is_lost(world: World) -> None:
    ends = set[str]()
    for number in range(1, 1 + count_requests(world, lambda store: make(store, "spend", 2))):
        for when in ("before", "after"):
            now = world.copied()
            publisher, renamer = now.machine("first"), now.machine("second")
            left = at_request(
                publisher, number, when, lambda by=renamer: by.rename("spend", "outlay")
            )
            refused = None
            try:
                make(publisher, "spend", 2)
            except (FeatureNotFound, VersionConflict) as error:
                refused = str(error)
            if left[0] > 0:  # it had an answer fewer than requests
                continue
            assert refused is None or "renamed" in refused
            ends.add("refused" if refused else "published")
            with pytest.raises(FeatureNotFound, match="spend was renamed to outlay"):
                make(publisher, "spend", 3)
            third = now.machine("third")
            assert refused or third.versions("outlay")[-1] == Version(1, 0, 2)
            with third.lock("outlay"):
                pass  # whoever comes next serves what the publisher has left
            make(third, "outlay", 3)
            assert judged(now, ["spend", "outlay"], third.list_versions("outlay")) == "outlay"
    assert ends == {"published", "refused"}


def test_a_rename_is_amid_a_publishers_work_elsewhere_and_no_version_is_lost(world: World) -> None:
    ends = set[str]()
    for number in range(
        1, 1 + count_requests(world, lambda store: store.rename("spend", "outlay"))
    ):
        for when in ("before", "after"):
            now = world.copied()
            renamer, publisher = now.machine("first"), now.machine("second")
            made = list[str]()

            def publish_one(by: ObjectStore = publisher, made: list[str] = made) -> None:
                with suppress(FeatureNotFound):
                    make(by, "spend", 2)
                    made.append("1.0.2")

            at_request(renamer, number, when, publish_one)
            renamer.rename("spend", "outlay")
            ends.add("published" if made else "refused")
            assert judged(now, ["spend", "outlay"], ["1.0.0", "1.0.1", *made]) == "outlay"
    assert ends == {"published", "refused"}


RIVALS: dict[str, Callable[[ObjectStore], None]] = {
    "a first version of the new name": lambda store: make(store, "outlay", 0),
    "another feature gets the new name": lambda store: store.rename("other", "outlay"),
    "the feature gets another name": lambda store: store.rename("spend", "sums"),
    "the feature gets the same name": lambda store: store.rename("spend", "outlay"),
    "the feature is erased": lambda store: _erase(store, "spend"),
}


def _erase(store: ObjectStore, name: str) -> None:
    with store.lock(name):
        store.erase(name)


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rename_and_a_rival_elsewhere_leave_whole_features_of_one_name_each(
    world: World, rival: str, is_late: bool, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_ABANDONED_US", -1)
    works = [RIVALS[rival], lambda store: store.rename("spend", "outlay")]
    inner, outer = works if is_late else works[::-1]
    ends = set[tuple[str, ...]]()
    for number in range(1, 1 + count_requests(world, outer)):
        now = world.copied()
        store, other = now.machine("first"), now.machine("second")
        failed = set[str]()

        def try_inner(other: ObjectStore = other, failed: set[str] = failed) -> None:
            try:
                inner(other)
            except MlforgeError:
                failed.add("inner")

        at_request(store, number, when, try_inner)
        try:
            outer(store)
        except MlforgeError:
            failed.add("outer")
        assert len(failed) < 2
        third = now.machine("third")
        features = third.features()
        assert verify(third, features) == []
        for name in features:
            assert third.list_versions(name)[-1] in ("1.0.0", "1.0.1")
            assert third.renames().now(name) == name
        # Whoever comes next can do everything again.
        for name in features:
            make(third, name, 5)
        ends.add(tuple(features))
        if rival == "the feature is erased":
            for name in {*features} - {"other"}:
                _erase(third, name)
            assert third.renames().done == ()
            make(third, "spend", 0)
            make(third, "outlay", 0)
    allowed = {
        "a first version of the new name": {("other", "outlay"), ("other", "outlay", "spend")},
        "another feature gets the new name": {("other", "outlay"), ("outlay", "spend")},
        "the feature gets another name": {("other", "outlay"), ("other", "sums")},
        "the feature gets the same name": {("other", "outlay")},
        "the feature is erased": {("other",), ("other", "outlay")},
    }[rival]
    assert ends <= allowed


class Unlucky:
    """A process that publishes or renames over and over; answers get lost on the way to it, and it is killed now and then."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random, self.done = world, random.Random(seed), 0
        self.begin()

    def begin(self) -> None:
        """Start a process of a machine with an empty cache."""
        self.store = self.world.machine()
        objects_of(self.store).before = self.perhaps_die
        objects_of(self.store).after = self.perhaps_lose

    def perhaps_die(self, deed: str, key: str) -> None:
        if self.random.random() < 0.01:
            raise Killed

    def perhaps_lose(self, deed: str, key: str) -> None:
        self.perhaps_die(deed, key)
        if deed in ("create", "replace", "put") and self.random.random() < 0.15:
            raise StoreError("the connection was reset")

    def publish(self) -> None:
        """Publish the next version, under whichever name there is."""
        name = self.random.choice(["spend", "outlay"])
        versions = self.store.versions(name)
        if versions:
            make(self.store, name, versions[-1].patch + 1)

    def rename(self) -> None:
        """Give the feature another name."""
        before, after = self.random.sample(["spend", "outlay", "sums"], 2)
        self.store.rename(before, after)

    def work(self, step: Callable[[], None], times: int) -> None:
        for _ in range(times):
            try:
                step()
                self.done += 1
            except MlforgeError:
                pass
            except Killed:
                self.begin()


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))]
)
def test_publishers_and_renamers_that_lose_answers_and_are_killed_leave_one_whole_feature(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = [Unlucky(world, seed * 100 + number) for number in range(6)]
    with ThreadPoolExecutor() as threads:
        ends = [threads.submit(each.work, each.publish, 25) for each in processes[:4]]
        ends += [threads.submit(each.work, each.rename, 12) for each in processes[4:]]
        for end in ends:
            end.result()
    assert sum(each.done for each in processes[:4]) > 0
    monkeypatch.setattr(removal, "_ABANDONED_US", -1)
    store = world.machine()
    [name] = {*store.features()} - {"other"}
    with store.lock(name):
        pass  # whoever comes next serves what a publisher has left
    versions = store.versions(name)
    assert versions == [Version(1, 0, number) for number in range(len(versions))]
    assert [store.read(name, str(v)).height for v in versions] == [v.patch + 1 for v in versions]
    assert verify(store, [name]) == []
    assert store.renames().now("spend") == name
    other = next(each for each in ("spend", "outlay") if each != name)
    store.rename(name, other)
    make(store, other, len(versions))
    assert world.machine().features() == sorted(["other", other])
