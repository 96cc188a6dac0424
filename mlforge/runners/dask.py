"""Tasks on Dask: a future each, by the workers of a scheduler. Dask runs a task again whose worker is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlforge.build.orders import Answer
from mlforge.errors import MissingExtra
from mlforge.runners.cluster import ClusterRunner, address_in
from mlforge.runners.executor import answered

ADDRESS = "DASK_SCHEDULER_ADDRESS"
"""The variable that Dask's own clients take a scheduler's address from."""
_PORT = 8_786
_CONNECT_S, _SPEAKS_S = 30, 10.0


class DaskRunner(ClusterRunner):
    """Tasks by the workers of a Dask scheduler at `tcp://host:port`, or `tls://` with certificates as Dask's own settings name them."""

    name = "dask"
    kind = "Dask scheduler"
    lost = (
        "CommClosedError",
        "FutureCancelledError",
        "CancelledError",
        "Timed out",
        "TimeoutError",
    )

    def answers(self, orders: Sequence[str]) -> Sequence[str]:
        """The answers, a future each."""
        self.check_listens()
        with self.client_errors(), self._connected() as client:
            self._wait_for_worker(client)
            futures = client.map(answered, orders, pure=False, retries=0)
            return [self._answer_of(future) for future in futures]

    def places(self) -> list[tuple[str, int]]:
        """The scheduler's."""
        return self.parsed_places(_PORT)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A client of its own, which is no default for other code of this process."""
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtra.of("runner 'dask'", "dask") from error
        self._check_speaks()
        client = Client(self.address, timeout=_CONNECT_S, set_as_default=False, name="mlforge")
        try:
            yield client
        finally:
            client.close()

    def _check_speaks(self) -> None:
        """Raise RunnerUnavailable where whoever listens sends no greeting, as a scheduler does at once: Dask's client would wait for minutes.

        Over TLS nothing is checked, as there the client speaks first.
        """
        if self.address.rpartition("://")[0] not in ("", "tcp"):
            return
        for place in self.places():
            try:
                with socket.create_connection(place, _SPEAKS_S) as connection:
                    has_greeted = bool(connection.recv(1))
            except OSError:
                has_greeted = False
            if not has_greeted:
                raise self.unavailable(
                    f"whoever listens there has not greeted as a scheduler does within {_SPEAKS_S:g} s"
                )

    def _wait_for_worker(self, client: Any) -> None:
        try:
            client.wait_for_workers(1, timeout=self.start_within)
        except TimeoutError:
            raise self.idle() from None

    def _answer_of(self, future: Any) -> str:
        """The answer of a task, also of one that ended each worker that ran it."""
        from distributed import KilledWorker

        try:
            answer: str = future.result()
        except KilledWorker as error:
            return Answer.of(error, self.shown).to_json()
        return answer


def open_dask(definitions: object) -> DaskRunner:
    """The runner of the scheduler that DASK_SCHEDULER_ADDRESS names."""
    return DaskRunner(address_in(ADDRESS, "scheduler", DaskRunner, "tcp://host:8786"))
