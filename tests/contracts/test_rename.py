"""A feature gets another name: all that was made of it, and of it alone, goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import (
    Definitions,
    Feature,
    Service,
    feature,
    get_online_features,
    get_training_data,
    training_set,
)
from mlforge.cli.main import main
from mlforge.core import failpoints
from mlforge.core.forgotten import Forgotten
from mlforge.core.lock import Lock
from mlforge.errors import BuildError, FeatureNotFound, LockMismatch, StoreError, VersionInUse
from mlforge.maintenance.operations import pin, prune, rollback, verify
from mlforge.maintenance.retention import Retention
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.registry.catalogue import Registry
from mlforge.registry.forgetting import entities_of, forget
from mlforge.registry.locks import lock_changes
from mlforge.registry.renaming import rename
from mlforge.serve.values.kept_services import AGAIN_S, KeptServices
from mlforge.store import LocalStore, ObjectStore, Store
from mlforge.store.local import lock
from mlforge.training_sets.training_set import TrainingSet
from tests.support.object_servers import BUCKET, moto
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, at, rows

PEAKS = [Rolling("7d", {"amount__sum__7d": ["max"]})]


class Shop(Project):
    """A feature, another of it, and a service of both; `spend` by any name. In a folder, or in a bucket with machines that have caches."""

    def __init__(self, root: Path, place: str) -> None:
        super().__init__(root)
        self.objects = MemoryObjects() if place == "bucket" else None
        self.store = self.elsewhere("first")

    def elsewhere(self, machine: str) -> Store:
        """The store as another process has it, in a bucket one of another machine."""
        if self.objects is None:
            return LocalStore(self.root / "store")
        client = MemoryObjects(self.objects.stored)
        return ObjectStore("s3://memory/store", self.root / machine, objects=client)

    def named(self, name: str, online: RedisStore | None = None) -> Definitions:
        spend = self.define(name=name)
        peaks = feature(keys=["user_id"], source=spend, timestamp="at", metrics=PEAKS, name="peaks")
        both = [spend, peaks(lambda df: df)]
        return self.definitions(*both, services=[self.service(spend)], online_store=online)

    def service(self, spend: Feature) -> Service:
        use = spend if spend.name == "spend" else spend.as_("spend")
        return Service("checkout", [use, "peaks"], derive={"double": "spend__amount__sum__7d * 2"})


@pytest.fixture(params=["folder", "bucket"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, request.param)
    shop.drop("a", rows((1, 0.5, 1.0), (2, 1.5, 4.0)))
    shop.named("spend").build()
    return shop


def spine(*days: float) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [1 for _ in days], "at": [at(day) for day in days]})


def test_all_that_was_made_of_a_feature_goes_on_under_its_new_name(
    shop: Shop, tmp_path: Path
) -> None:
    store, before = shop.store, shop.named("spend")
    service = before.services["checkout"]
    lock = service.lock(store)
    store.register_lock("fraud", lock)
    pin(store, "spend", "1.0.0")
    made = training_set(spine(1, 2), service, store, out=tmp_path / "set")
    answer = get_training_data(spine(1, 2), service, store=store)
    shop.drop("b", rows((1, 1.6, 8.0)))
    before.build()
    differ = made.blast_radius(store)

    renamed = rename(before, "spend", "outlay")
    assert renamed.versions == ("1.0.0", "1.0.1")
    assert renamed.services == ("checkout",)
    store = shop.elsewhere("second")
    shop = shop.on(store)
    now = shop.named("outlay")
    assert {name: result.changed for name, result in now.build().items()} == {
        "outlay": False,
        "peaks": False,
    }
    assert list(map(str, store.service_versions("checkout"))) == ["1.0.0"]
    assert store.features() == sorted(store.index()) == ["outlay", "peaks"]
    assert verify(store, store.features()) == []
    assert [str(each.version) for each in store.summaries("outlay")] == ["1.0.0", "1.0.1"]
    assert store.made_from("outlay") == {*store.versions("outlay")}
    assert prune(store, ["outlay"], Retention(newest=1))[0].versions == ()  # pinned, and read
    assert store.latest("peaks").source == "feature:outlay@1.0.1"  # type: ignore[union-attr]

    again = TrainingSet.open(tmp_path / "set").blast_radius(store)
    assert again.rows.equals(differ.rows)
    assert differ.rows["row"].to_list() == [1]
    held = store.locks()["fraud"]
    assert held.features == ("outlay", "peaks")
    assert lock_changes(store, held) == []
    for read in (now.services["checkout"], Service.at(store, "checkout@1")):
        for each in (None, lock, held):
            if read.kept is None or each is None:
                table = get_training_data(spine(1, 2), read, store=store, lock=each)
                assert table.columns == answer.columns
                assert table[0].equals(answer[0])
    entry = Registry.of(now)
    told = {str(node) for edge in entry.graph.edges for node in edge}
    assert {"feature:outlay", "model:fraud", f"set:{tmp_path / 'set'}"} <= told
    assert "feature:spend" not in told
    release = made.release(store)
    assert set(release) == {"outlay", "peaks"}
    with pytest.raises(LockMismatch, match="it is gone"):  # without as_, columns have other names
        get_training_data(spine(1), Service("s", ["outlay", "peaks"]), store=store, lock=lock)


def test_the_old_name_is_told_of_the_new_one_and_nothing_is_made_under_it(shop: Shop) -> None:
    store = shop.store
    rename(shop.named("spend"), "spend", "outlay")
    told = "spend was renamed to outlay at"
    reads: list[Callable[[], Any]] = [
        lambda: store.read("spend"),
        lambda: store.list_versions("spend"),
        lambda: store.resolve("spend", "1.0.0"),
        lambda: pin(store, "spend"),
        lambda: get_training_data(spine(1), ["spend"], store=store),
    ]
    for read in reads:
        with pytest.raises(FeatureNotFound, match=f"{told}.*ask for outlay"):
            read()
    with pytest.raises(BuildError, match=f"{told}.*mlforge rename outlay spend"):
        shop.named("spend").build()
    with (
        shop.store.draft() as draft,
        pytest.raises(FeatureNotFound, match=told),
        draft.lock("spend"),
    ):
        pass
    assert store.features() == ["outlay", "peaks"]
    assert shop.objects or not (shop.root / "store" / "spend").exists()
    rename(shop.named("outlay"), "outlay", "total")
    # Again: nothing to do.
    assert rename(shop.named("total"), "spend", "total").versions == ("1.0.0",)
    with pytest.raises(FeatureNotFound, match="spend was renamed to total"):
        store.read("spend")
    rename(shop.named("total"), "total", "spend")
    assert not any(result.changed for result in shop.named("spend").build().values())
    assert store.renames().formerly("spend") == ("total", "outlay")


def test_names_that_cannot_be_given_are_refused_in_words(shop: Shop) -> None:
    other = feature(keys=["user_id"], source="events", timestamp="at", name="other")(lambda df: df)
    shop.definitions(other, partial=True).build()
    definitions, store = shop.named("spend"), shop.store
    refused: list[tuple[str, str, str]] = [
        ("spend", "other", "other is taken: a feature of that name has versions"),
        ("spend", "spend", "spend has that name already"),
        ("spend", "../x", "name"),
        ("spnd", "outlay", "no feature 'spnd'.*did you mean.*spend"),
    ]
    for before, after, words in refused:
        with pytest.raises(Exception, match=words) as caught:
            rename(definitions, before, after)
        assert caught.type.__module__ == "mlforge.errors"
    shop.drop("c", rows((2, 1.7, 1.0)))
    definitions.build(["spend"])
    for version in store.versions("spend"):
        with store.lease("spend", version), pytest.raises(VersionInUse):
            rename(definitions, "spend", "outlay")
    begun = Forgotten("5a17").begun(["spend"])
    store.write_forgotten(begun)
    with pytest.raises(StoreError, match="run 'mlforge build', or the same 'mlforge forget' again"):
        rename(definitions, "spend", "outlay")
    store.end_forgetting(["spend"], begun)
    rename(definitions, "spend", "outlay")
    with pytest.raises(StoreError, match="spend is taken: spend was renamed to outlay"):
        rename(definitions, "other", "spend")
    with pytest.raises(StoreError, match="spend is taken"):
        store.rename("other", "spend")
    shop.drop("b", rows((1, 1.6, 8.0)))
    shop.named("outlay").build()
    rollback(store, "outlay")
    with pytest.raises(StoreError, match=r"outlay is held, so it keeps its name.*rolled back"):
        rename(shop.named("outlay"), "outlay", "spend")
    with store.lease("other", store.versions("other")[0]), pytest.raises(VersionInUse):
        rename(definitions, "other", "another")
    assert store.features() == ["other", "outlay", "peaks"]
    with store.lock("outlay"):
        store.erase("outlay")
    assert not store.renames()  # the old name is free again
    rename(definitions, "other", "spend")


def test_a_folder_without_a_version_makes_room_and_its_waiters_find_the_feature(
    shop: Shop,
) -> None:
    store = shop.elsewhere("first")
    with store.lock("outlay"):
        pass  # as a build that failed leaves it
    rename(shop.named("spend"), "spend", "outlay")
    assert [
        path for path in (shop.root / "store").glob("*") if path.name.startswith(".staged")
    ] == []
    shop.drop("b", rows((1, 1.6, 8.0)))
    built = shop.on(store).named("outlay").build()
    assert {name: result.version for name, result in built.items()} == {
        "outlay": "1.0.1",
        "peaks": "1.0.1",
    }


def test_whoever_waits_for_the_lock_of_a_feature_that_is_renamed_is_told(shop: Shop) -> None:
    waiting = shop.elsewhere("first")

    def wait() -> None:
        with waiting.lock("spend"):
            pytest.fail("nobody holds the lock of a name that is gone")

    with ThreadPoolExecutor() as pool:
        waiters: list[Any] = []

        def begin() -> None:
            held = len(lock._held)
            waiters.append(pool.submit(wait))
            deadline = time.monotonic() + 60
            while len(lock._held) == held and time.monotonic() < deadline:
                time.sleep(0.001)

        failpoints.arm("rename.noted", begin)
        try:
            shop.store.rename("spend", "outlay")
        finally:
            failpoints.disarm()
        with pytest.raises(FeatureNotFound, match="spend was renamed to outlay"):
            waiters[0].result(60)
    assert shop.objects or not (shop.root / "store" / "spend").exists()
    assert verify(waiting, ["outlay"]) == []


def test_the_lock_of_a_feature_that_is_renamed_just_before_it_is_taken_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, place = shop.elsewhere("second"), type(shop.store)
    step = "_locked" if place is LocalStore else "_exclusive"
    take = getattr(place, step)

    def take_late(store: Store, name: str, *wait: bool) -> Any:
        if store is late:
            shop.store.rename("spend", "outlay")
        return take(store, name, *wait)

    monkeypatch.setattr(place, step, take_late)
    with pytest.raises(FeatureNotFound, match="spend was renamed to outlay"), late.lock("spend"):
        pytest.fail("a version of the former name would be made")
    monkeypatch.undo()
    assert late.features() == shop.store.features()
    assert "outlay" in late.features()
    assert "spend" not in late.features()
    shop.store.rename("outlay", "spend")  # the folder that was left has no version, and makes room
    assert verify(late, ["spend"]) == []


def test_a_lock_whose_folder_was_moved_away_ends_no_other_that_took_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, others = tmp_path / "spend", list[int]()
    folder.mkdir()
    take, close = lock._take, lock._close

    def take_as_the_folder_moves(descriptor: int, path: Path, timeout_s: float) -> None:
        take(descriptor, path, timeout_s)
        folder.rename(tmp_path / "outlay")

    def close_as_another_opens(descriptor: int) -> None:
        close(descriptor)
        if not others:
            others.append(lock._opened(tmp_path / "other"))
            assert others == [descriptor]  # the system gives the least number that is free

    monkeypatch.setattr(lock, "_take", take_as_the_folder_moves)
    monkeypatch.setattr(lock, "_close", close_as_another_opens)
    with pytest.raises(StoreError), lock.exclusive(folder / ".refreshing"):
        pytest.fail("the folder is gone")
    assert lock._is_ours(others[0])
    close(others[0])


def test_rows_online_are_served_under_both_names_and_locks_hold_by_the_books_alone(
    shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    online = RedisStore.from_url(redis_url, prefix=tmp_path.name)
    before = shop.named("spend", online)
    before.build(online=True)
    service, entities = before.services["checkout"], [{"user_id": 1}, {"user_id": 3}]
    lock = Lock.from_json(service.lock(shop.store).to_json())
    answers = get_online_features(service, entities, store=online, lock=lock)
    passed = 0.0
    kept = KeptServices(before, clock=lambda: passed)
    assert asyncio.run(kept.named("checkout@1")).feature_names == ("spend", "peaks")
    assert rename(before, "spend", "outlay").rows == 2
    passed = AGAIN_S
    assert asyncio.run(kept.named("checkout@1")).feature_names == ("outlay", "peaks")
    now = shop.named("outlay", online)
    for read in (now.services["checkout"], service):
        assert get_online_features(read, entities, store=online, lock=lock) == answers
    assert online.books("outlay").formerly == ("spend",)  # type: ignore[union-attr]
    outcome = forget(now, entities_of(shop.store, ["user_id=999"]))
    assert not outcome.failures
    assert "spend was renamed to outlay" in outcome.left[0]
    assert (online.books("spend"), online.rows_by_feature(["spend"])) == (None, {"spend": 0})
    rename(now, "outlay", "spend")
    shop.drop("b", rows((1, 1.6, 8.0)))
    before.build(online=True)
    assert online.books("spend").formerly == ("outlay",)  # type: ignore[union-attr]
    with shop.store.lock("spend"):
        shop.store.erase("spend")
    before.build(online=True)
    assert online.books("spend").formerly == ()  # type: ignore[union-attr]
    online.close()


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def test_the_command_says_what_is_left_to_do(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Project(tmp_path).drop("a", rows((1, 0.5, 1.0), (2, 1.5, 4.0)))
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "MLFORGE_DEFINITIONS", "MLFORGE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as running:
        store = 'LocalStore("own")'
        if place == "bucket":
            options = running.enter_context(moto()).options
            store = f'ObjectStore("s3://{BUCKET}/own", "cache", {options})'
        _tell(store, capsys)


def _tell(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("definitions.py").write_text(
        "from mlforge import Definitions, Service, feature\n"
        "from mlforge.metrics import Rolling\nfrom mlforge.store import LocalStore, ObjectStore\n"
        '@feature(keys=["user_id"], source="events", timestamp="at", metrics=[Rolling("7d", {"amount": "sum"})])\n'
        "def total(df):\n    return df\n"
        f'defs = Definitions({store}, [total], services=[Service("s", [total])])\n'
    )
    assert main(["build"]) == 0
    assert main(["rename", "total", "sums", "--yes"]) == 0
    out = "".join(capsys.readouterr())
    assert "sums: 1 version" in out
    assert "@feature(name='sums')" in out
    assert 'sums.as_("total")' in out
    assert main(["show", "sums"]) == 0
    assert "formerly   total" in " ".join(capsys.readouterr().out.split("\n"))
    assert main(["build"]) == 1
    assert "total was renamed to sums" in "".join(capsys.readouterr())
    assert main(["rename", "sums", "total", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "before": "sums",
        "after": "total",
        "versions": ["1.0.0"],
        "rows": None,
        "services": ["s"],
    }
