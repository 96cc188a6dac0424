"""What is read for a status where something, or all, of the store cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from mlforge.errors import IntegrityError, StoreUnavailable
from worker.monitor.look import STORE_AWAY, Look, StoreLook


class Store:
    """A store whose readings fail by the error that is given for each; it counts them."""

    def __init__(self, **errors: Exception | None) -> None:
        self.errors, self.asked = errors, list[str]()

    def __getattr__(self, reading: str) -> Any:
        def read(*arguments: object) -> str:
            self.asked.append(reading)
            if error := self.errors.get(reading):
                raise error
            return reading

        return read


AWAY = StoreUnavailable("s3://shop: there is no such bucket")


def test_a_store_of_which_nothing_can_be_read_is_asked_no_more() -> None:
    store: Any = Store(pointer=AWAY, books=AWAY, renames=AWAY)
    sight, looks = StoreLook(store), [Look(), Look()]
    for look in looks:
        assert look.at("its pointer", lambda: sight.ask(lambda s: s.pointer("spend")), None) is None
        assert look.at("its books", lambda: sight.ask(lambda s: s.books("spend")), None) is None
    assert sight.problem == str(AWAY)
    assert [look.problems for look in looks] == [[STORE_AWAY]] * 2
    assert store.asked == ["pointer", "renames"]


@pytest.mark.parametrize("error", [AWAY, IntegrityError("it is damaged")])
def test_a_reading_that_fails_alone_is_told_and_the_others_go_on(error: Exception) -> None:
    store: Any = Store(pointer=error)
    sight, look = StoreLook(store), Look()
    assert look.at("its pointer", lambda: sight.ask(lambda s: s.pointer("spend")), None) is None
    assert look.at("its books", lambda: sight.ask(lambda s: s.books("spend")), None) == "books"
    assert sight.problem is None
    assert look.problems == [f"its pointer cannot be read: {error}"]
