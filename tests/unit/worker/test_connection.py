"""The server at REDIS_URL, told by its address: never by a password, however that is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlforge.errors import MlforgeError, OnlineRefused, OnlineUnavailable
from worker.connection import connect, hide_password
from worker.service.up_lock import only_one


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:secret@127.0.0.1:1/0", "redis://:***@127.0.0.1:1/0"),
        ("redis://:se/cret@127.0.0.1:1/0", "redis://:***@127.0.0.1:1/0"),
        ("redis://app:se#cret@127.0.0.1:1", "redis://app:***@127.0.0.1:1"),
        ("redis://app:12/cret@127.0.0.1:1", "redis://app:***@127.0.0.1:1"),
        ("redis://127.0.0.1:1/0?password=secret&db=1", "redis://127.0.0.1:1/0?password=***&db=1"),
        ("redis://127.0.0.1:1?password=s@cret", "redis://***"),
        ("redis://app@127.0.0.1:1/0", "redis://app@127.0.0.1:1/0"),
        ("unix:///run/redis@1.sock", "unix:///run/redis@1.sock"),
    ],
)
def test_a_server_that_does_not_answer_is_told_without_its_password(url: str, told: str) -> None:
    assert hide_password(url) == told
    with pytest.raises(OnlineUnavailable) as refused:
        connect(url)
    assert f"no Redis answers at {told} (" in str(refused.value)
    assert not any(part in str(refused.value) for part in ("cret", "'se'", "app:12"))


def test_sentinels_are_no_server_of_the_queue_and_their_passwords_are_not_told() -> None:
    url = (
        "redis+sentinel://app:secret@one,two/shop/0?sentinel_password=secret&sentinel_username=eye"
    )
    with pytest.raises(OnlineRefused, match="names sentinels") as refused:
        connect(url)
    assert hide_password(url) in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_password_that_cuts_its_url_short_is_to_be_encoded() -> None:
    with pytest.raises(OnlineUnavailable, match="with the password percent-encoded"):
        connect("redis://app:12/cret@127.0.0.1:1")


def test_a_second_up_is_told_of_the_first_without_the_password_of_a_server_of_ones_own(
    tmp_path: Path,
) -> None:
    with only_one(tmp_path, None, is_own=True) as note:
        note("redis://:secret@127.0.0.1:1/0")
        second = only_one(tmp_path, None, is_own=True)
        with pytest.raises(MlforgeError, match=r"use it: REDIS_URL=redis://:\*\*\*@127"), second:
            pass
