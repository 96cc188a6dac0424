"""No name, version, link or document leads out of the store, for reading or for writing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, feature
from mlforge.core.values import Version
from mlforge.errors import DefinitionError, IntegrityError, MlforgeError, StoreError
from mlforge.maintenance.operations import pin, prune, rollback, verify
from mlforge.maintenance.retention import Retention
from mlforge.store import Books, FileStateMap, LocalStore, Snapshot
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.partial_json import partial_to_json
from mlforge.testing.store_values import FIRST, SECOND, events, partial_of, publish
from tests.support.projects import Project, identity, rows

NAMES = [
    "..", ".", "", "../outside", "a/../../outside", "/etc/passwd", "a/b", "a\\b", "a\x00b", "a\nb",
    "_metadata", "_partials", ".hidden", "-rf", "~root", "$HOME", "a" * 101, "a" * 100_000, "é",
    "\u202eabc", "a b", "a:b", "a*", "con.", "\uff11",
]  # fmt: skip
VERSIONS = [
    "../x", "../1.0.0", "1.0.0/../../../outside", "/1.0.0", "1.0.0\x00", "1.0.0\n", "1.0.-1", "1..0",
    "_partials", ".staged-x", "9" * 5_000 + ".0.0", "\uff11.0.0", "1.0.0 ", "",
]  # fmt: skip
HASHES = ["../../etc/passwd", "a/b", "..", "", "a.b", "a\x00", "a" * 500, "*", "é"]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may read from or write to; that nobody wrote is seen to."""
    folder = tmp_path / "outside"
    (folder / "1.0.0").mkdir(parents=True)
    (folder / "data.parquet").mkdir()
    events(666).write_parquet(folder / "secret.parquet")
    events(666).write_parquet(folder / "data.parquet" / "a.parquet")
    (folder / "secret.json").write_text('{"version": "6.6.6", "generation": 666}')
    before = tree(folder)
    yield folder
    assert tree(folder) == before


@pytest.fixture
def store(tmp_path: Path, outside: Path) -> Iterator[LocalStore]:
    """A store with a feature of two versions and a partial."""
    made = LocalStore(tmp_path / "store")
    publish(made, FIRST, 1)
    publish(made, SECOND, 1, 2)
    with made.lock("spend"):
        made.write_partials("spend", [PartialWrite(partial_of(events(1, 2)), events(1, 2))])
    yield made
    assert {path.name for path in tmp_path.iterdir()} <= {"store", "outside", "events", "away"}


def tree(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refusal(ask: Callable[[], Any]) -> str:
    """What the store says when it refuses; empty if it does not."""
    try:
        ask()
    except (DefinitionError, StoreError) as error:
        return str(error)
    return ""


def everything(store: LocalStore, name: str) -> dict[str, Callable[[], Any]]:
    """All that can be asked of a feature by its name."""

    def locked() -> None:
        with store.lock(name):
            pass

    def staged() -> None:
        with store.transaction(Snapshot(name, None, None, (), Books(), {})):
            pass

    return {
        "versions": lambda: store.versions(name),
        "list_versions": lambda: store.list_versions(name),
        "pointer": lambda: store.pointer(name),
        "latest": lambda: store.latest(name),
        "read": lambda: store.read(name),
        "read_metadata": lambda: store.read_metadata(name),
        "manifest": lambda: store.manifest(name, FIRST),
        "location": lambda: store.location(name, FIRST),
        "files": lambda: store.files(name, FIRST),
        "locate": lambda: store.locate(name, ["a1"]),
        "find_partial": lambda: store.find_partial(name, "a1"),
        "partials": lambda: store.partials(name),
        "write_partials": lambda: store.write_partials(
            name, [PartialWrite(partial_of(events(1)), events(1))]
        ),
        "remove_partials": lambda: store.remove_partials(name, ["a1"]),
        "remove": lambda: store.remove(name, FIRST),
        "serve": lambda: store.serve(name, FIRST),
        "books": lambda: store.books(name),
        "write_books": lambda: store.write_books(name, Books()),
        "file_states": lambda: store.file_states(name),
        "write_file_states": lambda: store.write_file_states(name, FileStateMap()),
        "recover": lambda: store.recover(name),
        "lock": locked,
        "stage": staged,
        "rollback": lambda: rollback(store, name),
        "pin": lambda: pin(store, name),
        "prune": lambda: prune(store, [name], Retention(newest=0)),
        "verify": lambda: verify(store, [name]),
    }


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_a_name_that_could_lead_elsewhere_is_refused_by_everything(
    store: LocalStore, name: str
) -> None:
    before = tree(store.path)
    refusals = ("is not allowed; use letters", "must be a text, not ''")
    for what, ask in everything(store, name).items():
        assert any(text in refusal(ask) for text in refusals), what
    assert tree(store.path) == before


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_no_feature_can_be_defined_with_such_a_name(name: str) -> None:
    if not name:
        pytest.skip("an empty name stands for the function's own")
    with pytest.raises(DefinitionError, match="is not allowed; use letters"):
        feature(keys=["user_id"], source="events", name=name)(identity)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: repr(version)[:20])
