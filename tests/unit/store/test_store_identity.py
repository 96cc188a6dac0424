"""A store's identity: made once, kept through moves, never guessed where its file is damaged."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlforge.core import clock
from mlforge.errors import IntegrityError, StoreError, UnsupportedStore
from mlforge.store import LocalStore, StoreIdentity
from mlforge.store.local import io
from mlforge.store.objects import apart
from mlforge.testing.store_values import FIRST, publish


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def document(store: LocalStore) -> Path:
    return store.path / "_metadata" / "store.json"


def test_the_document_holds_an_id_and_the_instant_of_its_making(store):
    made = store.establish()
    written = json.loads(document(store).read_text())
    assert set(written) == {"id", "created_at"}
    assert written["id"] == made.id
    assert written["created_at"].endswith("Z")
    assert abs(clock.now() - made.created_at) < 60_000_000


def test_it_moves_with_the_folder_and_two_stores_differ(store, tmp_path):
    publish(store, FIRST, 1)
    made = store.identity()
    shutil.move(store.path, tmp_path / "moved")
    assert LocalStore(tmp_path / "moved").identity() == made
    assert store.identity() is None
    assert LocalStore(tmp_path / "other").establish() != made


def test_a_folder_made_anew_is_another_store_also_to_an_open_one(store):
    made = store.establish()
    shutil.rmtree(store.path)
    assert store.identity() is None
    assert store.establish() != made
    assert LocalStore(store.path).identity() == store.identity()


def test_racing_creators_agree(store):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: LocalStore(store.path).establish(), range(32)))
    assert set(made) == {LocalStore(store.path).identity()}
    assert [path.name for path in document(store).parent.iterdir()] == ["store.json"]


def test_a_creator_on_another_host_wins_once_its_file_is_there(store, monkeypatch):
    """Locks of hosts do not see each other: the name itself decides."""
    winner = StoreIdentity("winner-of-the-race", 1)

    def other_host(*_):
        text = '{"id": "winner-of-the-race", "created_at": "1970-01-01T00:00:00.000001Z"}'
        document(store).write_text(text)

    monkeypatch.setattr(io, "reach", other_host)
    assert store.establish() == winner
    assert store.identity() == winner


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 200_000, "\x00", "[]", "null", "1", '"x"', "{}", '{"id": "abcdefgh"}']
    + [
        json.dumps({"id": id_, "created_at": "2026-01-01T00:00:00Z"})
        for id_ in ("", "short", "a/../b-long-enough", "with space", 12345678, None, "x" * 65)
    ]
    + ['{"id": "abcdefgh", "created_at": "yesterday"}', '{"id": "abcdefgh", "created_at": 5}'],
)
def test_a_damaged_document_is_an_error_and_is_never_replaced(store, text):
    store.establish()
    document(store).write_text(text)
    for opened in (store, LocalStore(store.path)):
        for ask in (opened.identity, opened.establish):
            with pytest.raises(IntegrityError, match=r"store\.json is damaged"):
                ask()
    with pytest.raises(IntegrityError, match=r"restore it from a backup, or delete it"):
        publish(store, FIRST, 1)
    assert document(store).read_text() == text


def test_a_document_of_a_newer_release_is_left_alone(store):
    store.establish()
    document(store).write_text('{"format": 2, "id": "abcdefgh"}')
    with pytest.raises(UnsupportedStore, match="format 2"):
        store.establish()


def test_a_link_in_its_place_is_refused(store, tmp_path):
    store.establish()
    document(store).rename(tmp_path / "elsewhere.json")
    document(store).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(StoreError, match="link"):
        LocalStore(store.path).identity()


def test_a_store_of_before_gets_one_with_its_next_write(store):
    publish(store, FIRST, 1)
    document(store).unlink()
    assert store.identity() is None
    with store.lock("spend"):
        pass
    assert store.identity() is not None
    assert store.features() == ["spend"]


@pytest.mark.parametrize(
    ("place", "scheme"),
    [
        ("s3://bucket/store", "s3"),
        ("S3://bucket", "S3"),
        ("gs://bucket/a/b", "gs"),
        ("s3:/bucket", "s3"),
        (" az://c/store", "az"),
        ("file:///srv/store", "file"),
        ("https://host/store", "https"),
        ("abfss://c@host/store", "abfss"),
        (Path("s3://bucket/store"), "s3"),
    ],
)
def test_an_address_with_a_scheme_is_refused_by_name(place, scheme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedStore, match=rf"knows no '{scheme}'; give a folder"):
        LocalStore(place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["store", "./a:b/store", "/srv/s3:/store", "c:/store", "a:b"])
def test_a_folder_is_no_address(place):
    assert str(LocalStore(place).path).endswith(place.removeprefix("./"))


def test_a_process_that_asks_a_bucket_imports_nothing_of_the_folder_that_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the project')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="s3://: cannot open it"):
        apart.ask("identity", "s3://", None, tmp_path)
