"""A body is taken up to the last byte that is allowed, and not one beyond, whether or not its length is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlforge.serve.http import body_of
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused


async def sent() -> Any:
    return {"type": "http.request", "body": b"abc"}


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"3")]], ids=["", "length"])
def test_a_body_has_at_most_so_many_bytes(headers: list[tuple[bytes, bytes]]) -> None:
    scope = {"headers": headers}
    assert asyncio.run(body_of(scope, sent, Limits(body_bytes=3))) == b"abc"
    with pytest.raises(Refused, match="at most 2 bytes"):
        asyncio.run(body_of(scope, sent, Limits(body_bytes=2)))
