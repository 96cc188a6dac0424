"""Tasks on Ray: a remote call each. Ray runs a task again whose process or machine is lost."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlforge.build.orders import Answer
from mlforge.build.tasks import TASK_MEMORY
from mlforge.core import machine
from mlforge.errors import MissingExtra
from mlforge.runners.cluster import ClusterRunner
from mlforge.runners.executor import answered

ADDRESS = "RAY_ADDRESS"
"""The variable that Ray's own programs take a cluster's address from."""
_PORTS = {"ray": 10_001, "": 6_379}
_TRIES, _SPEAKS_S = 3, 10.0
_PASSING = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""Texts by which a cluster says that it could not start the process of a client, as one that is busy does."""
_PAUSE_S = 1.0
_TLS = "RAY_USE_TLS"

log = logging.getLogger("mlforge.runners")


class RayRunner(ClusterRunner):
    """Tasks by the processes of a Ray cluster: `ray://host:10001`, or on one of its machines `host:6379` or `auto`.

    Each task reserves a core and 4 GiB of a machine's memory, or all of that of the largest machine, if none has as much.
    """

    name = "ray"
    kind = "Ray"
    lost = ("ConnectionError", "RaySystemError", "LocalRayletDiedError", "UNAVAILABLE")

    def answers(self, orders: Sequence[str]) -> Sequence[str]:
        """The answers, a call each."""
        self.check_listens()
        self._check_speaks()
        with self.client_errors(), self._connected() as ray:
            needs = {"num_cpus": 1, "memory": _memory_of_a_task(ray)}
            self._wait_for_executor(ray, needs)
            call = ray.remote(answered).options(**needs, max_retries=_TRIES)
            return [self._answer_of(ray, call) for call in [call.remote(o) for o in orders]]

    def places(self) -> list[tuple[str, int]]:
        """The host and port of the address; none of `auto`, which is this machine's."""
        if self.address in ("auto", "local"):
            return []
        return self.parsed_places(_PORTS.get(self.address.rpartition("://")[0], 0))

    def _check_speaks(self) -> None:
        """Raise RunnerUnavailable where whoever listens does not speak gRPC, as Ray does: its client would try for minutes.

        With Ray's own TLS nothing is checked, as only Ray knows its certificates.
        """
        if os.environ.get(_TLS, "0").lower() in ("1", "true"):
            return
        try:
            import grpc
        except ImportError:  # Ray on this machine needs none
            return
        for host, port in self.places():
            with grpc.insecure_channel(f"{host}:{port}") as channel:
                try:
                    grpc.channel_ready_future(channel).result(_SPEAKS_S)
                except grpc.FutureTimeoutError:
                    raise self.unavailable(
                        f"whoever listens there has not answered as Ray does within {_SPEAKS_S:g} s"
                    ) from None

    def _wait_for_executor(self, ray: Any, needs: dict[str, int]) -> None:
        """Return once a process has taken a first task: Ray itself would wait for one for ever."""
        try:
            ray.get(ray.remote(machine.cores).options(**needs).remote(), timeout=self.start_within)  # fmt: skip
        except ray.exceptions.GetTimeoutError:
            raise self.idle() from None

    def _answer_of(self, ray: Any, call: Any) -> str:
        """The answer of a task, also of one that ended each process that ran it."""
        exceptions = ray.exceptions
        try:
            answer: str = ray.get(call)
        except (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
        ) as error:
            return Answer.of(error, self.shown).to_json()
        return answer

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Ray, connected; it stays so where it was before."""
        try:
            import ray
        except ImportError as error:
            raise MissingExtra.of("runner 'ray'", "ray") from error
        was_there = ray.is_initialized()
        if not was_there:
            self._connect(ray)
        try:
            yield ray
        finally:
            if not was_there:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        """Connect, and for as long as an executor may take to start again where what the cluster says passes."""
        deadline = time.monotonic() + self.start_within
        while True:
            try:
                ray.init(self.address, log_to_driver=False)
                return
            except (ConnectionError, TimeoutError, RuntimeError) as error:
                is_passing = any(text in str(error) for text in _PASSING)
                if is_passing and time.monotonic() < deadline:
                    log.info("asks Ray again: %s", error)
                    time.sleep(_PAUSE_S)
                    continue
                if is_passing or not isinstance(error, RuntimeError):
                    raise self.unavailable(str(error)) from error
                raise


def open_ray(definitions: object) -> RayRunner:
    """The runner of the cluster that RAY_ADDRESS names, or of that which this machine belongs to."""
    return RayRunner(os.environ.get(ADDRESS) or "auto")


def _memory_of_a_task(ray: Any) -> int:
    """Bytes of memory that a task reserves."""
    of_machines = [int(node["Resources"].get("memory", 0)) for node in ray.nodes()]
    return min(TASK_MEMORY, max(of_machines, default=0)) or TASK_MEMORY