def test_a_version_that_could_lead_elsewhere_is_refused(store: LocalStore, version: str) -> None:
    before = tree(store.path)
    for ask in (store.read, store.read_metadata, store.resolve):
        with pytest.raises(StoreError, match=r"is not a version|no version"):
            ask("spend", version)
    for change in (rollback, pin):
        with pytest.raises(StoreError, match=r"is not a version|no version"):
            change(store, "spend", version)
    assert tree(store.path) == before


@pytest.mark.parametrize("version", VERSIONS[:-1], ids=lambda version: repr(version)[:20])
def test_a_build_under_such_a_version_is_refused(tmp_path: Path, version: str) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    with pytest.raises(MlforgeError, match="is not a version"):
        project.build(version=version)
    assert project.store.features() == []


@pytest.mark.parametrize("hash_", HASHES, ids=lambda hash_: repr(hash_)[:20])
def test_a_partial_that_could_lie_elsewhere_is_refused(store: LocalStore, hash_: str) -> None:
    for ask in (store.locate, store.check_partials, store.remove_partials):
        with pytest.raises(StoreError, match="is not a partial's hash"):
            ask("spend", [hash_])
    with pytest.raises(StoreError, match="is not a partial's hash"):
        store.find_partial("spend", hash_)
    with pytest.raises(StoreError, match="is not a partial's hash"):
        store.write_partials("spend", [PartialWrite(partial_of(events(1), hash_), events(1))])


def forge(store: LocalStore, **changes: Any) -> None:
    """Change the document of the served version, as somebody with write access could."""
    path = store.path / "spend" / "1.0.1" / ".meta.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


@pytest.mark.parametrize(
    "file",
    [
        "../../etc/passwd", "/etc/passwd", "../../../outside/secret.parquet", "secret.parquet",
        "data.parquet/../../../../outside/secret.parquet", "data.parquet/..", "data.parquet/",
        "data.parquet//etc/passwd", "data.parquet/a/b.parquet", "data.parquet/.x", ".meta.json", "",
        "data.parquet\x00", "data.parquet\n", "../1.0.0/data.parquet", 7, None, ["data.parquet"],
    ],
    ids=repr,
)  # fmt: skip
def test_a_part_outside_its_version_is_not_read(store: LocalStore, file: Any) -> None:
    part = json.loads((store.path / "spend" / "1.0.1" / ".meta.json").read_text())["parts"][0]
    forge(store, parts=[{**part, "file": file}])
    for ask in (store.read, store.read_metadata, store.latest):
        with pytest.raises(IntegrityError, match=r"1\.0\.1/\.meta\.json is damaged"):
            ask("spend")
    assert verify(store, ["spend"])


