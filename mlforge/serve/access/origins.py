"""Where a request comes from, as its headers tell: a page of this server, a program of this machine, or elsewhere."""

from __future__ import annotations

import socket
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from mlforge.core.arguments import shown
from mlforge.serve.http import Scope, header
from mlforge.serve.problems import Refused

_FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
"""Headers of a proxy, behind which anybody may stand."""


def own_page(scope: Scope) -> bool:
    """Whether the request's `Origin` is this server as its `Host` names it; False without either."""
    host = header(scope, b"host")
    return bool(host) and _netloc(header(scope, b"origin")) == host


def this_machine(scope: Scope) -> bool:
    """Whether a request to a server at loopback names it as loopback, and comes neither from a page of elsewhere nor through a proxy.

    The name matters: a page of elsewhere may have its own name resolved to this machine.
    """
    names = {name for name, _ in scope["headers"]}
    if names.intersection(_FORWARDED) or not _names_loopback(header(scope, b"host")):
        return False
    return b"origin" not in names or own_page(scope)


def check_named_here(scope: Scope) -> None:
    """Raise Refused for a request that names a server at loopback as no program of this machine does.

    A page of elsewhere whose name is made to resolve to this machine would read here what it likes: the browser takes the two for one site.
    A request without `Host` comes from no browser.
    """
    host = header(scope, b"host")
    if host and not _names_loopback(host):
        raise Refused(
            421,
            "other_host",
            f"this server has no file of keys (--keys), so it answers as localhost alone, not as {shown(host)}",
        )


def at_loopback(listener: socket.socket) -> bool:
    """Whether a socket listens at a loopback address, which other machines do not reach."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return is_loopback(listener.getsockname()[0])


def is_loopback(host: str | None) -> bool:
    """Whether a host's name or address is of this machine alone."""
    if host is None or host == "localhost":
        return host is not None
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=128)  # each request asks, and almost all name the same
def _names_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine alone."""
    return is_loopback(_hostname(host))


def _hostname(host: str) -> str | None:
    """The name or address in a `Host` header; None where it names none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
