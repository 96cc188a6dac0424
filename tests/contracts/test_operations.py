"""What a person or a worker does to a store: roll back, pin, prune, verify."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import engines, get_training_data
from mlforge.build.refresh import Options
from mlforge.build.rows import Layout
from mlforge.core import clock
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.core.values import Duration, Version, to_us
from mlforge.errors import VersionConflict, VersionNotFound
from mlforge.maintenance import begun_forgetting
from mlforge.maintenance.forgetting import Scrubbed, scrub
from mlforge.maintenance.operations import pin, prune, rollback, verify
from mlforge.maintenance.retention import UNATTENDED, Retention
from mlforge.online import RedisStore
from mlforge.store import Pointer
from tests.support.projects import START, Project, at, rows

TINY = Options(layout=Layout(part_rows=32), cost_share=1.0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Five versions, each with a file more than the one before, as folders of parts."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    project.drop("base", rows(*((user, float(day), 1.0) for day in range(20) for user in range(5))))
    for number in range(5):
        project.drop(f"f{number}", rows((number, 21.0 + number, 2.0)))
        project.definitions().refresh("spend", options=TINY)
    assert versions(project) == ["1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4"]
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def versions(project: Project) -> list[str]:
    return project.store.list_versions("spend")


def is_whole(project: Project) -> None:
    """Every version reads and verifies, and its training sets can be made."""
    assert verify(project.store, ["spend"]) == []
    spine = pl.DataFrame({"user_id": [1, 4], "at": [at(24.5), at(30)]})
    for version in versions(project):
        manifest = project.store.read_metadata("spend", version)
        assert project.store.read("spend", version).height == manifest.row_count
        assert get_training_data(spine, [("spend", version)], store=project.store).height == 2


# Prune


def test_prune_keeps_the_newest_and_what_they_share(project: Project) -> None:
    served = project.store.read("spend")
    [pruned] = prune(project.store, ["spend"], Retention(newest=2))
    assert pruned.versions == ("1.0.0", "1.0.1", "1.0.2")
    assert versions(project) == ["1.0.3", "1.0.4"]
    assert project.store.read("spend").equals(served)
    is_whole(project)


def test_prune_never_removes_what_is_served_or_pinned_or_the_highest(project: Project) -> None:
    rollback(project.store, "spend", "1.0.2")
    assert pin(project.store, "spend", "1.0.0") == ("1.0.0",)
    prune(project.store, ["spend"], Retention(newest=0))
    assert versions(project) == ["1.0.0", "1.0.2", "1.0.4"]
    is_whole(project)
    pin(project.store, "spend", "1.0.0", unpin=True)
    prune(project.store, ["spend"], Retention(newest=0))
    assert versions(project) == ["1.0.2", "1.0.4"]
    assert project.build().version == "1.0.5"


def test_partials_that_no_version_names_go_with_the_versions(project: Project) -> None:
    (project.events / "f0.parquet").unlink()
    project.definitions().refresh("spend", options=TINY)
    assert len(project.store.partials("spend")) == 6
    [pruned] = prune(project.store, ["spend"], Retention(newest=1))
    assert pruned.partials == 1
    needed = {partial.hash for partial in project.store.read_metadata("spend").partials}
    assert set(project.store.partials("spend")) == needed
    is_whole(project)


def test_a_partial_that_was_pruned_is_computed_again_when_its_file_comes_back(
    project: Project,
) -> None:
    before = project.store.read("spend")
    kept = (project.events / "f0.parquet").read_bytes()
    (project.events / "f0.parquet").unlink()
    project.build()
    prune(project.store, ["spend"], Retention(newest=1))
    (project.events / "f0.parquet").write_bytes(kept)
    assert project.build().files_read == 1
    assert project.store.read("spend").equals(before)


def test_a_dry_run_says_what_would_go(project: Project) -> None:
    dry = prune(project.store, ["spend"], Retention(newest=1), dry_run=True)
    assert len(versions(project)) == 5
    assert prune(project.store, ["spend"], Retention(newest=1)) == dry


def test_prune_by_age_keeps_what_is_young(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    for day in (0, 10, 20):
        project.drop(f"f{day}", rows((1, float(day), 1.0)))
        with clock.fixed(to_us(at(day))):
            project.build()
    with clock.fixed(to_us(at(21))):
        prune(project.store, ["spend"], Retention(older_than=Duration.parse("5d")))
    assert versions(project) == ["1.0.2"]


def test_prune_keeps_what_it_cannot_read_and_every_partial(project: Project) -> None:
    (project.events / "f0.parquet").unlink()
    project.definitions().refresh("spend", options=TINY)
    (project.store.path / "spend" / "1.0.1" / ".meta.json").write_text("{")
    before = project.store.partials("spend")
    [pruned] = prune(project.store, ["spend"], Retention(newest=1))
    assert pruned.versions == ("1.0.0", "1.0.2", "1.0.3", "1.0.4")
    assert (pruned.partials, pruned.unreadable) == (0, ("1.0.1",))
    assert versions(project) == ["1.0.1", "1.0.5"]
    assert project.store.partials("spend") == before


# Roll back


def test_rollback_serves_the_older_version_and_raises_the_generation(project: Project) -> None:
    assert rollback(project.store, "spend") == Pointer(Version(1, 0, 3), 6)
    assert rollback(project.store, "spend", "1.0.0") == Pointer(Version(1, 0, 0), 7)
    assert project.store.read("spend").equals(project.store.read("spend", "1.0.0"))
    hold = project.store.books("spend").hold
    assert hold is not None
    assert "rolled back from 1.0.3 to 1.0.0" in hold
    assert project.build().version == "1.0.5"
    assert project.store.books("spend").hold is None
    is_whole(project)


def test_there_must_be_something_to_go_back_to(project: Project) -> None:
    rollback(project.store, "spend", "1.0.0")
    with pytest.raises(VersionNotFound, match=r"no version before 1\.0\.0"):
        rollback(project.store, "spend")
    with pytest.raises(VersionNotFound, match=r"no version 3\.0\.0"):
        rollback(project.store, "spend", "3.0.0")
    assert project.store.pointer("spend") == Pointer(Version(1, 0, 0), 6)


def test_the_served_version_is_nothing_to_go_back_to(project: Project) -> None:
    with pytest.raises(VersionConflict, match=r"1\.0\.4 is the version that is served"):
        rollback(project.store, "spend", "1.0.4")
    assert project.store.pointer("spend") == Pointer(Version(1, 0, 4), 5)
    assert project.store.books("spend").hold is None


def test_the_online_store_follows_a_rollback_though_its_version_is_older(
    project: Project, redis_url: str
) -> None:
    online = RedisStore.from_url(redis_url)
    definitions = project.definitions(online_store=online)
    with clock.fixed(to_us(at(60))):
        definitions.push("spend")
        assert online.read("spend", {"user_id": 4})["amount__count__2d"] == 1
        rollback(project.store, "spend", "1.0.0")
        assert definitions.push("spend").version == "1.0.0"
        assert online.read("spend", {"user_id": 0})["amount__count__2d"] == 2
        assert online.read("spend", {"user_id": 4})["amount__count__2d"] == 1
        assert online.read("spend", {"user_id": 4})["amount__count__7d"] == 6
        definitions.build(online=True)
        assert online.read("spend", {"user_id": 0})["amount__count__2d"] == 0
        assert online.read("spend", {"user_id": 4})["amount__count__7d"] == 3
    online.close()


def test_a_rollback_is_pushed_with_the_features_own_engine(
    project: Project, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = RedisStore.from_url(redis_url)
    definitions = project.definitions(project.define(engine="duckdb"), online_store=online)
    opened: list[str] = []
    for name, make in dict(engines._ENGINES).items():
        monkeypatch.setitem(
            engines._ENGINES, name, lambda name=name, make=make: (opened.append(name), make())[1]
        )
    assert definitions.rollback("spend").generation == 6
    assert opened == ["duckdb"]
    assert online.read("spend", {"user_id": 4})["amount__sum__7d"] == 3.0
    online.close()


# Verify


def test_verify_finds_a_flipped_bit_in_any_file(project: Project) -> None:
    chance = random.Random(3)
    root = project.store.path / "spend"
    files = [path for path in root.rglob("*.parquet") if path.is_file()]
    assert len(files) > 15
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        where = chance.randrange(len(whole))
        flipped[where] ^= 1 << chance.randrange(8)
        # A new file: the others that share its content stay as they are.
        path.unlink()
        path.write_bytes(bytes(flipped))
        found = verify(project.store, ["spend"])
        path.unlink()
        path.write_bytes(whole)
        assert found, f"byte {where} of {path}"
    assert verify(project.store, ["spend"]) == []


def test_a_flipped_bit_in_a_shared_part_is_found_in_every_version_that_has_it(
    project: Project,
) -> None:
    manifest = project.store.read_metadata("spend", "1.0.4")
    first = project.store.path / "spend" / "1.0.4" / manifest.parts[0].file
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 4
    with first.open("r+b") as file:
        file.write(bytes(content))
    assert {problem.version for problem in verify(project.store, ["spend"])} == set(
        versions(project)
    )


@pytest.mark.parametrize("fault", ["flipped", "missing"])
def test_a_full_build_mends_a_damaged_table_of_which_no_row_has_changed(
    project: Project, fault: str
) -> None:
    before = project.store.read("spend")
    manifest = project.store.read_metadata("spend")
    part = project.store.path / "spend" / str(manifest.version) / manifest.parts[0].file
    content = bytearray(part.read_bytes())
    part.unlink()
    if fault == "flipped":
        content[len(content) // 2] ^= 4
        part.write_bytes(bytes(content))
    definitions = project.definitions(project.define())
    assert definitions.build()["spend"].reason == "unchanged"
    result = definitions.build(full=True)["spend"]
    assert (result.bump, result.reason) == ("patch", "table_restored")
    assert manifest.parts[0].file in result.details[0]
    assert project.store.read("spend").equals(before)
    assert project.store.check_manifest(project.store.read_metadata("spend")) == []
    assert definitions.build(full=True)["spend"].reason == "unchanged"


def test_verify_finds_what_is_missing(project: Project) -> None:
    manifest = project.store.read_metadata("spend", "1.0.4")
    part = project.store.path / "spend" / "1.0.4" / manifest.parts[-1].file
    part.unlink()
    Path(project.store.locate("spend", [manifest.partials[0].hash])[0].file).unlink()
    found = [problem.what for problem in verify(project.store, ["spend"], "1.0.4")]
    assert len(found) == 2
    assert all("is missing" in what for what in found)


def test_verify_finds_books_that_cannot_be_read(project: Project) -> None:
    (project.store.path / "spend" / "_books.json").write_text("{")
    [found] = verify(project.store, ["spend"])
    assert "_books.json is damaged" in found.what


def test_a_build_mends_a_partial_that_is_gone_while_its_file_is_there(project: Project) -> None:
    expected = project.store.read("spend")
    for hash_ in project.store.partials("spend"):
        Path(project.store.locate("spend", [hash_])[0].file).unlink()
    assert verify(project.store, ["spend"])
    assert project.build().reason == "unchanged"
    assert verify(project.store, ["spend"]) == []
    assert project.store.read("spend").equals(expected)


def test_a_build_goes_on_without_partials_of_files_that_are_gone(project: Project) -> None:
    records = {record.path: record for record in project.store.read_metadata("spend").sources}
    Path(project.store.locate("spend", [records["f0.parquet"].partial])[0].file).unlink()
    (project.events / "f0.parquet").unlink()
    result = project.build()
    assert (result.version, result.mode) == ("1.0.5", "full")
    assert project.store.read("spend").filter(user_id=0)["at"].max() == at(19)


# Retention


def a_drop_a_minute(project: Project, drops: int, rule: Retention) -> list[int]:
    """Build and prune as a worker does, a drop each; returns what the store took now and then."""
    sizes = []
    for minute in range(drops):
        with clock.fixed(to_us(START) + minute * 60_000_000):
            # A producer that keeps twenty files: the source does not grow, so the store must not.
            project.drop(f"m{minute}", rows((minute % 5, minute / 1440, 1.0)))
            if minute >= 20:
                (project.events / f"m{minute - 20}.parquet").unlink()
            project.definitions().refresh("spend", options=TINY)
            prune(project.store, ["spend"], rule)
        if minute % 10 == 9:
            sizes.append(disk_usage(project))
    return sizes


def disk_usage(project: Project) -> int:
    """Blocks that the store takes, shared files once, as `du` counts them."""
    found = {path.stat().st_ino: path.stat().st_blocks for path in project.store.path.rglob("*")}
    return sum(found.values()) * 512


def is_bounded(project: Project, drops: int, rule: Retention) -> None:
    kept = rule.patches
    assert kept is not None
    sizes = a_drop_a_minute(project, drops, rule)
    assert versions(project) == [f"1.0.{n}" for n in range(drops - kept, drops)]
    assert len(project.store.partials("spend")) == 20 + kept - 1
    full = sizes[(20 + kept) // 10]
    assert max(sizes) < 1.2 * full
    is_whole(project)


@pytest.mark.slow
def test_retention_keeps_the_disk_bounded(tmp_path: Path) -> None:
    assert Retention(patches=50) == UNATTENDED
    is_bounded(Project(tmp_path / "project"), 40, Retention(patches=5))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_default_retention_keeps_the_disk_bounded_for_four_hours_of_minutes(
    tmp_path: Path,
) -> None:
    is_bounded(Project(tmp_path / "project"), 4 * 60, UNATTENDED)


def test_what_a_killed_forgetting_has_left_keeps_no_damaged_feature_from_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (2, 0, 2.0)))
    project.build()
    forgotten = Forgotten("5a17").with_entities([Entity("user_id", "1")])
    project.store.write_forgotten(forgotten.begun(["spend"]))
    [stored] = (tmp_path / "store" / "spend" / "_partials").glob("*.parquet")
    stored.write_bytes(b"PAR1 damaged PAR1")
    scrubs: list[str] = []

    def counted(*of: Any) -> Scrubbed:
        scrubs.append(of[1])
        return scrub(*of)

    monkeypatch.setattr(begun_forgetting, "scrub", counted)
    project.build()
    assert project.store.read("spend")["user_id"].to_list() == [2]
    project.build()  # what is damaged stays, so nobody can say that all rows are gone
    assert len(verify(project.store, ["spend"])) == 2
    for day in (1, 2):
        project.drop(f"{day}", rows((2, day, 2.0)))
        project.build()
    assert len(scrubs) == 1, "which reads all that is stored"
    prune(project.store, ["spend"], Retention(newest=1))
    project.build()
    assert len(scrubs) == 2
    assert project.store.forgotten() == forgotten
    assert verify(project.store, ["spend"]) == []
