"""Hosts, clocks, disks and stores under faults, with real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from mlforge.core import clock
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import Shop, eventually, purchases, several, write
from worker.service.embedded_redis import EmbeddedServer

CLOCKS = ("slept", "back", "silent")
SCENES = (*CLOCKS, "newer", "other")
USERS = [{"user_id": user} for user in range(6)]
HOUR, DAY = 3_600, 86_400
START_OF_2024 = 1_704_067_200

# `mlforge ...` on a host whose clock is off by what a file says, in seconds, at any time; with `all`,
# the server's is, too.
OFF = """
import sys
from dataclasses import replace
from pathlib import Path
from mlforge.core import clock
from mlforge.cli import main
from worker.state.work_queue import WorkQueue
file, whose, *command = sys.argv[1:]
def off(told):
    return lambda *self: told(*self) + int(Path(file).read_text()) * 1_000_000
clock.now = off(clock.now)
def agreeing(take):
    return lambda *self: (lease := take(*self)) and replace(lease, clock_ahead=0)
if whose == "all":
    WorkQueue.now = off(WorkQueue.now)
    WorkQueue.start, WorkQueue.claim = agreeing(WorkQueue.start), agreeing(WorkQueue.claim)
sys.exit(main(command))
"""


def a_shop(folder: Path, url: str, *names: str) -> Shop:
    """A shop of these features; those named `..._wall` follow the wall clock."""
    wall = {name: {"online_clock": "wall"} for name in names if name.endswith("_wall")}
    definitions = several({name: f"{name}/" for name in names}, wall)
    return Shop(folder, url, definitions=definitions, sources=names)


def pair(name: str) -> list[str]:
    """A test's two features: one follows the data, the other the wall clock."""
    return [name, f"{name}_wall"]


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop on a host whose clock, and the server's, can be set."""
    Redis.from_url(server.url).flushall()
    names = [each for name in CLOCKS for each in pair(name)]
    made = a_shop(tmp_path_factory.mktemp("shop"), server.url, *names, "newer", "other")
    at_work(made, sys.executable, "-c", OFF, str(off_by(made, 0)), "all")
    yield made
    made.stop()


@pytest.fixture
def own_shop(redis: Redis, server: EmbeddedServer, tmp_path: Path) -> Iterator[Shop]:
    """A shop of one test, without processes so far."""
    own = server.url.rpartition("/")[0] + "/1"
    Redis.from_url(own).flushdb()
    made = a_shop(tmp_path, own, "steady", "steady_wall")
    yield made
    made.stop()


