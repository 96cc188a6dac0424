"""Code that the garbage collector runs in the midst of a function's call is not taken for the function's."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.features import garbage, purity
from mlforge.features.row_wise import prove

SCHEMA = pl.Schema({"user_id": pl.Int64, "amount": pl.Float64})
HERE = Path(__file__)
QUESTIONS: dict[str, Callable[[], object]] = {
    "clock": time.perf_counter,
    "chance": random.random,
    "file": HERE.read_text,
    "environment": lambda: os.environ.get("HOME"),
}


class Cyclic:
    """An object that only the collector finds, and whose finalizer asks a question."""

    def __init__(self, question: Callable[[], object]) -> None:
        self.myself, self.question = self, question

    def __del__(self) -> None:
        self.question()


@pytest.fixture
def callbacks() -> Iterator[list[Any]]:
    """The collector's callbacks, which are as before after the test."""
    before = [*gc.callbacks]
    yield gc.callbacks
    gc.callbacks[:] = before


def collecting(frame: pl.LazyFrame) -> pl.LazyFrame:
    gc.collect(0)
    return frame


def asking(frame: pl.LazyFrame) -> pl.LazyFrame:
    time.perf_counter()
    return frame


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_callback_of_a_library_is_nobodys_question(
    callbacks: list[Any], question: str, place: str
) -> None:
    garbage.hear_collections()
    calls = []

    def callback(phase: str, _: dict[str, Any]) -> None:
        calls.append(phase)
        QUESTIONS[question]()

    callbacks.insert(0 if place == "first" else len(callbacks), callback)
    assert prove(collecting, SCHEMA).holds
    assert calls
    with purity.hearing_reads() as reads:
        gc.collect(0)
    assert reads == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_finalizer_of_garbage_is_nobodys_question(question: str) -> None:
    calls = []

    def ask() -> None:
        calls.append(question)
        QUESTIONS[question]()

    def collect() -> None:
        Cyclic(ask)
        gc.collect(0)

    assert purity.call(collect).questions == ()
    assert calls
    with purity.hearing_reads() as reads:
        collect()
    assert reads == []


def test_what_a_function_asks_itself_still_counts_after_a_collection(callbacks: list[Any]) -> None:
    def both(frame: pl.LazyFrame) -> pl.LazyFrame:
        return asking(collecting(frame))

    assert prove(both, SCHEMA).reason == "it reads the clock (perf_counter)"
    callbacks.clear()  # by somebody, while a collection was under way in this thread
    garbage._begun("start", {})
    assert purity.call(time.perf_counter).questions == ("reads the clock (perf_counter)",)
    with purity.hearing_reads() as reads:
        HERE.read_text()
    assert reads == ["reads files (open)"]
    assert not garbage.is_being_collected()