@pytest.mark.parametrize("hash_", [*HASHES[:-1], 7, None], ids=lambda hash_: repr(hash_)[:20])
def test_a_manifest_that_names_partials_elsewhere_is_refused(store: LocalStore, hash_: Any) -> None:
    partial = partial_of(events(1, 2))

    def paths() -> list[Path]:
        return [
            Path(store.locate("spend", [p.hash])[0].file)
            for p in store.read_metadata("spend").partials
        ]

    forge(store, partials=[partial_to_json(partial)])
    assert paths()  # as it may be
    forge(store, partials=[{**partial_to_json(partial), "hash": hash_}])
    with pytest.raises(StoreError):
        paths()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../outside"},
        {"name": "other"},
        {"version": "../x"},
        {"version": "1.0.0"},
        {"version": None},
        {"parent": "../x"},
        {"entity_keys": 7},
        {"interval": "1 fortnight"},
        {"columns": [{"name": "x", "dtype": "__import__('os')"}, 3]},
        {"sources": {"a": 1}},
    ],
    ids=str,
)
def test_a_forged_manifest_is_an_error_that_names_it(
    store: LocalStore, changes: dict[str, Any]
) -> None:
    forge(store, **changes)
    with pytest.raises(IntegrityError, match=r"1\.0\.1/\.meta\.json is"):
        store.read("spend")
    assert verify(store, ["spend"])


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "7", "null7", '"1.0.0"', "{}", '{"version": "../x", "generation": 1}',
        '{"version": "/etc", "generation": 1}', '{"version": "1.0.0"}',
        '{"version": "1.0.0", "generation": "many"}', '{"version": 1, "generation": 1}',
        '{"version": "1.0.0", "generation": 1, "highest": "../x"}', "[" * 100_000,
    ],
    ids=lambda content: content[:40],
)  # fmt: skip
def test_a_pointer_that_makes_no_sense_is_an_error_that_names_it(
    store: LocalStore, content: str
) -> None:
    (store.path / "spend" / "_latest.json").write_text(content)
    for ask in (store.pointer, store.latest, store.read):
        with pytest.raises(IntegrityError, match=r"_latest\.json is damaged"):
            ask("spend")
    assert store.read("spend", "1.0.0").height == 1


def test_a_pointer_to_a_version_that_is_not_there_says_which_there_are(store: LocalStore) -> None:
    (store.path / "spend" / "_latest.json").write_text('{"version": "7.0.0", "generation": 9}')
    with pytest.raises(StoreError, match=r"no version 7\.0\.0; there are: 1\.0\.0, 1\.0\.1"):
        store.read("spend")


# Links


def test_a_version_that_is_a_link_is_none(store: LocalStore, outside: Path) -> None:
    (store.path / "spend" / "1.0.2").symlink_to(outside)
    (store.path / "spend" / "1.0.3").symlink_to(store.path / "spend" / "1.0.0")
    assert store.list_versions("spend") == ["1.0.0", "1.0.1"]
    for version in ("1.0.2", "1.0.3"):
        with pytest.raises(StoreError, match="is a link, and a store follows none"):
            store.read("spend", version)
    with store.lock("spend"):
        assert str(store.read_metadata("spend").version) == "1.0.1"


def test_a_version_is_not_published_through_a_link(store: LocalStore, outside: Path) -> None:
    for target in (outside, outside / "not there"):
        link = store.path / "spend" / "2.0.0"
        link.symlink_to(target)
        with pytest.raises(StoreError, match="is a link"):
            publish(store, Version(2, 0, 0), 1)
        link.unlink()


@pytest.mark.parametrize("what", ["secret.parquet", "data.parquet"])
def test_data_that_is_a_link_is_not_read(store: LocalStore, outside: Path, what: str) -> None:
    path = store.path / "spend" / "1.0.1" / "data.parquet"
    path.unlink()
    path.symlink_to(outside / what)
    with pytest.raises(StoreError, match="is a link"):
        store.read("spend")


def test_a_part_that_is_a_link_is_not_read(store: LocalStore, outside: Path) -> None:
    path = store.path / "spend" / "1.0.1" / "data.parquet"
    path.unlink()
    path.mkdir()
    (path / "a.parquet").symlink_to(outside / "secret.parquet")
    part = json.loads((path.parent / ".meta.json").read_text())["parts"][0]
    forge(store, parts=[{**part, "file": "data.parquet/a.parquet"}])
    with pytest.raises(StoreError, match="is a link"):
        store.read("spend")


def test_a_feature_that_is_a_link_is_neither_read_nor_written(
    store: LocalStore, outside: Path
) -> None:
    (store.path / "spend").rename(outside.parent / "away")
    (store.path / "spend").symlink_to(outside.parent / "away")
    (store.path / "other").symlink_to(outside)
    before = tree(outside.parent / "away")
    assert store.features() == []
    assert store.regenerate_index() == []
    for name in ("spend", "other"):
        for what, ask in everything(store, name).items():
            assert "is a link" in refusal(ask), what
    assert tree(outside.parent / "away") == before


