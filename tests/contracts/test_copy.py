"""Copies of stores: bit by bit the same, in a bucket or a folder, whatever interrupts them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mlforge.cli.main import main
from mlforge.core import failpoints
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreError, UnsupportedStore
from mlforge.maintenance import copying
from mlforge.maintenance.copying import copy
from mlforge.maintenance.exporting import export
from mlforge.maintenance.operations import pin, rollback, verify
from mlforge.registry.forgetting import entities_of, forget
from mlforge.store import LocalStore, ObjectStore, Store
from mlforge.store.apart import check_beside
from mlforge.store.lakehouse.targets import target_at
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four versions, of which the first is pinned, the third served; one file is set aside."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    for number in range(4):
        project.drop(f"{number}", rows((number % 2, number / 2, 1.0), (7, number, 2.0)))
        project.build()
    project.drop("bad", pl.DataFrame({"other": [1]}))
    project.build()
    pin(project.store, "spend", "1.0.0")
    with project.store.lock("spend"):
        project.store.serve("spend", project.store.versions("spend")[2])
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def in_bucket(objects: MemoryObjects, tmp_path: Path, machine: str = "machine") -> ObjectStore:
    client = MemoryObjects(objects.stored)
    return ObjectStore("s3://memory/store", tmp_path / machine, objects=client)


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("store", "store/", "is store itself"),
        ("store", "./elsewhere/../store", "is store itself"),
        ("store", "link", "is store itself"),
        ("link", "store/copy", "store/copy lies within link"),
        ("store/copy", "store", "store/copy lies within store"),
        ("later", "later/copy", "later/copy lies within later"),
        ("s3://b/store", "s3://b//store/", "is s3://b/store itself"),
        ("s3://b", "s3://b/store", "s3://b/store lies within s3://b"),
        ("store", "store2", ""),
        ("s3://b/store", "s3://b/store2", ""),
        ("s3://b/store", "gs://b/store", ""),
    ],
)
def test_a_store_is_not_copied_onto_itself_by_any_name(
    source: str, target: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("store").mkdir()
    Path("link").symlink_to("store")
    with pytest.raises(UnsupportedStore, match=told) if told else nullcontext():
        check_beside(target, source)


def state_of(store: Store) -> object:
    """All that is to be the same in a copy."""
    pointer = store.pointer("spend")
    assert pointer is not None
    return (
        store.identity(),
        [store.manifest("spend", version) for version in store.versions("spend")],
        pointer.version,
        replace(store.books("spend"), copied=""),
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


def test_a_store_that_has_published_very_often_is_copied_in_few_requests(project, tmp_path):
    served = project.store.pointer("spend").version
    project.store.serve("spend", served, at_least=1_000_000)
    objects = MemoryObjects()
    copy(project.store, in_bucket(objects, tmp_path))
    assert in_bucket(objects, tmp_path).pointer("spend").generation >= 1_000_000


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


def test_a_copy_that_is_killed_amid_a_rename_there_has_the_new_name_once_it_is_copied_again(
    project, tmp_path
):
    copied = MemoryObjects()
    copy(project.store, in_bucket(copied, tmp_path, "first"))
    project.store.rename("spend", "outlay")
    ends = set()
    for end in range(1, 100):
        objects, left = MemoryObjects(dict(copied.stored)), [end]

        def die(deed: str, key: str, left: list[int] = left) -> None:
            left[0] -= deed in ("put", "create", "replace")
            if left[0] == 0:
                raise KeyboardInterrupt

        dying = in_bucket(objects, tmp_path, f"{end}")
        dying._objects.after = die
        try:
            copy(project.store, dying)
        except KeyboardInterrupt:
            pass
        else:
            break
        store = in_bucket(objects, tmp_path, f"{end}-again")
        ends |= {*store.features()}
        copy(project.store, store)
        assert store.features() == ["outlay"]
        assert store.renames() == project.store.renames()
        assert verify(store, ["outlay"]) == []
    assert ends == {"outlay", "spend"}


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
    with pytest.raises(UnsupportedStore, match="has gone on alone"):
        copy(project.store, parted)
    with parted.lock("spend"):  # as an earlier release has left it
        parted.write_books("spend", replace(parted.books("spend"), copied=""))
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


def test_a_copy_that_was_exported_is_copied_to_again_and_knows_all_tables(project, tmp_path):
    target = LocalStore(tmp_path / "copy")
    copy(project.store, target)
    tables = [target_at("delta", str(tmp_path / name)) for name in ("of copy", "of source")]
    export(target, "spend", tables[0])
    export(project.store, "spend", tables[1])
    project.drop("more", rows((1, 9.0, 1.0)))
    project.build()
    copy(project.store, target)
    assert target.books("spend").exports.keys() == {*map(str, tables)}
    assert target.versions("spend") == project.store.versions("spend")


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


def test_the_command_names_a_feature_that_is_in_the_copy_alone(project, tmp_path, capsys):
    stores = ["--from", str(project.root / "store"), "--to", str(tmp_path / "copy")]
    assert main(["copy", *stores]) == 0
    assert "alone" not in capsys.readouterr().out
    project.definitions(project.define(name="other")).build(["other"])
    project.store.erase("spend")
    assert main(["copy", *stores, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["only_there"] == ["spend"]
    assert main(["copy", *stores]) == 0
    told = capsys.readouterr().out
    assert f"spend is in {tmp_path / 'copy'} alone" in told
    assert "1 feature of" in told


def test_a_copy_that_was_only_rolled_back_or_pinned_is_not_written_over(project, tmp_path):
    deeds = {
        "rolled-back": lambda store: rollback(store, "spend", "1.0.0"),
        "pinned": lambda store: pin(store, "spend", "1.0.1"),
        "unpinned": lambda store: pin(store, "spend", "1.0.0", unpin=True),
    }
    for deed, do in deeds.items():
        for store in (in_bucket(MemoryObjects(), tmp_path, deed), LocalStore(tmp_path / deed)):
            copy(project.store, store)
            copy(project.store, store)
            do(store)
            before = state_of(store), store.pointer("spend")
            with pytest.raises(UnsupportedStore, match="not as they were left"):
                copy(project.store, store)
            assert (state_of(store), store.pointer("spend")) == before
    with pytest.raises(UnsupportedStore, match="not as they were left"):
        copy(project.store, LocalStore(tmp_path / "pinned"), ["spend"])
    # What went on in the copy goes back to where it came from, unless something was done there, too.
    copy(LocalStore(tmp_path / "pinned"), project.store)
    assert project.store.books("spend").pins == ("1.0.0", "1.0.1")
    copy(project.store, LocalStore(tmp_path / "pinned"))
    pin(project.store, "spend", "1.0.2")
    with pytest.raises(UnsupportedStore, match="not as they were left"):
        copy(LocalStore(tmp_path / "pinned"), project.store)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_what_was_forgotten_since_it_was_copied_goes_from_the_copy(project, tmp_path, place):
    target: Store = LocalStore(tmp_path / "copy")
    if place == "bucket":
        target = in_bucket(MemoryObjects(), tmp_path)
    copy(project.store, target)
    before = target.partials("spend")
    forget(project.definitions(), entities_of(project.store, ["user_id=7"]))
    [copied] = copy(project.store, target)
    assert copied.erased == ("1.0.0", "1.0.1", "1.0.2", "1.0.3")
    assert target.forgotten() == project.store.forgotten()
    assert target.versions("spend") == project.store.versions("spend")
    assert target.partials("spend") == project.store.partials("spend")
    assert not before & target.kept_partials("spend")
    assert 7 not in target.read("spend")["user_id"]
    assert [each.erased for each in copy(project.store, target)] == [()]


def test_an_erasure_in_the_copy_that_is_killed_is_ended_by_the_next_copy(
    project, tmp_path, monkeypatch
):
    target = LocalStore(tmp_path / "copy")
    copy(project.store, target)
    forget(project.definitions(), entities_of(project.store, ["user_id=7"]))
    with monkeypatch.context() as patched:
        patched.setattr(copying, "scrub", _killed)
        with pytest.raises(KeyboardInterrupt):
            copy(project.store, target)
    assert len(target.versions("spend")) > len(project.store.versions("spend"))
    [copied] = copy(project.store, target)
    assert copied.erased
    assert target.partials("spend") == project.store.partials("spend")


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_who_was_forgotten_in_the_copy_alone_is_brought_back_by_no_copy(project, tmp_path):
    target = LocalStore(tmp_path / "copy")
    forget(project.definitions(), entities_of(project.store, ["user_id=99"]))
    copy(project.store, target)
    forget(project.on(target).definitions(), entities_of(target, ["user_id=98"]))
    with pytest.raises(UnsupportedStore, match="has forgotten entities that"):
        copy(project.store, target)


def test_stores_that_have_forgotten_apart_are_told_what_to_do(project, tmp_path):
    target = LocalStore(tmp_path / "copy")
    copy(project.store, target)
    other = project.on(target).definitions()
    forget(other, entities_of(target, ["user_id=99"]))  # nobody: no version is made of it
    with pytest.raises(UnsupportedStore, match="has forgotten entities that"):
        copy(project.store, target)
    forget(project.definitions(), entities_of(project.store, ["user_id=99"]))
    before = state_of(target), target.forgotten()
    with pytest.raises(UnsupportedStore, match=r"apart from each other.*delete the second"):
        copy(project.store, target)
    assert (state_of(target), target.forgotten()) == before


def test_a_copy_has_the_names_that_features_have_and_had(project, tmp_path):
    project.store.rename("spend", "spending")
    first, bucket = LocalStore(tmp_path / "first"), in_bucket(MemoryObjects(), tmp_path)
    later = LocalStore(tmp_path / "later")
    copy(project.store, first)
    assert first.renames() == project.store.renames()
    copy(first, bucket)
    copy(bucket, later)
    project.store.rename("spending", "user_spend")
    for store in (first, bucket, later):
        assert [each.before for each in copy(project.store, store)] == [4]
        assert store.features() == ["user_spend"]
        assert store.renames() == project.store.renames()
        assert store.renames().formerly("user_spend") == ("spending", "spend")
        assert verify(store, ["user_spend"]) == []
    rollback(first, "user_spend", "1.0.0")
    project.store.rename("user_spend", "spend")
    with pytest.raises(UnsupportedStore, match="not as they were left"):
        copy(project.store, first)
    assert first.features() == ["user_spend"]
    copy(project.store, bucket)
    assert state_of(bucket) == state_of(project.store)


def test_a_place_that_renames_nothing_says_what_to_do(project, tmp_path, monkeypatch):
    target = LocalStore(tmp_path / "copy")
    copy(project.store, target)
    project.store.rename("spend", "spending")
    monkeypatch.setattr(LocalStore, "rename", Store.rename)
    with pytest.raises(UnsupportedStore, match=r"it was named spend.*delete the copy there"):
        copy(project.store, target)


def test_versions_of_services_come_along_that_no_lock_names(project, tmp_path):
    for store in (in_bucket(MemoryObjects(), tmp_path), LocalStore(tmp_path / "copy")):
        for version in ("1.0.0", "1.1.0"):
            project.store.create_service_version(
                "checkout", Version.parse(version), {"is": version}
            )
        copy(project.store, store)
        assert store.services() == ["checkout"]
        assert store.service_versions("checkout") == project.store.service_versions("checkout")


def test_a_copy_that_is_killed_before_it_is_verified_is_ended_by_the_same_call(
    project: Project, tmp_path: Path
) -> None:
    source, target = project.store, LocalStore(tmp_path / "copy")
    failpoints.arm("copy.copied", _killed)
    try:
        with pytest.raises(KeyboardInterrupt):
            copy(source, target)
    finally:
        failpoints.disarm()
    [copied] = copy(source, target)
    assert copied.before == len(copied.versions) == 4
    assert state_of(target) == state_of(source)
    assert verify(target, ["spend"]) == []


def test_what_another_machine_has_forgotten_goes_from_the_copy_though_the_cache_here_has_it(
    project, tmp_path
):
    objects, target = MemoryObjects(), LocalStore(tmp_path / "copy")
    copy(project.store, in_bucket(objects, tmp_path))
    here, elsewhere = (in_bucket(objects, tmp_path, machine) for machine in ("here", "elsewhere"))
    copy(here, target)
    before = target.partials("spend")
    forget(project.on(elsewhere).definitions(), entities_of(elsewhere, ["user_id=7"]))
    [copied] = copy(here, target)
    assert copied.erased == ("1.0.0", "1.0.1", "1.0.2", "1.0.3")
    assert not before & target.kept_partials("spend")
    for version in target.versions("spend"):
        assert 7 not in target.read("spend", str(version))["user_id"]
