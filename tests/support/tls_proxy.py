"""TLS before a server that has none, as the embedded one: a proxy that ends it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HANDSHAKE = b"\x16"
"""The first byte of whoever speaks TLS."""


@contextmanager
def tls_before(port: int, certificate: Path, key: Path, *, or_plain: bool = False) -> Iterator[int]:
    """A port of this machine behind which a server of it is reached over TLS alone; or_plain: without TLS, too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(raw: socket.socket) -> None:
        with suppress(OSError):
            is_plain = or_plain and raw.recv(1, socket.MSG_PEEK) != _HANDSHAKE
            secure = raw if is_plain else context.wrap_socket(raw, server_side=True)
            plain = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_pump, args=(plain, secure), daemon=True).start()
            _pump(secure, plain)
            secure.close()
            plain.close()
            return
        raw.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                threading.Thread(target=serve, args=(raw,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
