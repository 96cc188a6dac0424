"""A source root that goes, is emptied, and comes back: production is never emptied with it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write
from worker.service.embedded_redis import EmbeddedServer

SCENES = ("unmounted", "emptied", "replaced")
USERS = [{"user_id": user} for user in range(4)]


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of one feature for each test."""
    definitions = several({name: f"{name}/" for name in SCENES})
    folder = tmp_path_factory.mktemp("shop")
    with running_shop(server, folder, definitions=definitions, sources=SCENES) as made:
        yield made


def mount(real: Path, place: Path) -> None:
    """Show a folder at another place, as a disk is."""
    command = ["mount", "--bind", str(real), str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")


def unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", str(place)], check=True)


def four_files(folder: Path) -> list[bytes]:
    contents = [purchases((user, user, 1.0 + user), (user, 60, 1.0)) for user in range(4)]
    for user, content in enumerate(contents):
        write(folder / f"{user}.parquet", content)
    return contents


def is_held_then_goes_on(
    shop: Shop, name: str, served: list[bytes], back: Callable[[], None]
) -> None:
    """All is served as it was while the files are away; once they are back it goes on by itself."""
    eventually(lambda: shop.store.books(name).hold)
    assert_invariant(shop.project, features=[name], good={name: served}, held=[name])
    status = shop.ask("status")
    assert status.returncode == 1
    assert f"mlforge approve {name}" in status.stdout
    back()
    write(shop.folder / name / "new.parquet", purchases((1, 90, 10.0)))
    eventually(lambda: not shop.store.books(name).hold)
    assert_invariant(shop.project, features=[name])


@pytest.mark.slow
def test_a_disk_that_is_unmounted_leaves_an_empty_folder_and_all_is_served_on(shop):
    real, place = shop.folder / "real", shop.folder / "unmounted"
    real.mkdir()
    mount(real, place)
    try:
        served = four_files(place)
        assert_invariant(shop.project, features=["unmounted"])
        with Witness(shop.project, {"unmounted": USERS}, always=True) as witness:
            unmount(place)
            is_held_then_goes_on(shop, "unmounted", served, lambda: mount(real, place))
        assert all(sight.row for sight in witness.sights), "nobody was ever answered with nothing"
    finally:
        unmount(place)


@pytest.mark.slow
def test_a_source_that_is_emptied_is_held_and_never_emptied_online(shop):
    folder = shop.folder / "emptied"
    served = four_files(folder)
    assert_invariant(shop.project, features=["emptied"])
    with Witness(shop.project, {"emptied": USERS}, always=True) as witness:
        # All files in one step: of four that go one by one, a refresh may see the first alone gone.
        aside = folder.rename(shop.folder / "aside")
        folder.mkdir()

        def back() -> None:
            folder.rmdir()
            aside.rename(folder)

        is_held_then_goes_on(shop, "emptied", served, back)
    assert all(sight.row for sight in witness.sights), "nobody was ever answered with nothing"


@pytest.mark.slow
def test_a_source_that_is_replaced_by_files_of_which_none_can_be_read_is_served_on(shop):
    folder = shop.folder / "replaced"
    served = four_files(folder)
    assert_invariant(shop.project, features=["replaced"])
    versions = shop.versions("replaced")
    with Witness(shop.project, {"replaced": USERS}, always=True):
        for number in range(4):
            write(folder / f"{number}.parquet", b"PAR1 was encrypted by somebody PAR1")
        kept = {f"{number}.parquet": content for number, content in enumerate(served)}
        assert_invariant(shop.project, features=["replaced"], kept={"replaced": kept})
        whole = shop.folder / "whole"
        whole.mkdir()
        four_files(whole)
        folder.rename(shop.folder / "broken")
        whole.rename(folder)
        assert_invariant(shop.project, features=["replaced"])
    assert shop.versions("replaced") == versions
