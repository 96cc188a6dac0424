"""Many processes build one feature from changing sources while others read it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from mlforge import Definitions
from mlforge.core import clock
from mlforge.core.disk import hash_file
from mlforge.errors import VersionConflict
from mlforge.maintenance.operations import verify
from mlforge.store import LocalStore
from tests.support import crashes
from tests.support.crashes import NOW, SMALL, definitions, start
from tests.support.projects import rows


class Unlocked(LocalStore):
    """As if locks did nothing, which some file systems do."""

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        self._folder(name).mkdir(parents=True, exist_ok=True)
        yield


def replace_file(root: Path, name: str, frame: pl.DataFrame) -> None:
    """Put a file there in one step, as a careful producer does."""
    hidden = root / "events" / f".{name}"
    frame.write_parquet(hidden)
    hidden.rename(root / "events" / f"{name}.parquet")


def build_again_and_again(root: Path, builder: int, rounds: int, locked: bool) -> None:
    """Change a file of one's own, build, and note the versions made."""
    chance = random.Random(builder)
    made = definitions(root)
    if not locked:
        made = Definitions(Unlocked(root / "store"), list(made.features.values()), root=root)
    published = []
    for turn in range(rounds):
        days = [chance.uniform(0, 40) for _ in range(chance.randrange(1, 6))]
        replace_file(root, f"own{builder}", rows(*((builder, day, float(turn)) for day in days)))
        while True:
            try:
                with clock.fixed(NOW):
                    result = made.refresh("spend", options=SMALL)
                break
            except VersionConflict:
                assert not locked, "whoever holds the lock wins"
        if result.changed:
            published.append(f"{result.version}\n")
    (root / f"published{builder}").write_text("".join(published))


def read_until_the_end(root: Path) -> None:
    """Whatever is read is a whole version: its parts are those that its manifest tells of."""
    store = LocalStore(root / "store")
    reads, generation = 0, 0
    while not (root / "stop").exists() or not reads:
        pointer = store.pointer("spend")
        if pointer is None:
            continue
        assert pointer.generation >= generation
        generation = pointer.generation
        manifest = store.manifest("spend", pointer.version)
        files = store.files("spend", pointer.version)
        assert [hash_file(Path(file)) for file in files] == [p.hash for p in manifest.parts]
        frame = store.read("spend", str(pointer.version))
        assert frame.height == manifest.row_count
        assert frame["at"].is_sorted()
        assert store.read("spend").height
        reads += 1


def compete(root: Path, *, builders: int, readers: int, rounds: int, locked: bool = True) -> None:
    """Run them, and judge what they leave."""
    crashes.drop(root, "base", *((user, day, 1.0) for day in range(40) for user in range(5)))
    reading = [start(read_until_the_end, root) for _ in range(readers)]
    building = [
        start(build_again_and_again, root, number, rounds, locked) for number in range(builders)
    ]
    for process in building:
        process.join(240)
    (root / "stop").touch()
    for process in reading:
        process.join(60)
    assert [process.exitcode for process in (*building, *reading)] == [0] * (builders + readers)

    published = [v for n in range(builders) for v in (root / f"published{n}").read_text().split()]
    store = LocalStore(root / "store")
    assert sorted(published) == sorted(store.list_versions("spend")), "doubled or lost"
    pointer = store.pointer("spend")
    assert pointer is not None
    assert (str(pointer.version), pointer.generation) == (
        store.list_versions("spend")[-1],
        len(published),
    )
    assert verify(store, ["spend"]) == []
    rebuilt = root / "rebuilt"
    rebuilt.mkdir()
    (rebuilt / "events").symlink_to(root / "events")
    crashes.build(rebuilt)
    crashes.build(root)
    expected = LocalStore(rebuilt / "store")
    assert store.read("spend").equals(expected.read("spend"))
    assert store.read_metadata("spend").rows_hash == expected.read_metadata("spend").rows_hash
    assert list(store.path.rglob(".staged-*")) == []


def test_builders_and_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    compete(tmp_path, builders=4, readers=2, rounds=4)


def test_without_locks_one_publisher_wins_and_the_others_redo_their_decision(
    tmp_path: Path,
) -> None:
    compete(tmp_path, builders=3, readers=1, rounds=3, locked=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_builders_and_four_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    compete(tmp_path, builders=8, readers=4, rounds=12)
