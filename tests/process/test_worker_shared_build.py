"""A full build that workers share, by real processes: some killed midway, one with other definitions, none there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlforge.store import ObjectStore, Store
from tests.support.object_servers import BUCKET, seaweed
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write
from worker.service.embedded_redis import EmbeddedServer

pytestmark = pytest.mark.slow
TASKS, FILES = 6, 12
SHARED = """
import os
import time

import mlforge.build.full
from mlforge.core import failpoints
from worker.state import shared_build

mlforge.build.full.rows_at_once = lambda spec: 40
shared_build.CLAIM_MS, shared_build.RENEW_S = 1_500, 0.4


def hold_claimed():
    while is_there("hold_claimed"):
        (HERE / f"claimed-{os.getpid()}").touch()
        time.sleep(0.01)


def fail_written():
    if os.environ.get("DISK") == "full":
        raise OSError(28, "No space left on device")


def hold_written():
    fail_written()
    while is_there("hold_written") and len(list(HERE.glob("feature_store/spend/.tasks/*.json"))) > 2:
        time.sleep(0.01)


failpoints.arm("task.claimed", hold_claimed)
failpoints.arm("task.written", hold_written)
"""
SETTINGS = {"runner": "rq", "distribute_above": 0}


def history(shop: Shop) -> None:
    """Twelve weeks, a file each, of amounts whose sums round."""
    for week in range(FILES):
        events = [
            (n % 3, (week * 7 * 24 + n * 8) * 3600, (n + 1) / 7 + week**5 / 3) for n in range(20)
        ]
        write(shop.folder / "drops" / f"w{week:02}.parquet", purchases(*events))


@pytest.fixture
def shop(server, tmp_path: Path) -> Iterator[Shop]:
    about = {
        "definitions": several({"spend": "drops/"}, settings=SETTINGS) + SHARED,
        "sources": ["drops"],
    }
    with running_shop(server, tmp_path, (), **about) as made:
        history(made)
        yield made


def results(shop: Shop) -> int:
    """The number of tasks that have a result in the store."""
    documents = shop.folder.glob("feature_store/spend/.tasks/*.json")
    return sum('"parts"' in path.read_text() for path in documents)


def is_as_at_home(shop: Shop, root: Path, store: Store | None = None) -> None:
    """The version has the bytes of a build by one process of a project without workers."""
    (root / "home").mkdir()
    home = Shop(
        root / "home",
        shop.url,
        sources=["drops"],
        definitions=several({"spend": "drops/"}) + SHARED,
    )
    history(home)
    for bad in shop.folder.glob("drops/bad*"):
        write(home.folder / "drops" / bad.name, bad.read_bytes())
    assert home.ask_apart("build").returncode == (1 if shop.store.books("spend").quarantine else 0)
    ours, theirs = (each.read_metadata("spend") for each in (store or shop.store, home.store))
    assert len(ours.parts) == TASKS
    assert [(p.file, p.hash) for p in ours.parts] == [(p.file, p.hash) for p in theirs.parts]
    assert ours.content_hash == theirs.content_hash
    assert not (shop.folder / "feature_store" / "spend" / ".tasks").exists()


def test_a_worker_that_is_killed_at_a_task_costs_no_more_than_the_task(
    shop: Shop, tmp_path: Path
) -> None:
    shop.start_rq_workers(2)
    write(shop.folder / "drops" / "bad.parquet", b"PAR1 no parquet PAR1")
    (shop.folder / "hold_claimed").touch()
    shop.start("watch")

    eventually(lambda: list(shop.folder.glob("claimed-*")))
    [held] = shop.folder.glob("claimed-*")  # the other worker is the one that builds
    os.kill(int(held.name.partition("-")[2]), signal.SIGKILL)
    (shop.folder / "hold_claimed").unlink()

    eventually(lambda: shop.versions("spend") == ["1.0.0"])
    assert shop.log("a task was lost and is run again")
    assert [*shop.store.books("spend").quarantine] == ["bad.parquet"]
    is_as_at_home(shop, tmp_path)


def test_a_worker_on_a_full_disk_takes_no_part_any_more_and_its_task_goes_to_another(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DISK", "full")
        shop.start_rq_workers(1)
    (shop.folder / "hold_written").touch()
    build = shop.start("build")
    [failure] = eventually(lambda: shop.log("another worker is asked"))
    (shop.folder / "hold_written").unlink()

    assert "No space left" in failure["why"]
    assert build.wait(60) == 0
    assert len(shop.log("another worker is asked")) == 1
    is_as_at_home(shop, tmp_path)


def test_a_build_whose_redis_goes_away_keeps_what_workers_did_and_ends_alone(
    tmp_path: Path,
) -> None:
    with EmbeddedServer(tmp_path / "redis") as own:
        (tmp_path / "shop").mkdir()
        about = {
            "definitions": several({"spend": "drops/"}, settings=SETTINGS) + SHARED,
            "sources": ["drops"],
        }
        with running_shop(own, tmp_path / "shop", (), **about) as shop:
            history(shop)
            shop.start_rq_workers(1)
            (shop.folder / "hold_written").touch()
            build = shop.start("build")
            eventually(lambda: results(shop) >= 2)
            own.stop()
            (shop.folder / "hold_written").unlink()

            assert build.wait(60) == 0
            is_as_at_home(shop, tmp_path)


BUCKET_URL = f"s3://{BUCKET}/shop"
IN_A_BUCKET = (
    several({"spend": "drops/"}, settings=SETTINGS)
    .replace("import LocalStore", "import ObjectStore")
    .replace(
        'LocalStore(HERE / "feature_store")',
        f'ObjectStore("{BUCKET_URL}", cache=HERE / f"cache-{{os.getpid()}}")',
    )
)


@pytest.mark.slow
def test_workers_that_share_nothing_but_a_bucket_share_a_build(
    server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with seaweed(tmp_path / "seaweed") as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "shop").mkdir()
        about = {"definitions": "import os\n" + IN_A_BUCKET + SHARED, "sources": ["drops"]}
        with running_shop(server, tmp_path / "shop", (), **about) as shop:
            history(shop)
            shop.start_rq_workers(2)
            (shop.folder / "hold_claimed").touch()
            shop.start("watch")
            eventually(lambda: list(shop.folder.glob("claimed-*")))
            [held] = shop.folder.glob("claimed-*")
            os.kill(int(held.name.partition("-")[2]), signal.SIGKILL)
            (shop.folder / "hold_claimed").unlink()
            store = ObjectStore(BUCKET_URL, tmp_path / "reader")
            eventually(lambda: store.versions("spend"))
            assert shop.log("a task was lost and is run again")
            assert len(list(shop.folder.glob("cache-*/*/*/spend/_parts"))) == 2
            is_as_at_home(shop, tmp_path, store)


def test_a_build_that_is_killed_takes_up_what_workers_went_on_with(
    shop: Shop, tmp_path: Path
) -> None:
    shop.start_rq_workers(1)
    (shop.folder / "hold_written").touch()
    build = shop.start("build")
    eventually(lambda: results(shop) >= 2)
    build.send_signal(signal.SIGKILL)
    build.wait(10)
    (shop.folder / "hold_written").unlink()

    eventually(lambda: results(shop) >= TASKS - 1)  # all but the one that the build was at
    assert shop.versions("spend") == []
    assert shop.ask_apart("build").returncode == 0
    is_as_at_home(shop, tmp_path)


def test_a_worker_with_other_definitions_takes_no_part_and_says_why(
    shop: Shop, tmp_path: Path
) -> None:
    shop.start_rq_workers(1)
    changed = several({"spend": "drops/"}, {"spend": {"description": "another"}}, SETTINGS) + SHARED
    (shop.folder / "definitions.py").write_text(changed)

    (shop.folder / "hold_written").touch()
    build = shop.start("build")

    [refusal] = eventually(lambda: shop.log("takes no part in a build"))
    (shop.folder / "hold_written").unlink()
    assert "deploy the same definitions" in refusal["why"]
    assert build.wait(60) == 0
    is_as_at_home(shop, tmp_path)


def test_without_a_worker_a_build_says_so_or_goes_on_alone_where_it_may(
    shop: Shop, tmp_path: Path
) -> None:
    failed = shop.ask_apart("build", "--json")
    [failure] = json.loads(failed.stdout)["failures"]
    assert failed.returncode == 1
    assert failure["error"] == "RunnerUnavailable"
    assert "mlforge worker" in failure["message"]

    alone = several({"spend": "drops/"}, settings={**SETTINGS, "fallback": "local"}) + SHARED
    (shop.folder / "definitions.py").write_text(alone)
    assert shop.ask_apart("build").returncode == 0
    is_as_at_home(shop, tmp_path)
