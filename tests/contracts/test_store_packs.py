"""Many small partials lie in few files; nothing that is read or promised changes by that."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from mlforge import get_training_data
from mlforge.engines.events import events_of
from mlforge.errors import StoreError
from mlforge.maintenance.operations import prune, tidy, verify
from mlforge.maintenance.retention import Retention
from mlforge.store import LocalStore
from mlforge.store.local import packs, reading_plans
from mlforge.store.local.packs import Packing, choose_for_merge
from mlforge.store.local.reading_plans import ReadingPlan
from tests.support.projects import Project, at, rows

FILES = 24


@pytest.fixture(autouse=True)
def few_are_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plan to read some partials is made from the one before, where it can be."""
    monkeypatch.setattr(reading_plans, "MANY", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One build over many small files."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    for day in range(FILES):
        project.drop(f"d{day:02d}", rows((day % 3, day, 1.0), (day % 5, day + 0.5, 2.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def files_in(project: Project, folder: str) -> list[Path]:
    return sorted((project.store.path / "spend" / folder).glob("*.parquet"))


def as_store(project: Project, **sizes: float) -> LocalStore:
    """The project's store from now on, with other sizes."""
    project.store = LocalStore(project.root / "store", Packing(**sizes))  # type: ignore[arg-type]
    return project.store


def is_as_rebuilt(project: Project, root: Path) -> None:
    """Stored rows and training values are those of a store that packs nothing."""
    store = LocalStore(root / "rebuilt", Packing(at_least=10**9))
    fresh = project.on(store)
    fresh.build()
    assert files_in(fresh, "_packs") == []
    assert project.store.read("spend").equals(store.read("spend"))
    spine = rows(*((user, day + 0.7, None) for user in range(6) for day in range(FILES + 3)))
    asked = [
        get_training_data(spine.drop("amount"), features=["spend"], store=each, timestamp="at")
        for each in (project.store, store)
    ]
    assert asked[0].equals(asked[1])
    ours, theirs = (each.read_metadata("spend") for each in (project.store, store))
    assert ours.rows_hash == theirs.rows_hash
    assert verify(project.store, ["spend"]) == []


def test_the_small_partials_of_one_build_lie_together(project: Project, tmp_path: Path) -> None:
    assert len(files_in(project, "_packs")) == 1
    assert files_in(project, "_partials") == []
    assert len(project.store.partials("spend")) == FILES
    is_as_rebuilt(project, tmp_path)


def test_a_version_that_is_at_hand_tells_what_its_packs_hold(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(project.store.path)
    manifest = store.read_metadata("spend")
    monkeypatch.setattr(packs, "partials_from_json", lambda document: 1 / 0)
    [task] = store.plan_files("spend", manifest.partials)
    assert (task.rows, task.numbers) == (2 * FILES, None)
    with pytest.raises(ZeroDivisionError):
        LocalStore(project.store.path).find_partial("spend", manifest.partials[0].hash)


def test_many_builds_of_a_file_each_leave_few_files(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    as_store(project, at_least=3, grace_s=0)
    for day in range(7):
        project.drop(f"d{day}", rows((1, day, 1.0)))
        project.build()
    assert len(files_in(project, "_packs")) == 1
    assert len(files_in(project, "_partials")) < 3
    is_as_rebuilt(project, tmp_path)


def test_a_build_whose_small_files_cannot_be_merged_is_done_all_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(LocalStore, "compact", refused)
    project.drop("d99", rows((1, 99, 1.0)))
    result = project.build()
    assert result.changed
    assert result.warnings == ("small files of events were not merged: the disk is full",)


def test_large_partials_and_few_ones_lie_alone(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    as_store(project, small_rows=1, at_least=3)
    for day in range(2):
        project.drop(f"small{day}", rows((1, day, 1.0)))
    for day in range(4):
        project.drop(f"large{day}", rows((1, day, 1.0), (2, day, 1.0)))
    project.build()
    assert files_in(project, "_packs") == []
    assert len(files_in(project, "_partials")) == 6


def test_files_that_go_change_or_come_twice_count_as_they_do_alone(
    project: Project, tmp_path: Path
) -> None:
    (project.events / "d03.parquet").unlink()
    project.drop("d05", rows((1, 5, 7.0)))
    project.drop("d07-again", pl.read_parquet(project.events / "d07.parquet"))
    project.drop("d08-again", pl.read_parquet(project.events / "d08.parquet"))
    project.build()
    assert len(files_in(project, "_packs")) == 1
    is_as_rebuilt(project, tmp_path)


def test_an_old_version_reads_from_packs_as_it_did(project: Project) -> None:
    spine = rows(*((user, day, None) for user in range(5) for day in range(FILES))).drop("amount")

    def at_first() -> pl.DataFrame:
        store = LocalStore(project.store.path)
        return get_training_data(spine, features=[("spend", "1.0.0")], store=store, timestamp="at")

    before = at_first()
    for day in range(3):
        project.drop(f"d{day:02d}", rows((9, day, 100.0)))
    project.build()
    store = as_store(project, at_least=2, grace_s=0)
    tidy(store, "spend")
    tidy(store, "spend")
    assert at_first().equals(before)


@pytest.mark.slow
def test_drops_are_packed_by_and_by_into_few_files(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    store = as_store(project, at_least=4, grace_s=0)
    for day in range(60):
        project.drop(f"d{day}", rows((day % 3, day, 1.0)))
        project.build()
        tidy(store, "spend")
        assert len(files_in(project, "_partials")) <= 2 * 4
        assert len(files_in(project, "_packs")) <= 6
    is_as_rebuilt(project, tmp_path)


def test_a_plan_that_is_made_from_another_reads_what_one_made_anew_reads(project: Project) -> None:
    for day in range(4):
        project.drop(f"e{day}", rows((7, day, 1.0)))
        project.build()
    stored = project.store.latest("spend").partials
    packed = project.store._feature("spend").partial_store.live.look()
    loose = [partial for partial in stored if partial.hash not in packed.places]
    lists = [
        [*stored], [*stored[:-1]], [*stored[1:]], [*stored, stored[0]], [*stored, loose[0]], loose, loose[1:],
        [p for p in stored if p is not loose[1]], [p for p in stored if p is not stored[3]], [*loose[2:], *stored], [],
    ]  # fmt: skip
    followed = 0
    for before, after in itertools.product(lists, lists):
        plan = ReadingPlan.of(before, packed).after(after, packed)
        if plan is not None:
            followed += 1
            assert read_by(plan) == read_by(ReadingPlan.of(after, packed))
    assert followed > 2 * len(lists)


def read_by(plan: ReadingPlan) -> tuple[Counter[str], Counter[str]]:
    return Counter(task.file for task in plan.whole), Counter(p.hash for p in plan.others)


def test_a_row_is_packed_again_a_logarithmic_number_of_times() -> None:
    packs: list[tuple[int, str]] = []
    written = 0
    for number in range(1_000):
        chosen = choose_for_merge(10, packs, most=10**6)
        rows_of_it = 10 + sum(held for held, name in packs if name in chosen)
        packs = [(held, name) for held, name in packs if name not in chosen]
        packs.append((rows_of_it, f"{number}"))
        written += rows_of_it
        assert len(packs) <= 12
    assert written <= 10 * 1_000 * 12


def test_who_has_looked_a_partial_up_can_go_on_reading_it(project: Project) -> None:
    for day in range(4):
        project.drop(f"e{day}", rows((1, FILES + day, 1.0)))
    project.build()
    store = as_store(project, at_least=2, grace_s=3_600)
    alone = files_in(project, "_partials")
    events = events_of(store, store.read_metadata("spend"))
    looked_up = events.scan()
    tidy(store, "spend")
    tidy(store, "spend")
    assert len(files_in(project, "_packs")) == 2
    assert files_in(project, "_partials") == alone
    assert looked_up.collect().height == 2 * FILES + 4
    tidy(as_store(project, grace_s=0), "spend")
    assert files_in(project, "_partials") == []


def test_pruning_writes_a_pack_anew_without_what_no_version_names(
    project: Project, tmp_path: Path
) -> None:
    project.drop("d00", rows((1, 0, 50.0)))
    project.build()
    store = as_store(project, grace_s=0)
    [pruned] = prune(store, ["spend"], Retention(newest=1))
    assert (pruned.versions, pruned.partials) == (("1.0.0",), 1)
    needed = {partial.hash for partial in store.read_metadata("spend").partials}
    assert set(store.partials("spend")) == needed
    tidy(store, "spend")
    assert len(files_in(project, "_packs")) == 1
    is_as_rebuilt(project, tmp_path)


def test_the_worker_leaves_a_pack_as_it_is_while_most_of_it_is_needed(project: Project) -> None:
    packed = files_in(project, "_packs")
    for turn in range(12):
        project.drop("d00", rows((1, 0, 50.0 + turn)))
        project.build()
    tidy(project.store, "spend", Retention(newest=1))
    assert project.store.list_versions("spend") == ["1.0.12"]
    assert files_in(project, "_packs") == packed
    assert files_in(project, "_partials") != []


def test_damage_in_a_pack_is_found_and_a_full_build_mends_it(
    project: Project, tmp_path: Path
) -> None:
    [path] = files_in(project, "_packs")
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 1
    path.write_bytes(damaged)
    found = [problem.what for problem in verify(LocalStore(project.store.path), ["spend"])]
    assert len(found) == FILES
    assert all("bytes have changed" in what for what in found)
    project.build(full=True)
    tidy(as_store(project, grace_s=0), "spend")
    assert path not in files_in(project, "_packs")
    is_as_rebuilt(project, tmp_path)


def test_what_is_damaged_is_packed_with_nothing_and_stays_to_be_found(project: Project) -> None:
    project.drop("d00", rows((1, 0, 50.0)))
    for day in range(2):
        project.drop(f"e{day}", rows(*((user, FILES + day, 1.0) for user in range(40))))
    project.build()
    for path in (*files_in(project, "_packs"), files_in(project, "_partials")[0]):
        damaged = bytearray(path.read_bytes())
        damaged[40] ^= 1
        path.write_bytes(damaged)
    store = as_store(project, at_least=2)
    tidy(store, "spend")
    [pruned] = prune(store, ["spend"], Retention(newest=1))
    assert (pruned.versions, pruned.partials) == (("1.0.0",), 0)
    found = [problem.what for problem in verify(LocalStore(project.store.path), ["spend"])]
    assert len(found) == FILES
    assert all("bytes have changed" in what for what in found)


def test_a_pack_that_is_gone_is_made_anew_from_the_sources(
    project: Project, tmp_path: Path
) -> None:
    [path] = files_in(project, "_packs")
    path.unlink()
    assert {problem.what.split()[-1] for problem in verify(project.store, ["spend"])} == {"missing"}
    project.drop("more", rows((1, 30, 1.0)))
    project.build()
    is_as_rebuilt(project, tmp_path)


def test_a_pack_that_is_a_link_is_refused(project: Project, tmp_path: Path) -> None:
    [path] = files_in(project, "_packs")
    path.rename(tmp_path / "elsewhere.parquet")
    path.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(Exception, match="is a link, and a store follows none"):
        project.store.partials("spend")


def test_late_rows_do_not_make_readers_open_all_of_a_pack(tmp_path: Path) -> None:
    """Rows of a pack are in the order of time, whichever files they came in."""
    project = Project(tmp_path / "project")
    for day in range(FILES):
        project.drop(f"d{day}", rows((1, day, 1.0), (1, day / 10, 2.0)))
    project.build()
    [path] = files_in(project, "_packs")
    stored = pl.read_parquet(path)
    assert stored["at"].is_sorted()
    assert stored["at"].max() == at(FILES - 1)
