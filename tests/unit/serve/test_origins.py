"""Requests of this machine, as their headers and the server's socket tell."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from mlforge.serve.access.origins import at_loopback, own_page, this_machine


def scope(**headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return {"headers": list(named.items())}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8750", "127.0.0.1:8750", "127.9.9.9", "[::1]:8750"]
)
def test_a_program_or_a_page_at_loopback_is_of_this_machine(host: str) -> None:
    assert this_machine(scope(host=host))
    assert this_machine(scope(host=host, origin=f"http://{host}"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "evil.example:8750"},  # a name of elsewhere that resolves to this machine
        {"host": "evil.example:8750", "origin": "http://evil.example:8750"},
        {"host": "localhost.evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "10.0.0.1:8750"},
        {"host": "0.0.0.0:8750"},
        {"host": "[::1"},
        {"host": "localhost:8750", "origin": "http://evil.example"},
        {"host": "localhost:8750", "origin": "http://localhost:3000"},
        {"host": "localhost:8750", "origin": "null"},
        {"host": "localhost:8750", "origin": ""},
        {"host": "localhost:8750", "origin": "http://["},
        {"host": "localhost:8750", "x_forwarded_for": "10.0.0.1"},
        {"host": "localhost:8750", "forwarded": "for=10.0.0.1"},
    ],
)
def test_what_may_come_from_elsewhere_is_not_of_this_machine(headers: dict[str, str]) -> None:
    assert not this_machine(scope(**headers))


def test_a_page_is_the_servers_own_by_the_name_that_it_was_asked_by() -> None:
    assert own_page(scope(host="shop:8750", origin="https://shop:8750"))
    for headers in (
        {},
        {"host": "shop"},
        {"origin": "http://shop"},
        {"host": "a", "origin": "//["},
    ):
        assert not own_page(scope(**headers)), headers


def test_a_socket_is_at_loopback_where_other_machines_do_not_reach_it() -> None:
    for host, is_so in (("127.0.0.1", True), ("0.0.0.0", False)):
        with socket.create_server((host, 0)) as listener:
            assert at_loopback(listener) is is_so
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert not at_loopback(one), "it may be a proxy's"
