"""Whether whoever listens at a port answers as Spark does: Spark's own clients would try for minutes to find out."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

SPEAKS_S = 10.0
_FRAME = struct.Struct(">QB")
"""How a message of Spark's own protocol begins: its length, and its kind."""
_ASKS_FOR_STREAM, _KINDS, _LONGEST = 6, range(13), 2**24
_NOWHERE = b"/files/none-of-mlforge"
_SETTINGS = 4
_ALERT = b"\x15\x03"
"""How TLS begins an answer to whoever does not speak it: behind that may be anything, and Spark's client knows how to ask."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """A first message, how many bytes of an answer tell, and whether these are what Spark answers."""

    hello: bytes
    length: int
    is_sparks: Callable[[bytes], bool]


def answers(place: tuple[str, int], greeting: Greeting) -> bool:
    """Whether the listener of a place answers as Spark does within SPEAKS_S, or by TLS."""
    answer = b""
    try:
        with socket.create_connection(place, SPEAKS_S) as connection:
            connection.sendall(greeting.hello)
            while len(answer) < greeting.length and (more := connection.recv(greeting.length)):
                answer += more
    except OSError:
        pass
    is_whole = len(answer) >= greeting.length
    return answer.startswith(_ALERT) or (is_whole and greeting.is_sparks(answer))


def _is_settings(answer: bytes) -> bool:
    return answer[3] == _SETTINGS


def _is_message(answer: bytes) -> bool:
    length, kind = _FRAME.unpack_from(answer)
    return _FRAME.size <= length < _LONGEST and kind in _KINDS


CONNECT = Greeting(
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">BHBBI", 0, 0, _SETTINGS, 0, 0),
    9,
    _is_settings,
)
"""Of Spark Connect, which is gRPC: both sides of HTTP/2 begin with their settings."""

MASTER = Greeting(
    _FRAME.pack(_FRAME.size + 4 + len(_NOWHERE), _ASKS_FOR_STREAM)
    + struct.pack(">I", len(_NOWHERE))
    + _NOWHERE,
    _FRAME.size,
    _is_message,
)
"""Of a classic master: it is asked for a file that it does not have, and says so."""
