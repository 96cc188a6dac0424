"""Collections wait while very many values are read, and begin again in any case."""

from __future__ import annotations

import gc

import pytest

from mlforge.core.collection import collection_paused


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
