"""The watcher under faults, with real processes: nothing is lost, whatever no event told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import contents
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write
from worker.service.embedded_redis import EmbeddedServer

SCENES = ("killed", "remade", "renamed", "late", "deep", "bytes", "polled", "limited", "flooded")
USERS = [{"user_id": user} for user in range(6)]
LIMIT = "/proc/sys/user"


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of one feature for each test; the source of `late` is not there at the start."""
    with running_shop(
        server,
        tmp_path_factory.mktemp("shop"),
        (["worker"], ["watch"]),  # tests take the last one for the watcher
        definitions=several({name: f"{name}/in/" for name in SCENES}),
        sources=[f"{name}/in" for name in SCENES if name != "late"],
    ) as made:
        eventually(lambda: not any(made.ticket(name).behind for name in SCENES))
        yield made


def source_of(shop: Shop, name: str) -> Path:
    return shop.folder / name / "in"


def replace_watcher(shop: Shop, start: Callable[[], subprocess.Popen[bytes]]) -> None:
    """Kill the watcher that runs, start another one, and wait until it has seen all there is."""
    running, journal = shop.processes.pop(), shop.project.event_log
    running.kill()
    running.wait()
    since = journal.last_id()
    start()
    eventually(lambda: any(entry.kind == "watching" for entry in journal.read(since)))


def watch(shop: Shop) -> subprocess.Popen[bytes]:
    return shop.start("watch")


def dropped(folder: Path, first: int, last: int) -> None:
    """So many small files, some of them of one entity."""
    for number in range(first, last):
        write(folder / f"{number}.parquet", purchases((number % 6, number, 1.0 + number)))


@pytest.mark.slow
def test_what_happens_while_no_watcher_runs_is_found_at_its_start(shop):
    folder = source_of(shop, "killed")
    dropped(folder, 0, 4)
    assert_invariant(shop.project, features=["killed"])
    with Witness(shop.project, {"killed": USERS}, always=True):
        running = shop.processes.pop()
        running.kill()
        running.wait()
        dropped(folder, 4, 6)
        (folder / "0.parquet").unlink()
        (folder / "1.parquet").rename(folder / "one.parquet")
        write(folder / "2.parquet", purchases((2, 2, 100.0), (3, 9, 1.0)))
        watch(shop)
        assert_invariant(shop.project, features=["killed"])


@pytest.mark.slow
def test_a_root_that_goes_and_comes_back_empties_nothing(shop):
    folder = source_of(shop, "remade")
    dropped(folder, 0, 4)
    assert_invariant(shop.project, features=["remade"])
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    with Witness(shop.project, {"remade": USERS}, always=True) as witness:
        shutil.rmtree(folder)
        eventually(lambda: shop.log("is not there", feature="remade"))
        assert_invariant(shop.project, features=["remade"], good={"remade": before})
        for number, content in enumerate(before):
            write(folder / "anew" / f"{number}.parquet", content)
        dropped(folder, 4, 6)
        assert_invariant(shop.project, features=["remade"])
    assert all(sight.row or sight.entity[0] > 3 for sight in witness.sights), "never emptied"


@pytest.mark.slow
def test_a_root_that_is_renamed_is_missed_and_another_in_its_place_is_watched(shop):
    folder = source_of(shop, "renamed")
    dropped(folder, 0, 3)
    assert_invariant(shop.project, features=["renamed"])
    before = [path.read_bytes() for path in folder.iterdir()]
    with Witness(shop.project, {"renamed": USERS}, always=True):
        folder.rename(folder.with_name("out"))
        # Nothing that happens there counts from now on.
        dropped(folder.with_name("out"), 10, 12)
        eventually(lambda: shop.log("is not there", feature="renamed"))
        assert_invariant(shop.project, features=["renamed"], good={"renamed": before})
        shutil.copytree(folder.with_name("out"), folder)
        assert_invariant(shop.project, features=["renamed"])
        dropped(folder, 12, 14)
        assert_invariant(shop.project, features=["renamed"])


@pytest.mark.slow
def test_a_root_that_is_missing_at_the_start_is_waited_for(shop):
    folder = source_of(shop, "late")
    assert not folder.parent.exists()
    assert_invariant(shop.project, features=["late"])
    dropped(folder / "2024" / "01", 0, 3)
    assert_invariant(shop.project, features=["late"])
    dropped(folder / "2024" / "02", 3, 5)
    assert_invariant(shop.project, features=["late"])