def test_partials_elsewhere_are_neither_read_nor_written(store: LocalStore, outside: Path) -> None:
    folder = store.path / "spend" / "_partials"
    (folder / "b2.parquet").symlink_to(outside / "secret.parquet")
    assert store.partials("spend") == {"a1"}
    for ask in (
        lambda: store.locate("spend", ["b2"]),
        lambda: store.find_partial("spend", "b2"),
    ):
        assert "is a link" in refusal(ask)
    (folder / "b2.parquet").unlink()
    (folder / "a1.parquet").unlink()
    folder.rmdir()
    folder.symlink_to(outside)
    for what in ("read", "partials", "lock", "write_partials", "prune", "rollback"):
        assert "is a link" in refusal(everything(store, "spend")[what]), what


@pytest.mark.parametrize(
    "document", ["_latest.json", "_books.json", "1.0.1/.meta.json", ".publishing", ".refreshing"]
)
def test_documents_and_locks_that_are_links_are_not_followed(
    store: LocalStore, outside: Path, document: str
) -> None:
    path = store.path / "spend" / document
    path.unlink(missing_ok=True)
    for target in (outside / "secret.json", outside / "new.json"):
        path.symlink_to(target)
        ask = store.books if document == "_books.json" else store.latest
        if document.startswith("."):
            ask = lambda name: everything(store, name)["lock"]()  # noqa: E731
        with pytest.raises(StoreError, match="is a link"):
            ask("spend")
        path.unlink()


def test_an_index_elsewhere_is_neither_read_nor_written(store: LocalStore, outside: Path) -> None:
    folder = store.path / "_metadata"
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to(outside / "secret.json")
    with pytest.raises(StoreError, match="is a link"):
        store.index()
    (folder / "manifest.json").unlink()
    (folder / "store.json").unlink()
    folder.rmdir()
    folder.symlink_to(outside)
    for ask in (store.index, store.regenerate_index, store.identity, store.establish):
        with pytest.raises(StoreError, match="is a link"):
            ask()


def test_a_store_may_itself_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "store")
    publish(store, FIRST, 1)
    assert store.read("spend").equals(events(1))
    assert (tmp_path / "disk" / "spend" / "1.0.0").is_dir()


def test_a_file_that_was_put_among_the_parts_is_not_read(store: LocalStore) -> None:
    folder = store.path / "spend" / "1.0.1" / "data.parquet"
    whole = folder.read_bytes()
    folder.unlink()
    folder.mkdir()
    (folder / "a.parquet").write_bytes(whole)
    part = json.loads((folder.parent / ".meta.json").read_text())["parts"][0]
    forge(store, parts=[{**part, "file": "data.parquet/a.parquet"}])
    events(666).write_parquet(folder / "b.parquet")
    assert store.read("spend").equals(events(1, 2))


def test_something_else_in_the_place_of_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.path.mkdir()
    (store.path / "spend").write_text("a file")
    with pytest.raises(StoreError, match="cannot write"):
        publish(store, FIRST, 1)
    with pytest.raises(StoreError):
        store.read("spend")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError, match="cannot write"):
        publish(LocalStore(tmp_path / "file"), FIRST, 1)


def test_a_build_does_not_take_a_link_for_what_it_computed_before(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    [partial] = project.store.read_metadata("spend").partials
    path = Path(project.store.locate("spend", [partial.hash])[0].file)
    rows((1, 0, 666.0)).write_parquet(tmp_path / "secret.parquet")
    path.unlink()
    path.symlink_to(tmp_path / "secret.parquet")
    project.drop("b", rows((2, 1, 1.0)))
    with pytest.raises(MlforgeError, match="is a link, and a store follows none"):
        project.build()
    path.unlink()
    project.build()
    assert project.store.read("spend")["amount__sum__7d"].to_list() == [1.0, 1.0]
    assert pl.read_parquet(tmp_path / "secret.parquet")["amount"].to_list() == [666.0]


def test_definitions_may_not_place_a_store_in_a_source(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    with pytest.raises(StoreError, match="lies inside the source"):
        Definitions(LocalStore(project.events / "store"), [project.define()], root=project.root)
