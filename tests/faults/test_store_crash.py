"""A process may end at any step, a disk may fill up or go away: what was published stays, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

import mlforge
from mlforge import training_set
from mlforge.core import clock, failpoints
from mlforge.core.values import Version
from mlforge.errors import StoreError, StoreUnavailable
from mlforge.maintenance.operations import prune, rollback, tidy, verify
from mlforge.maintenance.retention import Retention
from mlforge.store import LocalStore
from mlforge.store.base import NOT_SERVED
from mlforge.store.records import Audit
from tests.support.crashes import (
    NOW,
    build,
    build_tiled,
    definitions,
    drop,
    erase,
    forget_user,
    killed,
    lock_of,
    packing,
    push,
    rename,
)
from tests.support.faults import places

WRITING = ("file.decoding", "file.synced", "partial.written", "file_states.written", "books.written", "stage.made",
           "parts.written", "parts.placed", "publish.staged", "publish.renamed",
           "publish.pointed", "publish.indexed")  # fmt: skip
MAKING = ("file.written",)
PUSHING = ("push.begun", "push.put", "push.removed", "push.finished")
REMOVING = ("remove.hidden",)
PACKING = ("pack.written", "packs.listed", "pack.swept")
TILING = ("tiles.written",)
LOCKING = ("lock.written",)
SERVING = ("service.written",)
ERASING = ("erase.let_go", "erase.unserved", "erase.hidden", "erase.unnamed")
RENAMING = ("rename.noted", "rename.made_room", "rename.moved", "rename.settled")
FORGETTING = ("forgotten.written", "forget.rewritten", "forget.removed", "partials.scrubbed")
# Tried where a store lies in a bucket, is copied, or exported, where rows come over HTTP, and where an intake, a build, a push or a training set
# is shared out: test_object_forgetting, test_copy, test_export, test_serve_incoming, scattered.
ELSEWHERE = (
    "scrub.deleted",
    "copy.copied",
    "export.written",
    "export.files_written",
    "drop.written",
    "drop.renamed",
    "task.ingested",
    "task.written",
    "task.put",
    "task.set",
    "set.written",
    "set.published",
)


def test_every_place_where_a_test_may_stop_the_process_is_tried_here() -> None:
    tried = (
        WRITING,
        MAKING,
        PUSHING,
        REMOVING,
        PACKING,
        TILING,
        LOCKING,
        SERVING,
        ERASING,
        RENAMING,
        FORGETTING,
        ELSEWHERE,
    )
    assert places(mlforge) == {place for group in tried for place in group}
    texts = "".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("*.py")
    )
    assert all(texts.count(f'"{place}"') > 1 for place in ELSEWHERE)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project before its first build, one whose source changed since, and what each should become."""
    root = tmp_path_factory.mktemp("stages")
    first, patch = root / "first", root / "patch"
    for project in (first, patch):
        drop(project, "a", *((user, day, 1.0) for day in range(30) for user in range(3)))
        drop(project, "b", (1, 3.5, 2.0))
    build(patch)
    drop(patch, "b", (1, 3.5, 5.0), (2, 3.5, 1.0))
    drop(patch, "c", (9, 29.5, 7.0))
    (patch / "events" / "notes.csv").write_text("not parquet, which the books tell")
    for project in (first, patch):
        rebuilt = root / f"{project.name}-rebuilt"
        shutil.copytree(project / "events", rebuilt / "events")
        build(rebuilt)
    return {path.name: path for path in root.iterdir()}


def litter(store: LocalStore) -> list[str]:
    """Hidden files and folders other than those that belong there."""
    known = {".meta.json", ".refreshing", ".publishing", ".indexing", ".forgetting", ".renaming"}
    return [str(path) for path in store.path.rglob(".*") if path.name not in known]


def rows(root: Path, version: str | None = None) -> pl.DataFrame:
    return LocalStore(root / "store").read("spend", version)


