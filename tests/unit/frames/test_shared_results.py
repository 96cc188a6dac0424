"""What several features of a job ask for alike is computed once, and only what is the same to the bit is alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import polars as pl
import pytest

from mlforge.frames import shared_results as sharing
from mlforge.frames.shared_results import ByIdentity, once, shared_results

KEYS = pl.DataFrame({"user_id": [1, 2, 3]})


class Counted:
    """A computation that counts how often it runs."""

    def __init__(self, result: Callable[[], Any] = object) -> None:
        self.times, self._result = 0, result

    def __call__(self) -> Any:
        self.times += 1
        return self._result()


def test_a_result_is_computed_once_for_equal_keys_and_equal_frames() -> None:
    compute = Counted()
    with shared_results() as shared:
        first = once("values", lambda: (1, "a"), compute, KEYS)
        assert once("values", lambda: (1, "a"), compute, KEYS.clone()) is first
        assert (shared.computed, shared.handed_on) == (1, 1)
    assert compute.times == 1


@pytest.mark.parametrize(
    ("name", "key", "frame"),
    [
        ("entities", 1, KEYS),
        ("values", 2, KEYS),
        ("values", 1, KEYS.reverse()),
        ("values", 1, KEYS.head(2)),
        ("values", 1, KEYS.rename({"user_id": "shop_id"})),
        ("values", 1, KEYS.cast(pl.Int32)),
    ],
)
def test_whatever_differs_is_computed_for_itself(name: str, key: int, frame: pl.DataFrame) -> None:
    compute = Counted()
    with shared_results():
        assert once("values", lambda: 1, compute, KEYS) is not once(
            name, lambda: key, compute, frame
        )
    assert compute.times == 2


def test_more_frames_are_not_the_same_as_the_first_of_them() -> None:
    compute = Counted()
    with shared_results():
        once("entities", tuple, compute, KEYS)
        once("entities", tuple, compute, KEYS, KEYS.head(1))
        once("entities", tuple, compute)
    assert compute.times == 3


@pytest.mark.parametrize(
    "values",
    [[0.0, 1.0], [[0.0], [1.0]], [{"x": 0.0}, {"x": 1.0}]],
    ids=["plain", "list", "struct"],
)
def test_frames_with_floats_are_the_same_only_if_they_are_one(values: list[Any]) -> None:
    compute, frame = Counted(), pl.DataFrame({"amount": values})
    with shared_results():
        assert once("values", tuple, compute, frame) is once("values", tuple, compute, frame)
        once("values", tuple, compute, frame.clone())  # it may hold -0.0 where the other has 0.0
    assert compute.times == 2


def test_a_frame_as_a_key_is_equal_to_no_other_that_holds_the_same() -> None:
    assert ByIdentity(KEYS) == ByIdentity(KEYS)
    assert hash(ByIdentity(KEYS)) == hash(ByIdentity(KEYS))
    assert ByIdentity(KEYS) != ByIdentity(KEYS.clone())
    assert ByIdentity(KEYS) != KEYS.height


def test_outside_of_a_job_and_in_the_next_one_nothing_is_known() -> None:
    compute, never = Counted(), Counted()
    with shared_results():
        once("values", tuple, compute)
    with shared_results():
        once("values", tuple, compute)
    once("values", never, compute)
    once("values", never, compute)
    assert compute.times == 4
    assert never.times == 0, "no key is made where nothing is shared"


def test_an_error_is_not_kept() -> None:
    def fail() -> None:
        raise ValueError("as always")

    with shared_results():
        with pytest.raises(ValueError, match="as always"):
            once("values", tuple, fail)
        assert once("values", tuple, lambda: 1) == 1


def test_large_results_and_results_of_large_frames_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "MOST_ROWS", 2)
    monkeypatch.setattr(sharing, "MOST_BYTES", KEYS.estimated_size() - 1)
    of_large, large, small = Counted(), Counted(lambda: (KEYS, "more")), Counted()
    with shared_results():
        for _ in range(2):
            once("of large", tuple, of_large, KEYS)
            once("large", tuple, large)
            once("small", tuple, small, KEYS.head(2))
    assert (of_large.times, large.times, small.times) == (2, 2, 1)


def test_of_each_name_the_results_that_were_asked_for_last_are_kept() -> None:
    compute = Counted()
    with shared_results():
        for key in (*range(sharing.KEPT), 0, sharing.KEPT, 0):
            once("values", lambda key=key: key, compute)  # type: ignore[misc]
        assert compute.times == sharing.KEPT + 1
        once("values", lambda: 1, compute)
    assert compute.times == sharing.KEPT + 2


def test_of_each_name_results_are_kept_that_take_little_memory_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "KEPT_BYTES", 3 * KEYS.estimated_size())
    compute = Counted(KEYS.clone)
    with shared_results():
        for key in (0, 1, 2, 3, 3, 2, 1):
            once("values", lambda key=key: key, compute)  # type: ignore[misc]
        assert compute.times == 4, "three results are kept"
        once("values", lambda: 0, compute, KEYS)  # takes two of the three places
        once("values", lambda: 1, compute)
        assert compute.times == 5
        once("values", lambda: 2, compute)
    assert compute.times == 6


def test_a_thread_that_asks_meanwhile_takes_no_result_from_one_who_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Key:
        """Equal to its like, which is found out while another thread asks for a result that leaves no room."""

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            if isinstance(other, Key):
                ask = once, "values", lambda: "large", lambda: KEYS
                asking = threading.Thread(target=copy_context().run, args=ask)
                asking.start()
                asking.join()
            return isinstance(other, Key)

    monkeypatch.setattr(sharing, "KEPT_BYTES", KEYS.estimated_size() - 1)
    with shared_results():
        once("values", lambda: "small", object)
        first = once("values", Key, object)
        assert once("values", Key, object) is first