@pytest.fixture
def now(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the clocks of the shop's host and of this test, in seconds ahead of the real one."""
    real = clock.now

    def set_to(ahead: int) -> None:
        monkeypatch.setattr(clock, "now", lambda: real() + ahead * 1_000_000)
        off_by(shop, ahead)

    yield set_to
    off_by(shop, 0)


def off_by(shop: Shop, seconds: int, name: str = "off") -> Path:
    """Set the clock of whoever reads this file."""
    part = shop.folder / f"{name}.part"
    part.write_text(str(seconds))
    part.rename(shop.folder / name)
    return shop.folder / name


def ago(seconds: int) -> int:
    """An instant before now, as `purchases` wants it."""
    return clock.now() // 1_000_000 - START_OF_2024 - seconds


def at_rest(shop: Shop) -> None:
    names = shop.project.definitions.features
    eventually(lambda: all(shop.ticket(name).served for name in names))


def at_work(shop: Shop, *prefix: str) -> list[subprocess.Popen[bytes]]:
    """A watcher and a worker, started by a command of one's own."""
    return [shop.run([*prefix, command]) for command in ("watch", "worker")]


def killed(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_two_hosts_share_the_work_though_the_clock_of_one_is_an_hour_ahead(own_shop):
    shop, names = own_shop, pair("steady")
    here = at_work(shop, sys.executable, "-m", "mlforge")
    command = [sys.executable, "-c", OFF, str(off_by(shop, HOUR)), "mine"]
    there = at_work(shop, *elsewhere(), *command)
    at_rest(shop)
    almost_out = 7 * DAY - HOUR // 2  # an hour from now the window has lost it
    with Witness(shop.project, dict.fromkeys(names, USERS), always=True):
        for turn in range(6):
            rows = (turn % 3, ago(almost_out), 1.0), (3 + turn % 3, ago(60), 2.0)
            dropped(shop, names, turn, *rows)
        assert_invariant(shop.project, features=names)
        killed(here)
        dropped(shop, names, 7, (1, ago(DAY), 5.0))
        assert_invariant(shop.project, features=names, deadline_s=60)
    assert shop.log("clock is off"), "the other host says so"
    killed(there)


def dropped(shop: Shop, names: list[str], number: int, *rows: tuple[int, int, float]) -> None:
    """A file with these rows in the source of each."""
    for name in names:
        write(shop.folder / name / f"{number}.parquet", purchases(*rows))


def alive(shop: Shop, name: str) -> list[int]:
    """The users who have a row online."""
    return [user for user in range(6) if shop.online(name, user)]


def elsewhere() -> list[str]:
    """A command that runs another on a host of another name, where such a thing may be made."""
    command = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$0" "$@"']
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return [] if tried.returncode else command


@pytest.mark.slow
def test_after_a_sleep_windows_have_moved_and_what_came_meanwhile_is_taken_in(shop, now):
    names, at_noon = pair("slept"), ago(0)
    rows = [
        (1, at_noon - 7 * DAY + HOUR, 1.0),
        (2, at_noon - 60, 2.0),
        (3, at_noon + 2 * HOUR, 3.0),
    ]
    dropped(shop, names, 0, *rows)
    assert_invariant(shop.project, features=names)
    assert alive(shop, "slept_wall") == [1, 2]
    for process in shop.processes:
        process.send_signal(signal.SIGSTOP)
    dropped(shop, names, 1, (4, at_noon - DAY, 4.0))
    now(8 * HOUR)
    for key in shop.project.redis.scan_iter("*:lease"):  # they expired in its sleep
        shop.project.redis.delete(key)
    for process in shop.processes:
        process.send_signal(signal.SIGCONT)
    assert_invariant(shop.project, features=names, deadline_s=60)
    assert alive(shop, "slept_wall") == [2, 3, 4]
    assert 3 in alive(shop, "slept"), "what lay in the future is there by now"


@pytest.mark.slow
def test_a_clock_that_is_set_back_bars_no_later_push(shop, now):
    names, at_noon = pair("back"), ago(0)
    now(2 * HOUR)
    dropped(shop, names, 0, (1, at_noon - 7 * DAY + HOUR, 1.0), (2, at_noon + HOUR, 2.0))
    assert_invariant(shop.project, features=names)
    assert alive(shop, "back_wall") == [2]
    now(0)
    assert_invariant(shop.project, features=names, deadline_s=60)
    assert alive(shop, "back_wall") == [1]


@pytest.mark.slow
def test_a_feed_that_falls_silent_empties_windows_that_follow_the_wall_clock(shop, now):
    names, at_noon = pair("silent"), ago(0)
    dropped(shop, names, 0, (1, at_noon - 6 * DAY, 1.0), (2, at_noon - 60, 2.0))
    assert_invariant(shop.project, features=names)
    for days, left in ((2, [2]), (8, [])):
        now(days * DAY)
        eventually(lambda left=left: alive(shop, "silent_wall") == left, within=60)
        assert_invariant(shop.project, features=names)
        assert alive(shop, "silent") == [1, 2], "these are served as of their own end"
    assert shop.versions("silent_wall") == ["1.0.0"]


@pytest.mark.slow
def test_a_store_that_a_newer_mlforge_wrote_is_refused_and_served_on(shop):
    dropped(shop, ["newer", "other"], 0, (1, 0, 1.0))
    assert_invariant(shop.project, features=["newer", "other"])
    meta = shop.folder / "feature_store" / "newer" / "1.0.0" / ".meta.json"
    ours = meta.read_text()

    def written(text: str) -> None:
        part = meta.with_suffix(".new")
        part.write_text(text)
        part.replace(meta)

    with Witness(shop.project, {"newer": USERS, "other": USERS}, always=True):
        written(json.dumps({**json.loads(ours), "format": 99}))
        dropped(shop, ["newer", "other"], 1, (2, 0, 2.0))
        refused = eventually(lambda: found if (found := shop.ticket("newer")).error else None)
        assert "format 99" in refused.error
        assert_invariant(shop.project, features=["other"])
        assert shop.online("newer", 1) == {"amount__sum__7d": 1.0, "amount__count__7d": 1}
        assert shop.versions("newer") == ["1.0.0"]
        written(ours)
        assert shop.ask("retry", "newer").returncode == 0
        assert_invariant(shop.project, features=["newer"])


# -- the disk of the store


@pytest.fixture
def disk(own_shop: Shop) -> Iterator[Path]:
    """The store of the shop on a small disk of its own, its processes running."""
    store = own_shop.folder / "feature_store"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(store)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    at_work(own_shop, sys.executable, "-m", "mlforge")
    at_rest(own_shop)
    yield store
    own_shop.stop()
    subprocess.run(["umount", "-l", str(store)], check=True)


def filled(store: Path) -> Callable[[], None]:
    filler = store / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return filler.unlink


def read_only(store: Path) -> Callable[[], None]:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(store)], check=True)

    remount("ro")
    return lambda: remount("rw")


@pytest.mark.slow
def test_a_store_that_takes_nothing_is_served_on_and_made_up_for(own_shop, disk):
    shop = own_shop
    dropped(shop, ["steady"], 0, (1, 0, 1.0))
    assert_invariant(shop.project, features=["steady"])
    with Witness(shop.project, {"steady": USERS}, always=True):
        for number, fault in enumerate((filled, read_only), start=1):
            mend = fault(disk)
            try:
                dropped(shop, ["steady"], number, (2, number, 2.0))
                failed = eventually(
                    lambda: found if (found := shop.ticket("steady")).error else None
                )
                assert not failed.parked
                assert shop.online("steady", 1) == {"amount__sum__7d": 1.0, "amount__count__7d": 1}
                assert shop.ask("status").returncode == 1
            finally:
                mend()
            assert_invariant(shop.project, features=["steady"], deadline_s=60)
