"""Processes of their own for tests that kill them or run many at once.

They are forked from a server that has everything imported, so that one costs milliseconds.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import structlog

from mlforge import Definitions, Service
from mlforge.build.refresh import Options
from mlforge.build.rows import Layout
from mlforge.core import clock, failpoints
from mlforge.core.lock import Lock
from mlforge.core.values import Version, to_us
from mlforge.maintenance.exporting import export
from mlforge.maintenance.operations import prune, rollback, tidy
from mlforge.maintenance.retention import Retention
from mlforge.online import RedisStore
from mlforge.registry.forgetting import entities_of, forget
from mlforge.store import LocalStore
from mlforge.store.lakehouse.targets import target_at
from mlforge.store.local.packs import Packing
from tests.support.kernels import forced
from tests.support.projects import Project, at
from tests.support.projects import rows as rows_of

SMALL = Options(layout=Layout(part_rows=8))
TINY_PACKS = Packing(small_rows=5, at_least=2, pack_rows=9, grace_s=0)
NOW = to_us(at(60))


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Run a function in a process of its own."""
    process = _context().Process(target=_quietly, args=(work, *arguments), daemon=True)
    process.start()
    return process


def _quietly(work: Callable[..., None], *arguments: Any) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    work(*arguments)


def killed(root: Path, job: str, place: str, nth: int, *arguments: Any) -> bool:
    """Run a job that is killed when it reaches a place for the nth time; False if it never does."""
    process = start(_die_at, root, job, place, nth, *arguments)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), f"{job} ended with {process.exitcode}"
    return process.exitcode == -signal.SIGKILL


def _die_at(root: Path, job: str, place: str, nth: int, *arguments: Any) -> None:
    times = 0

    def die() -> None:
        nonlocal times
        times += 1
        if times == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.arm(place, die)
    JOBS[job](root, *arguments)


def definitions(
    root: Path, url: str | None = None, prefix: str = "mlforge", **changes: Any
) -> Definitions:
    """The usual feature of a project that lies there, or one that differs from it."""
    project = Project.__new__(Project)
    project.root, project.engine = root, "polars"
    project.events, project.store = root / "events", LocalStore(root / "store")
    online = RedisStore.from_url(url, prefix=prefix) if url else None
    return project.definitions(project.define(**changes), online_store=online)


def tidy_up(root: Path) -> None:
    """Pack what lies loose, and delete what packs stand in for."""
    tidy(packing(root), "spend")


def packing(root: Path) -> LocalStore:
    """The project's store, with packs of a few rows."""
    return LocalStore(root / "store", TINY_PACKS)


def build(root: Path) -> None:
    """Refresh the feature, as parts of a few rows."""
    with clock.fixed(NOW), forced(small_files=True):
        definitions(root).refresh("spend", options=SMALL)


def build_tiled(root: Path) -> None:
    """The same of a feature whose windows are put together from tiles, however few events there are."""
    with clock.fixed(NOW), forced(tiled=True):
        definitions(root, interval="1d").refresh("spend", options=SMALL)


def push(root: Path, url: str, prefix: str = "mlforge") -> None:
    """Bring the online store to what is served."""
    with clock.fixed(NOW):
        definitions(root, url, prefix).push("spend")


def roll_back(root: Path) -> None:
    """Go back to the first version."""
    rollback(LocalStore(root / "store"), "spend", "1.0.0")


def prune_all(root: Path) -> None:
    """Keep the served version alone."""
    prune(LocalStore(root / "store"), ["spend"], Retention(newest=1))


def prune_packs(root: Path) -> None:
    """The same, where a pack is written anew without what goes."""
    prune(packing(root), ["spend"], Retention(newest=1))


def erase(root: Path, name: str = "spend") -> None:
    """Delete the feature with all that is kept of it."""
    store = LocalStore(root / "store")
    with store.lock(name):
        store.erase(name)


def rename(root: Path) -> None:
    """Give the feature another name."""
    LocalStore(root / "store").rename("spend", "outlay")


def lock_of(store: LocalStore) -> Lock:
    """A lock of the feature's columns, as they are served."""
    with clock.fixed(NOW):
        return Service("model", ["spend"]).lock(store)


def register_lock(root: Path) -> None:
    """Keep that lock in the store under a model's name."""
    store = LocalStore(root / "store")
    store.register_lock("fraud", lock_of(store))


def keep_service(root: Path) -> None:
    """Keep a version of a service."""
    LocalStore(root / "store").create_service_version("model", Version(1, 0, 0), {"kept": True})


def forget_user(root: Path, url: str, prefix: str) -> None:
    """Forget one of the users, in a store whose events lie in packs of a few rows, and online."""
    shop = definitions(root, url, prefix)
    shop.store = packing(root)
    with clock.fixed(NOW):
        forget(shop, entities_of(shop.store, ["user_id=1"]))


def export_versions(root: Path, kind: str, folder: str) -> None:
    """Write all versions to a table."""
    export(LocalStore(root / "store"), "spend", target_at(kind, folder))


JOBS: dict[str, Callable[..., None]] = {
    "export": export_versions,
    "build": build,
    "build tiled": build_tiled,
    "push": push,
    "rollback": roll_back,
    "prune": prune_all,
    "prune packs": prune_packs,
    "tidy": tidy_up,
    "erase": erase,
    "rename": rename,
    "register lock": register_lock,
    "forget": forget_user,
    "keep service": keep_service,
}


def drop(root: Path, name: str, *events: tuple[int, float, float]) -> None:
    """Put a file into the project's source."""
    path = root / "events" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows_of(*events).write_parquet(path)
