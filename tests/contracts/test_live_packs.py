"""`_packs/CURRENT` names the live packs; without it the packs themselves say what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlforge.errors import StoreError, UnsupportedStore
from mlforge.maintenance.operations import prune, tidy, verify
from mlforge.maintenance.retention import Retention
from mlforge.store import LocalStore
from mlforge.store.local import io
from mlforge.store.local.packs import Packing
from tests.support.projects import Project, rows

TINY = Packing(small_rows=5, at_least=2, pack_rows=9, grace_s=0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Files that were packed in two turns, of which one is amended since."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    project.store = LocalStore(project.root / "store", TINY)
    for turn in range(2):
        for user in range(4):
            project.drop(f"f{turn}{user}", rows((user, turn * 3 + user, 1.0)))
        project.build()
        tidy(project.store, "spend")
    project.drop("f00", rows((0, 0, 7.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def current(project: Project) -> Path:
    return project.root / "store/spend/_packs/CURRENT"


def opened(project: Project) -> LocalStore:
    """The store as another process has it."""
    return LocalStore(project.root / "store", TINY)


def check(project: Project) -> None:
    """All is stored, reads as built anew, and what no version names goes."""
    store = opened(project)
    assert verify(store, ["spend"]) == []
    project.drop("more", rows((9, 9, 1.0)))
    project.on(store).build()
    assert store.read("spend").equals(project.rebuilt(project.root / "fresh").read("spend"))
    assert verify(store, ["spend"]) == []
    prune(store, ["spend"], Retention(newest=1))
    tidy(store, "spend")
    needed = {partial.hash for partial in store.read_metadata("spend").partials}
    assert store.partials("spend") == needed
    named = json.loads(current(project).read_text())
    assert {path.name for path in current(project).parent.glob("*.parquet")} == {
        *named["packs"],
        *named["retired"],
    }


def test_it_names_the_packs_that_lie_there(project: Project) -> None:
    named = json.loads(current(project).read_text())
    assert named["packs"] == sorted(path.name for path in current(project).parent.glob("*.parquet"))
    assert named["retired"] == {}
    check(project)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        '"packs"',
        "{}",
        '{"format": 1, "packs": 1, "retired": {}}',
        '{"format": 1, "packs": ["../../other/_packs/00000001-00000000.parquet"], "retired": {}}',
        '{"format": 1, "packs": [], "retired": {"../../spend/_latest.json": 0}}',
        '{"format": 1, "packs": [], "retired": {"00000001-00000000.parquet": "long ago"}}',
        '{"format": 1, "packs": [], "retired": []}',
        "[" * 100_000,
    ],
)
def test_a_document_that_is_missing_or_damaged_is_made_anew(
    text: str | None, project: Project
) -> None:
    before = opened(project).partials("spend")
    current(project).unlink()
    if text is not None:
        current(project).write_text(text)
    assert opened(project).partials("spend") == before
    with opened(project).lock("spend"):
        pass
    assert json.loads(current(project).read_text())["packs"]
    check(project)


def test_a_document_that_is_not_utf8_is_made_anew(project: Project) -> None:
    current(project).write_bytes(b"\xff\xfe{}")
    check(project)


@pytest.mark.parametrize("names", [[], ["00000001-00000000.parquet"]])
def test_packs_that_it_does_not_know_are_taken_up(names: list[str], project: Project) -> None:
    before = opened(project).partials("spend")
    document = {"format": 1, "packs": names, "retired": {}}
    current(project).write_text(json.dumps(document))
    with opened(project).lock("spend"):
        pass
    assert opened(project).partials("spend") == before
    check(project)


def test_retired_packs_are_kept_for_readers_and_then_deleted(project: Project) -> None:
    before = sorted(current(project).parent.glob("*.parquet"))
    patient = LocalStore(project.root / "store", Packing(2, 2, 100, grace_s=3_600))
    for user in range(4):
        project.drop(f"g{user}", rows((user, user + 0.5, 1.0)))
        project.on(patient).build()
    tidy(patient, "spend")
    named = json.loads(current(project).read_text())
    assert named["retired"]
    assert all(path.exists() for path in before)
    tidy(opened(project), "spend")
    assert not json.loads(current(project).read_text())["retired"]
    assert not all(path.exists() for path in before)
    check(project)


def test_one_of_a_newer_release_is_refused_and_left_alone(project: Project) -> None:
    text = json.dumps({"format": 2, "packs": {}})
    current(project).write_text(text)
    with pytest.raises(UnsupportedStore, match="CURRENT has format 2"):
        opened(project).partials("spend")
    with pytest.raises(UnsupportedStore), opened(project).lock("spend"):
        pass
    assert current(project).read_text() == text


def test_a_link_is_refused(project: Project, tmp_path: Path) -> None:
    current(project).rename(tmp_path / "elsewhere")
    current(project).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        opened(project).partials("spend")


def test_the_document_is_read_once_until_somebody_replaces_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = opened(project), list[Path]()
    original = io.read_json

    def reading(path: Path) -> object:
        read.append(path)
        return original(path)

    monkeypatch.setattr(io, "read_json", reading)
    for _ in range(3):
        assert len(store.partials("spend")) == 9
    assert read.count(current(project)) == 1
    tidy(opened(project), "spend")
    document = json.loads(current(project).read_text())
    current(project).with_name("new").write_text(json.dumps({**document, "packs": []}))
    current(project).with_name("new").rename(current(project))
    assert len(store.partials("spend")) < 9


def test_a_link_in_the_place_of_a_pack_that_is_known_is_refused(
    project: Project, tmp_path: Path
) -> None:
    store = opened(project)
    assert store.partials("spend")
    [pack, *_] = sorted(current(project).parent.glob("*.parquet"))
    pack.rename(tmp_path / "elsewhere.parquet")
    pack.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(StoreError, match="is a link, and a store follows none"):
        store.partials("spend")