@pytest.mark.slow
def test_files_in_folders_that_were_just_made_are_all_taken_in(shop):
    folder = source_of(shop, "deep")
    with Witness(shop.project, {"deep": USERS}, always=True):
        for number in range(40):
            write(
                folder / "a" / f"{number % 7}" / "b" / f"{number}" / "c" / "x.parquet",
                purchases((number % 6, number, 1.0)),
            )
        assert_invariant(shop.project, features=["deep"])


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_shown_and_stops_nothing(shop):
    folder = source_of(shop, "bytes")
    (folder / os.fsdecode(b"bad\xff.parquet")).write_bytes(purchases((5, 0, 1.0)))
    dropped(folder, 0, 2)
    eventually(lambda: shop.online("bytes", 1))
    dropped(folder, 2, 4)
    mine = [path.read_bytes() for path in folder.glob("[0-9].parquet")]
    assert_invariant(shop.project, features=["bytes"], good={"bytes": mine})
    assert list(shop.store.books("bytes").ignored) == [r"bad\xff.parquet"]


@pytest.mark.slow
def test_polling_finds_what_events_would_tell(shop):
    folder = source_of(shop, "polled")
    replace_watcher(shop, lambda: shop.start("watch", "--polling", "--scan-every", "600"))
    dropped(folder, 0, 3)
    dropped(folder / "deep" / "er", 3, 5)
    assert_invariant(shop.project, features=["polled"])
    write(folder / "1.parquet", purchases((1, 1, 7.0)))
    (folder / "2.parquet").unlink()
    assert_invariant(shop.project, features=["polled"])
    replace_watcher(shop, lambda: watch(shop))


@pytest.mark.slow
def test_without_inotify_the_watcher_says_so_and_polls(shop):
    polls_instead(shop, "max_inotify_instances", 0, turns=1)


@pytest.mark.slow
def test_folders_past_the_limit_of_inotify_are_polled_for(shop):
    # The second time files come to folders of which no event tells. The folder that holds them is
    # there before, or it would depend on speed how many of them are watched at all.
    (source_of(shop, "limited") / "max_inotify_watches").mkdir(parents=True)
    polls_instead(shop, "max_inotify_watches", folders(shop) + 3, turns=2)


def polls_instead(shop: Shop, limit: str, value: int, turns: int) -> None:
    """Replace the watcher by one with such a limit: it must see all the same, and say how."""
    if not may_unshare():
        pytest.skip("limits of inotify can be set in a user namespace alone, and none may be made")
    folder = source_of(shop, "limited") / limit
    before = len(shop.log("polling instead"))
    limited = f"echo {value} > {LIMIT}/{limit} && exec {sys.executable} -m mlforge watch"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", limited]
    replace_watcher(shop, lambda: shop.run(command))
    for turn in range(turns):
        for number in range(20):
            dropped(folder / f"{number}", 20 * turn + number, 20 * turn + number + 1)
        assert_invariant(shop.project, features=["limited"])
    eventually(lambda: len(shop.log("polling instead")) > before)
    write(folder / "3" / "3.parquet", purchases((3, 3, 33.0)))
    assert_invariant(shop.project, features=["limited"])
    replace_watcher(shop, lambda: watch(shop))


def folders(shop: Shop) -> int:
    """How many folders are watched."""
    roots = [source_of(shop, name) for name in SCENES]
    return sum(len(list(os.walk(root))) for root in roots)


def may_unshare() -> bool:
    """Whether this user may make a user namespace, and set its limits."""
    tried = ["unshare", "--user", "--map-root-user", "test", "-w", f"{LIMIT}/max_inotify_watches"]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_events_that_overflow_while_the_watcher_is_stopped_lose_no_file(shop):
    folder = source_of(shop, "flooded")
    dropped(folder, 0, 2)
    assert_invariant(shop.project, features=["flooded"])
    watcher = shop.processes[-1]
    with Witness(shop.project, {"flooded": USERS}, always=True):
        watcher.send_signal(signal.SIGSTOP)
        try:
            flood(folder, files=20_000, names=400)
        finally:
            watcher.send_signal(signal.SIGCONT)
        assert_invariant(shop.project, features=["flooded"], deadline_s=120)


def flood(folder: Path, files: int, names: int) -> None:
    """So many files arrive, each under a name of its own at first: more events than a queue takes."""
    for number in range(files):
        content = purchases((number % 6, number, 1.0)) if number >= files - names else b"PAR1"
        if number >= files - names:
            contents.note(content)
        part = folder / f"{number}.parquet.tmp"
        part.write_bytes(content)
        part.rename(folder / f"{number % names}.parquet")