def is_in_order(root: Path, expected: Path, versions: list[str]) -> None:
    """The store holds these versions and nothing else, and serves what a full rebuild gives."""
    store = LocalStore(root / "store")
    assert store.list_versions("spend") == versions
    pointer = store.pointer("spend")
    assert pointer is not None
    assert (str(pointer.version), pointer.generation) == (versions[-1], len(versions))
    assert rows(root).equals(rows(expected))
    assert verify(store, ["spend"]) == []
    assert litter(store) == []
    assert store.index()["spend"]["version"] == versions[-1]
    assert not store.books("spend").quarantine
    assert not store.books("spend").hold


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        *(("patch", place) for place in WRITING),
        *(
            ("first", place)
            for place in (*MAKING, "stage.made", "publish.renamed", "publish.pointed")
        ),
    ],
)
def test_a_build_killed_at_any_step_leaves_a_whole_version_and_the_next_one_succeeds(
    stage: str, place: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    before = ["1.0.0"] if stage == "patch" else []
    for nth in range(1, 50):
        root = tmp_path / str(nth)
        shutil.copytree(stages[stage], root)
        died = killed(root, "build", place, nth)
        store = LocalStore(root / "store")
        made = [str(version) for version in store.versions("spend")]
        assert made in (before, [*before, f"1.0.{len(before)}"])
        is_served = store.pointer("spend") is not None
        assert [NOT_SERVED in each.what for each in verify(store, ["spend"])] == (
            [] if is_served or not made else [True]
        )
        for version in before:
            assert rows(root, version).equals(rows(stages[stage]))
        if (pointer := store.pointer("spend")) is not None and str(pointer.version) not in before:
            assert rows(root).equals(rows(stages[f"{stage}-rebuilt"]))
        build(root)
        is_in_order(root, stages[f"{stage}-rebuilt"], [*before, f"1.0.{len(before)}"])
        shutil.rmtree(root)
        if not died:
            assert nth > 1, f"{place} is not a step of this"
            return
    pytest.fail("it goes on dying")


def test_builds_killed_again_and_again_end_in_the_same_place(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    for place in WRITING[::-1]:
        killed(root, "build", place, 1)
        drop(root, "c", (9, 29.5, 7.0))
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0", "1.0.1"])


@pytest.mark.parametrize("place", LOCKING)
def test_a_registration_killed_once_the_lock_is_written_leaves_it_whole(
    place: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    assert killed(root, "register lock", place, 1)
    store = LocalStore(root / "store")
    assert store.locks() == {"fraud": lock_of(store)}
    assert verify(store, ["spend"]) == []
    assert litter(store) == []


@pytest.mark.parametrize("place", SERVING)
def test_a_version_of_a_service_is_whole_once_it_is_written(place: str, tmp_path: Path) -> None:
    assert killed(tmp_path, "keep service", place, 1)
    store = LocalStore(tmp_path / "store")
    assert store.service_versions("model") == {Version(1, 0, 0): {"kept": True}}
    assert litter(store) == []


@pytest.mark.parametrize("place", [*REMOVING, *ERASING])
def test_an_erasure_killed_at_any_step_leaves_a_whole_feature_or_none_and_the_next_one_ends_it(
    place: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    build(root)
    assert killed(root, "erase", place, 1)
    store = LocalStore(root / "store")
    assert verify(store, store.features()) == []
    with store.lock("spend"):  # recovers
        served = store.latest("spend")
    assert (served is not None) == (place in (*REMOVING, "erase.let_go"))
    if served is not None:
        assert rows(root).equals(rows(stages["patch-rebuilt"]))
    erase(root)
    assert {path.name for path in (root / "store" / "spend").iterdir()} <= {
        ".refreshing",
        ".publishing",
    }
    assert (store.index(), litter(store)) == ({}, [])
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0"])


@pytest.mark.parametrize("place", RENAMING)
def test_a_rename_killed_at_any_step_leaves_a_whole_feature_under_one_name_and_the_next_ends_it(
    place: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    assert killed(root, "rename", place, 1)
    store = LocalStore(root / "store")
    is_moved = place in ("rename.moved", "rename.settled")
    assert store.features() == (["outlay"] if is_moved else ["spend"])
    assert store.renames().now("spend") == store.features()[0]
    assert verify(store, store.features()) == []
    if not is_moved:
        build(root)  # a worker goes on meanwhile
    expected = stages["patch"] if is_moved else stages["patch-rebuilt"]
    rename(root)
    assert (store.features(), [*store.index()], litter(store)) == (["outlay"], ["outlay"], [])
    assert store.read("outlay").equals(rows(expected))
    assert verify(store, ["outlay"]) == []
    store.rename("outlay", "spend")
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0", "1.0.1"])


@pytest.mark.parametrize("erasing", ERASING)
@pytest.mark.parametrize("renaming", RENAMING)
def test_a_rename_and_an_erasure_killed_behind_it_leave_no_name_refused(
    renaming: str, erasing: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    assert killed(root, "rename", renaming, 1)
    [name] = LocalStore(root / "store").features()
    assert killed(root, "erase", erasing, 1, name)
    store = LocalStore(root / "store")
    assert store.features() == ([name] if erasing == "erase.let_go" else [])
    erase(root, name)
    assert (store.renames().done, store.index(), litter(store)) == ((), {}, [])
    build(root)  # under the old name
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0"])
    rename(root)
    assert store.features() == ["outlay"]


@pytest.mark.parametrize("renaming", RENAMING)
@pytest.mark.parametrize("erasing", ERASING)
def test_an_erasure_and_a_rename_killed_behind_it_leave_a_feature_under_one_name_or_none_refused(
    erasing: str, renaming: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    assert killed(root, "erase", erasing, 1)
    store = LocalStore(root / "store")
    if erasing == "erase.let_go":  # it is served yet, so it was not let go
        assert killed(root, "rename", renaming, 1)
        rename(root)
        assert store.features() == ["outlay"]
        assert store.read("outlay").equals(rows(stages["patch"]))
        erase(root, "outlay")
    else:
        with pytest.raises(StoreError, match="no feature 'spend'"):
            rename(root)
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0"])
    assert store.renames().done == ()


def test_a_feature_that_was_erased_by_a_release_before_under_a_name_about_to_change_is_not_refused(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    assert killed(root, "rename", "rename.noted", 1)
    shutil.rmtree(root / "store" / "spend")  # its note says that it is about to become outlay
    assert LocalStore(root / "store").renames().done == ()
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0"])


@pytest.mark.parametrize("place", [*TILING, "file.synced", "publish.renamed"])
def test_tiles_of_a_build_that_was_killed_are_whole_or_made_anew(
    place: str, tmp_path: Path
) -> None:
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    drop(begun, "a", *((user, day / 2, 1.0) for day in range(30) for user in range(3)))
    build_tiled(begun)
    drop(begun, "b", (1, 3.5, 5.0), (2, 14.5, 1.0))
    shutil.copytree(begun / "events", whole / "events")
    build_tiled(whole)
    for nth in range(1, 20):
        root = tmp_path / str(nth)
        shutil.copytree(begun, root)
        died = killed(root, "build tiled", place, nth)
        build_tiled(root)
        is_in_order(root, whole, ["1.0.0", "1.0.1"])
        assert len(list((root / "store/spend/_tiles").iterdir())) == 2
        if not died:
            assert nth > 1, f"{place} is not a step of this"
            return
    pytest.fail("it goes on dying")


@pytest.mark.parametrize("place", PUSHING)
def test_a_push_killed_at_any_step_is_finished_by_the_next_one(
    place: str, stages: dict[str, Path], tmp_path: Path, redis_url: str
) -> None:
    root, clean = tmp_path / "project", stages["patch-rebuilt"]
    shutil.copytree(stages["patch"], root)
    drop(root, "gone", (77, 29.9, 1.0))
    build(root)
    push(root, redis_url)
    (root / "events" / "gone.parquet").unlink()
    build(root)
    assert killed(root, "push", place, 1, redis_url)
    push(root, redis_url)
    push(clean, redis_url, "clean")
    entities = [{"user_id": user} for user in (0, 1, 2, 9, 77, 78)]
    served, expected = (
        definitions(path, redis_url, prefix).online_store
        for path, prefix in ((root, "mlforge"), (clean, "clean"))
    )
    assert served.read_batch("spend", entities) == expected.read_batch("spend", entities)
    assert served.books("spend").pending == ()
    assert served.books("spend").rows == expected.books("spend").rows
    served.close()
    expected.close()


@pytest.mark.parametrize("place", ["file.synced", "books.written"])
def test_a_rollback_killed_at_any_step_can_be_repeated(
    place: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    for nth in range(1, 10):
        root = tmp_path / str(nth)
        shutil.copytree(stages["patch"], root)
        build(root)
        died = killed(root, "rollback", place, nth)
        store = LocalStore(root / "store")
        pointer = store.pointer("spend")
        assert pointer is not None
        assert str(pointer.version) == "1.0.1" or store.books("spend").hold
        if str(pointer.version) == "1.0.1":
            rollback(store, "spend", "1.0.0")
        with store.lock("spend"):
            pass
        assert rows(root).equals(rows(stages["patch"]))
        assert store.books("spend").hold
        assert litter(store) == []
        if not died:
            assert nth > 1
            return


def test_a_prune_killed_on_its_way_leaves_nothing_that_the_next_writer_does_not_clean(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)
    build(root)
    assert killed(root, "prune", "remove.hidden", 1)
    store = LocalStore(root / "store")
    assert store.list_versions("spend") == ["1.0.1"]
    prune(store, ["spend"], Retention(newest=1))
    assert litter(store) == []
    needed = {partial.hash for partial in store.read_metadata("spend").partials}
    assert set(store.partials("spend")) == needed
    assert verify(store, ["spend"]) == []


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which two versions are packed, one file was amended, and others lie loose."""
    root = tmp_path_factory.mktemp("packed")
    for user in range(6):
        drop(root, f"a{user}", (user, 1.0, 1.0), (user, 2.0, 3.0))
    build(root)
    tidy(packing(root), "spend")
    drop(root, "a1", (1, 1.0, 5.0))
    for user in range(3):
        drop(root, f"b{user}", (user, 3.0, 1.0))
    build(root)
    return root


@pytest.mark.parametrize("job", ["tidy", "prune packs"])
@pytest.mark.parametrize("place", ["file.synced", *PACKING, *REMOVING])
def test_packing_killed_at_any_step_loses_nothing_and_is_finished_by_the_next_one(
    job: str, place: str, packed: Path, tmp_path: Path
) -> None:
    expected = rows(packed)
    reached = 0
    for nth in range(1, 20):
        root = tmp_path / str(nth)
        shutil.copytree(packed, root)
        died = killed(root, job, place, nth)
        reached += died
        for store in (packing(root), LocalStore(root / "store")):
            assert verify(store, ["spend"]) == []
            assert rows(root).equals(expected)
        for _ in range(3):  # what is packed, then what packs stand in for
            tidy(packing(root), "spend")
        prune(packing(root), ["spend"], Retention(newest=1))
        tidy(packing(root), "spend")
        store = packing(root)
        needed = {partial.hash for partial in store.read_metadata("spend").partials}
        assert set(store.partials("spend")) == needed
        assert list((store.path / "spend" / "_partials").iterdir()) == []
        assert verify(store, ["spend"]) == []
        assert litter(store) == []
        drop(root, "c", (7, 4.0, 1.0))
        build(root)
        assert rows(root).height == expected.height + 1
        shutil.rmtree(root)
        if not died:
            break
    assert reached or (job, place) in {("tidy", "remove.hidden"), ("prune packs", "pack.swept")}


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def on_disk(stages: dict[str, Path], tmp_path: Path, disk: Path) -> Path:
    """A project with a version and a changed source, its store on that disk."""
    root = tmp_path / "project"
    shutil.copytree(stages["patch"] / "events", root / "events")
    shutil.copytree(stages["patch"] / "store", disk / "store")
    (root / "store").symlink_to(disk / "store")
    return root


def leave(filler: Path, free: int) -> None:
    """Fill the disk until so many bytes are free."""
    descriptor = os.open(filler, os.O_CREAT | os.O_RDWR | os.O_APPEND)
    with contextlib.suppress(OSError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.truncate(descriptor, max(os.fstat(descriptor).st_size - free, 0))
    os.close(descriptor)


def test_a_full_disk_is_a_clear_error_at_every_step_and_no_version_suffers(
    stages: dict[str, Path], tmp_path: Path, disk: Path
) -> None:
    root = on_disk(stages, tmp_path, disk)
    failures = 0
    for pages in range(200):
        leave(disk / "filler", pages * 4096)
        try:
            build(root)
        except StoreError as error:
            failures += 1
            assert "the disk is full: free some space" in str(error)  # noqa: PT017
        else:
            break
        assert rows(root, "1.0.0").equals(rows(stages["patch"]))
        assert verify(LocalStore(root / "store"), ["spend"]) == []
    assert failures > 5
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0", "1.0.1"])


def test_a_read_only_store_is_a_clear_error_and_can_be_read(
    stages: dict[str, Path], tmp_path: Path, disk: Path
) -> None:
    root = on_disk(stages, tmp_path, disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StoreError, match="the file system is read-only"):
        build(root)
    store = LocalStore(root / "store")
    with pytest.raises(StoreError, match="the file system is read-only"):
        rollback(store, "spend", "1.0.0")
    with pytest.raises(StoreError, match="the file system is read-only"):
        store.regenerate_index()
    with pytest.raises(StoreUnavailable, match="the file system is read-only"):
        store.write_audit("spend", Audit("1.0.0", 17, 3, 12))
    spine = pl.DataFrame({"user_id": [1], "at": [NOW]}, schema_overrides={"at": pl.Datetime("us")})
    with pytest.raises(StoreUnavailable, match="with the right to read it alone, use get_training"):
        training_set(spine, ["spend"], store=store, out=tmp_path / "train")
    assert not (tmp_path / "train").exists()
    assert rows(root).equals(rows(stages["patch"]))
    assert store.features() == ["spend"]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0", "1.0.1"])


@contextlib.contextmanager
def at(place: str, action: Callable[[], Any]) -> Iterator[None]:
    """Do something whenever a place is reached."""
    failpoints.arm(place, action)
    try:
        yield
    finally:
        failpoints.disarm()


@pytest.mark.parametrize("what", ["store", "store/spend"])
@pytest.mark.parametrize(
    "place", ["partial.written", "stage.made", "parts.written", "publish.staged", "publish.renamed"]
)
def test_a_folder_that_vanishes_on_the_way_is_a_clear_error_and_comes_back_whole(
    place: str, what: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(stages["patch"], root)

    def vanish() -> None:
        if not (tmp_path / "away").exists():
            (root / what).rename(tmp_path / "away")

    with (
        at(place, vanish),
        clock.fixed(NOW),
        pytest.raises(StoreError, match="vanished meanwhile"),
    ):
        build(root)
    assert not (root / what).exists(), "a store that went away must not be begun anew"
    (tmp_path / "away").rename(root / what)
    assert rows(root, "1.0.0").equals(rows(stages["patch"]))
    build(root)
    is_in_order(root, stages["patch-rebuilt"], ["1.0.0", "1.0.1"])


@pytest.mark.parametrize(
    "place",
    [
        *FORGETTING,
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in ("file.synced", "partial.written", "stage.made", "parts.placed", "publish.renamed",
                          "publish.pointed", "books.written", *PUSHING[:2], "push.finished", *REMOVING, "packs.listed")
        ),
    ],
)  # fmt: skip
def test_a_forgetting_killed_at_any_step_is_ended_by_the_next(
    place: str, stages: dict[str, Path], tmp_path: Path, redis_url: str
) -> None:
    root, prefix = tmp_path / "project", place.replace(".", "-")
    shutil.copytree(stages["patch"], root)
    build(root)
    for _ in range(2):
        tidy(packing(root), "spend")
    push(root, redis_url, prefix)
    was_killed = killed(root, "forget", place, 1, redis_url, prefix)
    assert was_killed or place == "books.written"  # there is nothing to take out of the books
    build(root)  # a worker goes on meanwhile, and ends what it can
    store = LocalStore(root / "store")
    assert not store.forgotten() or 1 not in rows(root)["user_id"].to_list()
    assert store.forgotten().unfinished == frozenset()
    forget_user(root, redis_url, prefix)
    assert verify(store, ["spend"]) == []
    assert litter(store) == []
    for path in store.path.rglob("*.parquet"):
        assert 1 not in pl.read_parquet(path, glob=False)["user_id"].to_list(), path
    build(root)
    expected = rows(stages["patch-rebuilt"]).filter(pl.col("user_id") != 1)
    assert rows(root).equals(expected)
    with Redis.from_url(redis_url) as client:
        assert len([*client.scan_iter(f"{prefix}:spend:*")]) == expected["user_id"].n_unique()
