"""Collections wait while very many values are read, and begin again in any case."""

from __future__ import annotations

import gc

import pytest

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
