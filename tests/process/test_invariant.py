"""The judge of faults finds what it is there to find."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import Shop, eventually, purchases, write

SPEND = {"spend": [{"user_id": user} for user in range(1, 5)]}
ASKED = {"amount__sum__7d": 5.0, "amount__count__7d": 2}


@pytest.fixture
def shop(redis: Redis, tmp_path: Path, server) -> Shop:
    """A shop of two drops, refreshed and pushed without any process."""
    made = Shop(tmp_path, server.url)
    write(tmp_path / "drops" / "a.parquet", purchases((1, 0, 2.0), (1, 60, 3.0), (2, 5, 1.0)))
    bring_up(made)
    write(tmp_path / "drops" / "b.parquet", purchases((3, 70, 4.0)))
    bring_up(made)
    return made


def bring_up(shop: Shop) -> None:
    shop.project.definitions.refresh("spend", attended=False)
    shop.project.definitions.push("spend")


def test_a_project_in_order_passes(shop: Shop) -> None:
    with Witness(shop.project, SPEND) as witness:
        looks_on(witness)
        assert_invariant(shop.project)
    assert witness.sights.total() >= 8
    assert [str(version) for version in witness.versions["spend"]] == ["1.0.0", "1.0.1"]


def forged(shop: Shop) -> None:
    shop.project.online.write("spend", {"user_id": 1}, {**ASKED, "amount__sum__7d": 5.5})


def evicted(shop: Shop) -> None:
    shop.project.online.delete("spend", {"user_id": 1})


def one_too_many(shop: Shop) -> None:
    shop.project.online.write("spend", {"user_id": 77}, ASKED)


def flushed(shop: Shop) -> None:
    shop.project.redis.flushall()


def not_taken_in(shop: Shop) -> None:
    write(shop.folder / "drops" / "c.parquet", purchases((4, 80, 4.0)))


def torn(shop: Shop) -> None:
    manifest = shop.store.read_metadata("spend", "1.0.0")
    path = shop.folder / "feature_store" / "spend" / "1.0.0" / manifest.parts[0].file
    path.write_bytes(path.read_bytes()[:-1])


def lost(shop: Shop) -> None:
    shutil.rmtree(shop.folder / "feature_store" / "spend" / "1.0.0")


def quarantined(shop: Shop) -> None:
    write(shop.folder / "drops" / "bad.parquet", b"PAR1 this is not parquet")
    bring_up(shop)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (forged, "amount__sum__7d online: 5.0, got 5.5"),
        (evicted, "online: None, not"),
        (one_too_many, "rows too many"),
        (flushed, "a push is due"),
        (not_taken_in, "lacks 1 files"),
        (torn, "its bytes have changed"),
        (lost, "1.0.0 is lost"),
        (quarantined, r"set aside \['bad.parquet'\]"),
    ],
)
def test_each_fault_is_named(shop: Shop, fault: Callable[[Shop], None], says: str) -> None:
    fault(shop)
    with pytest.raises(AssertionError, match=says):
        assert_invariant(shop.project, deadline_s=0.1)


def test_a_file_that_must_be_set_aside_is_no_fault(shop: Shop) -> None:
    quarantined(shop)
    assert_invariant(shop.project, bad={"spend": ["bad.parquet"]})


@pytest.fixture
def witness(shop: Shop) -> Iterator[Witness]:
    """Somebody who has looked a while, and goes on."""
    made = Witness(shop.project, SPEND)
    made.start()
    looks_on(made)
    yield made
    made.stop()


def looks_on(witness: Witness) -> None:
    """Wait for a whole round."""
    eventually(lambda before=witness.rounds: witness.rounds > before + 1)


def test_a_value_that_was_wrong_for_a_moment_is_remembered(shop: Shop, witness: Witness) -> None:
    forged(shop)
    looks_on(witness)
    shop.project.online.write("spend", {"user_id": 1}, ASKED)
    assert_invariant(shop.project)
    witness.stop()
    with pytest.raises(AssertionError, match=r"5\.5.* no version gives that"):
        witness.judge()


def test_a_value_that_is_older_than_the_books_is_remembered(shop: Shop, witness: Witness) -> None:
    write(shop.folder / "drops" / "c.parquet", purchases((1, 80, 4.0)))
    bring_up(shop)
    shop.project.online.write("spend", {"user_id": 1}, ASKED)
    looks_on(witness)
    witness.stop()
    with pytest.raises(AssertionError, match=r"1\.0\.2.* no version gives that"):
        witness.judge()


def test_a_refusal_is_a_fault_only_where_there_must_be_an_answer(shop: Shop) -> None:
    for always in (False, True):
        bring_up(shop)
        witness = Witness(shop.project, SPEND, always=always)
        witness.start()
        looks_on(witness)
        flushed(shop)
        looks_on(witness)
        witness.stop()
        assert any("not served" in where for where in witness.refused)
        assert bool(witness.wrong) is always


def test_a_version_that_vanishes_is_remembered(shop: Shop, witness: Witness) -> None:
    lost(shop)
    witness.stop()
    with pytest.raises(AssertionError, match="versions are lost"):
        witness.judge()
