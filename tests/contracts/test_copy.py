"""Copies of stores: bit by bit the same, in a bucket or a folder, whatever interrupts them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from mlforge.cli.main import main
from mlforge.errors import IntegrityError, StoreError, UnsupportedStore
from mlforge.maintenance.copying import copy
from mlforge.maintenance.operations import pin, verify
from mlforge.store import LocalStore, ObjectStore, Store
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four versions, of which the first is pinned, the third served; one file is set aside."""
    project = Project(tmp_path / "project")
    for number in range(4):
        project.drop(f"{number}", rows((number % 2, number / 2, 1.0), (7, number, 2.0)))
        project.build()
    project.drop("bad", pl.DataFrame({"other": [1]}))
    project.build()
    pin(project.store, "spend", "1.0.0")
    with project.store.lock("spend"):
        project.store.serve("spend", project.store.versions("spend")[2])
    return project


def in_bucket(objects: MemoryObjects, tmp_path: Path, machine: str = "machine") -> ObjectStore:
    client = MemoryObjects(objects.stored)
    return ObjectStore("s3://memory/store", tmp_path / machine, objects=client)


def state_of(store: Store) -> object:
    """All that is to be the same in a copy."""
    pointer = store.pointer("spend")
    assert pointer is not None
    return (
        store.identity(),
        [store.manifest("spend", version) for version in store.versions("spend")],
        pointer.version,
        store.books("spend"),
        dict(store.file_states("spend")),
    )


def test_a_copy_is_the_same_store_in_a_bucket_and_in_a_folder_again(project, tmp_path):
    source, objects = project.store, MemoryObjects()
    copied = copy(source, in_bucket(objects, tmp_path))
    assert [(each.feature, len(each.versions), each.before) for each in copied] == [("spend", 4, 0)]
    bucket = in_bucket(objects, tmp_path, "another machine")
    back = LocalStore(tmp_path / "back")
    copy(bucket, back)
    for store in (bucket, back):
        assert state_of(store) == state_of(source)
        assert verify(store, ["spend"]) == []
        for version in source.versions("spend"):
            assert store.read("spend", str(version)).equals(source.read("spend", str(version)))
        served, was = store.pointer("spend"), source.pointer("spend")
        assert served.generation >= was.generation
        again = copy(source, store)
        assert [each.before for each in again] == [4]
        assert state_of(store) == state_of(source)
    for version in source.versions("spend"):
        for file in source.files("spend", version):
            Path(file).unlink()  # what was copied is of its own
    assert verify(back, ["spend"]) == []


def test_work_goes_on_in_the_copy_as_it_would_have(project, tmp_path):
    copies = [in_bucket(MemoryObjects(), tmp_path), LocalStore(tmp_path / "copy")]
    for store in copies:
        copy(project.store, store)
    project.drop("next", rows((1, 9.0, 5.0)))
    expected = project.build()
    for store in copies:
        other = project.on(store)
        result = other.build()
        assert (result.version, result.mode, result.reason) == (
            expected.version,
            expected.mode,
            expected.reason,
        )
        assert store.read("spend").equals(project.store.read("spend"))
        assert other.build().reason == "unchanged"


def test_a_copy_that_is_interrupted_at_any_request_goes_on(project, tmp_path):
    whole = MemoryObjects()
    first = MemoryObjects(whole.stored)
    copy(project.store, ObjectStore("s3://memory/store", tmp_path / "whole", objects=first))
    writes = sum(deed in ("put", "create", "replace") for deed, *_ in first.requests)
    for end in range(0, writes, 3):
        objects, left = MemoryObjects(), [end]
        client = MemoryObjects(objects.stored)

        def fail(deed: str, key: str, left: list[int] = left) -> None:
            left[0] -= deed in ("put", "create", "replace")
            if left[0] < 0:
                raise StoreError("the network is gone")

        client.before = fail
        with pytest.raises(StoreError):
            copy(
                project.store,
                ObjectStore("s3://memory/store", tmp_path / f"{end}", objects=client),
            )
        store = in_bucket(objects, tmp_path, f"{end}-again")
        copy(project.store, store)
        assert state_of(store) == state_of(project.store)


def test_no_other_store_is_written_over(project, tmp_path):
    other = Project(tmp_path / "other")
    other.drop("a", rows((1, 0.0, 1.0)))
    other.build()
    before = state_of(other.store)
    with pytest.raises(UnsupportedStore, match="no copy of the other"):
        copy(project.store, other.store)
    with pytest.raises(StoreError, match="no feature 'spendd'"):
        copy(project.store, LocalStore(tmp_path / "new"), ["spendd"])
    assert not (tmp_path / "new").exists()
    assert state_of(other.store) == before
    parted = LocalStore(tmp_path / "parted")
    copy(project.store, parted)
    project.drop("x", rows((1, 9.0, 5.0)))
    project.build()
    project.drop("x", rows((1, 9.0, 6.0)))
    project.on(parted).build()
    with pytest.raises(IntegrityError, match="different versions of this number"):
        copy(project.store, parted)


def test_a_copy_that_has_gone_on_alone_is_not_taken_back(project, tmp_path):
    copies = [in_bucket(MemoryObjects(), tmp_path), LocalStore(tmp_path / "copy")]
    for store in copies:
        copy(project.store, store)
    project.drop("next", rows((1, 9.0, 5.0)))
    for store in copies:
        project.on(store).build()
        before = state_of(store), store.pointer("spend"), store.forgotten()
        with pytest.raises(UnsupportedStore, match="has gone on alone"):
            copy(project.store, store)
        assert (state_of(store), store.pointer("spend"), store.forgotten()) == before
    back = copy(copies[1], project.store)
    assert [each.before for each in back] == [4]
    assert state_of(project.store) == state_of(copies[1])


def test_what_is_damaged_is_not_copied(project, tmp_path):
    [file, *_] = project.store.files("spend", project.store.versions("spend")[1])
    Path(file).chmod(0o644)
    with Path(file).open("r+b") as opened:
        opened.seek(40)
        opened.write(b"\0\1\2\3")
    with pytest.raises(IntegrityError, match="bytes"):
        copy(project.store, in_bucket(MemoryObjects(), tmp_path))


def test_the_command_copies_and_says_what(project, tmp_path, capsys):
    stores = ["--from", str(project.root / "store"), "--to", str(tmp_path / "copy")]
    assert main(["copy", *stores]) == 0
    assert "1 feature of" in capsys.readouterr().out
    assert main(["copy", *stores, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"][0]["copied"] == 0
    assert main(["copy", "--from", str(tmp_path / "nowhere"), "--to", str(tmp_path / "copy")]) == 1
    assert "holds no feature" in capsys.readouterr().err
