"""Collections wait while very many values are read, and begin again in any case."""

from __future__ import annotations

import gc
import weakref

import pytest

from mlforge.core import collection
from mlforge.core.collection import collection_paused, end_loading, loading


def test_collections_begin_again_also_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"):
        fail_paused()
    assert gc.isenabled()


def fail_paused() -> None:
    with collection_paused():
        assert not gc.isenabled()
        raise ValueError("x")


def test_an_inner_block_leaves_the_outer_one_paused() -> None:
    with collection_paused():
        with collection_paused():
            pass
        assert not gc.isenabled()


@pytest.mark.parametrize("has_frozen", [False, True])
def test_very_many_objects_of_a_block_are_looked_at_by_no_collection_of_young_ones(
    has_frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "_ends_soon", [has_frozen])
    gc.freeze() if has_frozen else gc.unfreeze()
    try:
        with collection_paused():
            stay: list[list[int]] = [[] for _ in range(60_000)]
        assert not any(each is stay[0] for age in (0, 1) for each in gc.get_objects(age))
        assert any(each is stay[0] for each in gc.get_objects(2)) is not has_frozen
        assert bool(gc.get_freeze_count()) is has_frozen
    finally:
        gc.freeze()  # as each process of tests has it


def test_a_process_that_goes_on_frees_circles_that_were_alive_amid_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collection, "_ends_soon", [False])
    gc.freeze()

    class Circle:
        pass

    circle = Circle()
    circle.own, gone = circle, weakref.ref(circle)  # type: ignore[attr-defined]
    with collection_paused():
        stay: list[list[int]] = [[] for _ in range(60_000)]
    del circle
    gc.collect()
    assert stay
    assert gone() is None


def test_a_program_that_collects_nothing_by_itself_goes_on_so() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_that_has_loaded_collects_as_usual_and_looks_at_no_module() -> None:
    usual, stays = gc.get_threshold(), [object()]
    with loading():
        assert gc.get_threshold()[0] > 10 * usual[0]
        end_loading()
        assert gc.get_threshold() == usual
        assert not any(each is stays for each in gc.get_objects())
    assert gc.get_threshold() == usual


def test_a_process_that_fails_to_load_collects_as_usual() -> None:
    usual = gc.get_threshold()
    with pytest.raises(ValueError, match="x"), loading():
        raise ValueError("x")
    assert gc.get_threshold() == usual


def test_whoever_loads_definitions_in_a_program_of_his_own_keeps_its_collections() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(12_345)
    try:
        end_loading()
        assert gc.get_threshold()[0] == 12_345
    finally:
        gc.set_threshold(*usual)
