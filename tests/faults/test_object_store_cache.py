"""The cache of a store in a bucket: whatever becomes of its files, answers are right, and what is needed is fetched again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge import get_training_data
from mlforge.build import refresh
from mlforge.core import failpoints
from mlforge.errors import IntegrityError, StoreError, VersionConflict
from mlforge.maintenance.operations import verify
from mlforge.store import ObjectStore
from mlforge.store.local.packs import Packing
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, at, rows

DAYS = 12
PACKS = Packing(small_rows=10_000, at_least=2, pack_rows=100, grace_s=0)


class Shop:
    """A store of some days' drops, and a machine whose cache has all that it keeps."""

    def __init__(self, root: Path) -> None:
        self.objects = MemoryObjects()
        self.root, self.project = root, Project(root / "project")
        for day in range(DAYS):
            self.drop(day)
            self.refresh()

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def store(self, name: str = "cache") -> ObjectStore:
        objects = MemoryObjects(self.objects.stored)
        return ObjectStore("s3://memory/store", self.root / name, packing=PACKS, objects=objects)

    def drop(self, day: int) -> None:
        self.project.drop(str(day), rows(*((user, day + user / 100, 1.0) for user in range(9))))

    def refresh(self, name: str = "cache") -> None:
        definitions = self.project.on(self.store(name)).definitions()
        definitions.refresh("spend")

    def answers(self, name: str = "cache") -> tuple[pl.DataFrame, pl.DataFrame]:
        """The served table, and training values at some instants."""
        spine = pl.DataFrame(
            {"user_id": list(range(10)), "at": [at(5.5 + n / 3) for n in range(10)]}
        )
        store = self.store(name)
        return store.read("spend"), get_training_data(spine, ["spend"], store=store)

    def files(self) -> list[Path]:
        return sorted(path for path in self.cache.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.answers()
    return shop


@pytest.fixture
def shop(filled: Shop) -> Shop:
    """The shop, whose cache is put back as it was afterwards."""
    kept = filled.root / "kept"
    if not kept.exists():
        shutil.copytree(filled.cache, kept)
    shutil.rmtree(filled.cache, ignore_errors=True)
    shutil.copytree(kept, filled.cache)
    return filled


def garbage(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"garbage")


def empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, min(len(data), len(data) // 3 + 8)):
        data[place] ^= 0xFF
    path.write_bytes(data)


DAMAGES = [
    flipped,
    *(pytest.param(each, marks=pytest.mark.slow) for each in (Path.unlink, garbage, empty, half)),
]
KINDS = [
    "_parts",
    "_partials",
    "_packs",
    "_tiles",
    "_lineage",
    ".meta.json",
    "store.json",
    "probed",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_missing_file_of_the_cache_changes_no_answer(
    shop: Shop, damage: Callable[[Path], object]
) -> None:
    right = shop.answers("elsewhere")
    for kind in KINDS:
        hit = [path for path in shop.files() if kind in path.parts[-2:]]
        for path in hit:
            damage(path)
        for got, expected in zip(shop.answers(), right, strict=True):
            assert_frame_equal(got, expected)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_drop_after_any_damage_makes_the_version_that_it_would_have_made(
    shop: Shop, damage: Callable[[Path], object]
) -> None:
    for path in shop.files():
        damage(path)
    shop.refresh()
    store = shop.store("fresh")
    assert verify(store, ["spend"]) == []
    assert store.list_versions("spend") == [f"1.0.{n}" for n in range(DAYS)]
    for got, expected in zip(shop.answers(), shop.answers("fresh"), strict=True):
        assert_frame_equal(got, expected)


STEPS = ["file.synced", "partial.written", "stage.made", "parts.written", "publish.staged"]


@pytest.mark.parametrize(
    "step", ["publish.renamed", *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS)]
)
def test_a_cache_that_is_deleted_amid_a_drop_loses_nothing(tmp_path: Path, step: str) -> None:
    shop = Shop(tmp_path)
    reached = []

    def delete() -> None:
        failpoints.disarm()
        reached.append(step)
        for path in shop.files():
            path.unlink(missing_ok=True)

    shop.drop(DAYS)
    failpoints.arm(step, delete)
    try:
        shop.refresh()
    except (StoreError, OSError):  # the next refresh is right
        shop.refresh()
    finally:
        failpoints.disarm()
    assert reached
    shop.refresh()
    assert shop.store("fresh").read("spend").height == 9 * (DAYS + 1)
    assert verify(shop.store("fresh"), ["spend"]) == []


def test_a_refresh_that_meets_damage_at_its_last_attempt_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    failures = iter([*[VersionConflict("faster")] * 4, IntegrityError("damaged")])

    def fail(self: object) -> None:
        raise next(failures)

    monkeypatch.setattr(refresh._Refresh, "run", fail)
    with pytest.raises(IntegrityError, match="damaged"):
        shop.refresh()
