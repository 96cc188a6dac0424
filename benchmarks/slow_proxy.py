"""`python -m benchmarks.slow_proxy PORT SECONDS`: a server that answers as the one at a port does, each answer so much later.

It prints its own port. A store across a network is slow in this way: by the way there and back, whatever it is asked.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK = 1 << 18


@contextmanager
def slowed(port: int, seconds: float) -> Iterator[int]:
    """The port at which the server answers later, from a process of its own."""
    command = [sys.executable, "-m", __name__, str(port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


class _Connection:
    """A client's connection: the first bytes of each answer wait."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port, self._seconds = port, seconds
        self._is_asked = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._ask(reader, to_server), self._answer(from_server, writer))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            self._is_asked = True
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if self._is_asked:
                self._is_asked = False
                await asyncio.sleep(self._seconds)
            writer.write(chunk)
            await writer.drain()
        writer.close()


async def _run(port: int, seconds: float) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _Connection(port, seconds).serve(reader, writer), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), float(sys.argv[2])))
