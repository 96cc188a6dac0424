"""A project of a file a day whose tiles and sets are kept beside its events, however few those are, and what is read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Feature, get_training_data
from mlforge.engines.tiles import build
from mlforge.store import LocalStore, file_tasks
from mlforge.store.local.packs import Packing
from tests.support import kernels
from tests.support.projects import Project, at

DAYS, USERS = 12, 3
SPINE = pl.DataFrame(
    [{"user_id": user, "at": at(day / 2)} for day in range(2 * DAYS + 20) for user in range(5)]
)
ENGINES = ["polars", pytest.param("duckdb", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def tiled() -> Iterator[None]:
    """Tiles and sets of all that is aligned."""
    with kernels.forced(tiled=True):
        yield


def daily(
    root: Path,
    events: Callable[[int], pl.DataFrame],
    feature: Callable[[Project], Feature],
    engine: str = "polars",
    at_least: int = 1_000,
) -> Project:
    """A project in a new folder, built of one file a day. at_least: how many files its store packs, by default more than there are."""
    project = Project(root, engine)
    project.store = LocalStore(root / "store", Packing(at_least=at_least, grace_s=0))
    for day in range(DAYS):
        project.drop(f"d{day:02d}", events(day))
    with kernels.forced(tiled=True):
        project.build(feature(project))
    return project


@pytest.fixture(scope="module", params=ENGINES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A version of one file a day: of the `events` and the feature `aligned` of the test's module."""
    module, root = request.module, tmp_path_factory.mktemp("built") / "p"
    return daily(root, module.events, module.aligned, request.param)


@pytest.fixture(name="project")
def own_copy(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "p")


@pytest.fixture(name="read")
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of events that were read."""
    files: list[Path] = []
    original = file_tasks.scan

    def watched(tasks: Any, *arguments: Any, **options: Any) -> pl.LazyFrame:
        files.extend(Path(task.file) for task in tasks)
        return original(tasks, *arguments, **options)

    monkeypatch.setattr(file_tasks, "scan", watched)
    return files


def training(project: Project, version: str | None = None) -> pl.DataFrame:
    """Training data of the feature at the spine's instants, which reach beyond the last event."""
    feature: Any = "spend" if version is None else ("spend", version)
    return get_training_data(SPINE, [feature], project.store, engine=project.engine)


def of_events(project: Project) -> pl.DataFrame:
    """Training data of the events themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "tiles", lambda *_: {})
        patch.setattr(build, "FEWEST", 1 << 60)
        return training(project)


def flipped(content: bytes) -> bytes:
    """Bytes of which one bit is another."""
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "another's": lambda path: pl.DataFrame({"x": [1]}).write_parquet(path),
}
"""Ways in which a file may be lost, by name."""
