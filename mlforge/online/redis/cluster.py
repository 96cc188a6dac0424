"""A Redis Cluster: which node has which slot, and sending each node its commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ClusterDownError, RedisClusterException

from mlforge.errors import DefinitionError, OnlineError, OnlineUnavailable
from mlforge.online.addresses import single_urls
from mlforge.online.books import Evidence
from mlforge.online.redis import resp, scripts
from mlforge.online.redis.client import (
    Server,
    connection_options,
    hash_of,
    place_of,
    read_answers,
    url_options,
)
from mlforge.online.redis.cluster_rounds import (
    Address,
    Block,
    Parcel,
    Rounds,
    is_moving,
    slot_of,
)
from mlforge.online.redis.evidence import evidence_of, is_replica

T = TypeVar("T")
_STREAMED_AT_ONCE = 96
_SCANS = 20
_SCAN_PAUSE_S = 0.25


class ClusterServer(Server):
    """The nodes of a cluster as one server: commands go to the node that has their slot, wherever it has moved to.

    redis-py's client knows the slots; each node's connections are those of a server.
    """

    def __init__(self, nodes: Sequence[dict[str, Any]]) -> None:
        """From redis-py's connection options of some nodes, which find the others; unknown ones raise DefinitionError."""
        kind, options = connection_options(nodes[0])
        first = [connection_options(node)[1] for node in nodes]
        if "path" in options or options.pop("db", 0):
            raise DefinitionError(
                "RedisStore: a cluster is reached by hosts and ports, and has the database 0 alone; write "
                "redis://host1:6379,host2:6379"
            )
        places = ",".join(map(place_of, first))
        self.options_hash = hash_of(kind, {**options, "host": places})
        self.host = str(options["host"])
        self.name = f"redis cluster at {places}"
        self._kind, self._options = kind, options
        self._first: list[Address] = [(str(node["host"]), int(node["port"])) for node in first]
        self._nodes: dict[Address, Server] = {}
        self._topology: RedisCluster | None = None
        self._lock = Lock()

    @classmethod
    def from_url(cls, url: str) -> ClusterServer:
        """The cluster at `redis://host1:port,host2:port` or `rediss://...`: some of its nodes, or one."""
        return cls([url_options(single) for single in single_urls(url)])

    def ping(self) -> bool:
        """True if every node that has slots answers; OnlineUnavailable if not."""
        self._of_each_master(Server.ping)
        return True

    def close(self) -> None:
        """Close the connections of threads; the next call opens new ones."""
        for node in tuple(self._nodes.values()):
            node.close()
        self._forget_slots()

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        for node in tuple(self._nodes.values()):
            await node.aclose()

    def evidence(self, mark: bool = False) -> Evidence | None:
        """The runs and histories of all nodes that have slots, and the count of keys that they have evicted; None if they do not report them.

        mark: leave a mark on each node without one, so that it shows when its counts are set back.
        """
        try:
            facts = self._facts(mark)
            if any(map(is_replica, facts)):  # which was a master when slots were last looked up
                self._refresh()
                facts = self._facts(mark)
            return evidence_of(facts)
        except OnlineUnavailable:
            raise
        except OnlineError:  # a user without the right to ask
            return None

    async def evidence_async(self) -> Evidence | None:
        """As `evidence`, in a thread."""
        return await asyncio.to_thread(self.evidence)

    def ask_about(self, key: str, *command: str) -> Any:
        """The reply to one command, on this key and such as lie where it does."""
        [[reply]] = self.ask_blocks([Block.of(key, resp.command(*command))])
        return reply

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """The replies of a script to each of these keys alone."""
        calls = [Block.of(key, resp.command("EVAL", script, "1", key, *arguments)) for key in keys]
        return [reply for [reply] in self.ask_blocks(calls)]

    def begin(
        self, script: str, keys: Sequence[str], listed: str, arguments: Sequence[str]
    ) -> list[Any]:
        """As `evaluate`, the last key when all others are done: where it is begun, all are. The list is first, on a node of its own."""
        self.ask_about(listed, "EVAL", scripts.LIST, "1", listed, arguments[scripts.FEATURE])
        before = self.evaluate(script, keys[:-1], arguments)
        return [*before, *self.evaluate(script, keys[-1:], arguments)]

    def scan(self, key: str, pattern: str, at_once: int) -> Iterator[list[str]]:
        """The keys of a pattern in the slot of a key, in chunks; each key at least once.

        Begun anew where the slot moves meanwhile: keys that move while they are looked for would be missed.
        """
        for _ in range(_SCANS):
            try:
                address = self._owner_of(slot_of(key))
                yield from self._scanned_on(self._node(address), key, pattern, at_once)
            except (_SlotMoves, OnlineUnavailable):
                time.sleep(_SCAN_PAUSE_S)
                self._refresh()
            else:
                return
        raise OnlineUnavailable(
            f"the slot of {key} in {self} moves from one node to another, or none has it; ask again when it has arrived"
        )

    def ask_blocks(self, blocks: Sequence[Block], raw: bool = False) -> list[list[Any]]:
        """The replies to each block, all sent at once, and again to where their slots are found to be.

        For idempotent commands only. raw: replies are bytes, not texts. An error reply is raised after all replies have arrived.
        """
        rounds = Rounds(blocks)
        with self._meaning():
            while rounds.is_open:
                parcels = rounds.parcels(self._owner)
                for parcel, outcome in zip(parcels, self._exchanged(parcels, raw), strict=True):
                    rounds.note(parcel, outcome)
                pause = rounds.close_round()
                if rounds.is_open:
                    time.sleep(pause)
                    self._refresh()
        return [self._all_granted(answer) for answer in rounds.answers]

    async def ask_blocks_async(self, blocks: Sequence[Block], raw: bool = False) -> list[list[Any]]:
        """As `ask_blocks`, on connections of the running event loop."""
        rounds = Rounds(blocks)
        with self._meaning():
            if self._topology is None:
                await asyncio.to_thread(self._refresh)
            while rounds.is_open:
                parcels = rounds.parcels(self._owner)
                outcomes = await asyncio.gather(*(self._sent(parcel, raw) for parcel in parcels))
                for parcel, outcome in zip(parcels, outcomes, strict=True):
                    rounds.note(parcel, outcome)
                pause = rounds.close_round()
                if rounds.is_open:
                    await asyncio.sleep(pause)
                    await asyncio.to_thread(self._refresh)
        return [self._all_granted(answer) for answer in rounds.answers]

    def stream_blocks(self, blocks: Iterable[Block]) -> int:
        """Send blocks of one reply each, many at once; returns the sum of the integer replies."""
        total, each = 0, iter(blocks)
        while some := list(islice(each, _STREAMED_AT_ONCE)):
            total += sum(int(reply) for [reply] in self.ask_blocks(some))
        return total

    def _exchanged(self, parcels: Sequence[Parcel], raw: bool) -> list[list[Any] | Exception]:
        """The replies to each parcel, or the error in place of them. All are sent before any is read: nodes work side by side."""
        sent: list[tuple[Any, Any] | Exception] = []
        outcomes: list[list[Any] | Exception] = []
        try:
            sent.extend(map(self._send, parcels))
            for parcel, connected in zip(parcels, sent, strict=True):
                outcomes.append(
                    connected
                    if isinstance(connected, Exception)
                    else _received(*connected, parcel, raw)
                )
        except BaseException:  # as when a job's time is up: replies are under way
            for connected in sent[len(outcomes) :]:
                if not isinstance(connected, Exception):
                    _give_up(*connected)
            raise
        return outcomes

    def _send(self, parcel: Parcel) -> tuple[Any, Any] | Exception:
        """The pool and the connection on which a parcel is sent, or the error."""
        pool = self._node(parcel.address).client.connection_pool
        try:
            connection: Any = pool.get_connection()
        except redis.RedisError as error:
            return error
        try:
            connection.send_packed_command([parcel.commands])
        except BaseException as error:
            _give_up(pool, connection)
            if isinstance(error, redis.RedisError):
                return error
            raise
        return pool, connection

    async def _sent(self, parcel: Parcel, raw: bool) -> list[Any] | Exception:
        try:
            return await self._node(parcel.address).exchange_async(
                parcel.commands, parcel.replies, raw
            )
        except redis.RedisError as error:
            return error

    def _scanned_on(
        self, node: Server, key: str, pattern: str, at_once: int
    ) -> Iterator[list[str]]:
        """The keys in a slot as long as the whole slot is on a node; _SlotMoves where it is not."""
        # While a slot moves, a node refuses commands on several keys that it has not got all of.
        probe = resp.command("EXISTS", key, f"{key}:none")
        cursor = "0"
        while True:
            scan = resp.command("SCAN", cursor, "MATCH", pattern, "COUNT", str(at_once))
            with self._meaning():
                replies = node.exchange(probe + scan + probe, 3)
            if is_moving(replies):
                raise _SlotMoves
            _, [cursor, keys], _ = self._all_granted(replies)
            if keys:
                yield keys
            if cursor == "0":
                return

    def rewrite_own_files(self) -> list[str]:
        """Rewrite the files of each node that has slots, one node after the other."""
        each = self._of_each_master(lambda node: node.rewrite_own_files())
        return [left for lefts in each for left in lefts]

    def _facts(self, mark: bool) -> list[dict[str, str]]:
        return self._of_each_master(lambda node: node.facts(mark))

    def _of_each_master(self, ask: Callable[[Server], T]) -> list[T]:
        """The answers of each node that has slots."""
        for is_last in (False, True):
            try:
                return [ask(self._node(address)) for address in self._masters()]
            except OnlineUnavailable:
                if is_last:
                    raise
                self._forget_slots()  # another may have taken over
        raise AssertionError("the last attempt returns or raises")

    def _masters(self) -> list[Address]:
        with self._meaning():
            primaries: list[Any] = self._known().get_primaries()  # type: ignore[no-untyped-call]
            return [_address(node) for node in primaries]

    def _owner_of(self, slot: int) -> Address:
        with self._meaning():
            address = self._owner(slot)
            if address is None:
                raise ClusterDownError(f"no node has the slot {slot}")
            return address

    def _owner(self, slot: int) -> Address | None:
        """The node that a slot was on when that was last looked up; None for none."""
        nodes = self._known().nodes_manager.slots_cache.get(slot)
        return _address(nodes[0]) if nodes else None

    def _node(self, address: Address) -> Server:
        node = self._nodes.get(address)
        if node is None:
            host, port = address
            options = {**self._options, "host": host, "port": port}
            node = self._nodes[address] = Server({"connection_class": self._kind, **options})
        return node

    def _known(self) -> RedisCluster:
        """redis-py's client, which looks slots up when it is made."""
        topology = self._topology
        if topology is None:
            with self._lock, self._meaning():
                topology = self._topology or self._looked_up()
                self._topology = topology
        return topology

    def _looked_up(self) -> RedisCluster:
        options = {k: v for k, v in self._options.items() if k not in ("host", "port")}
        known = dict.fromkeys([*self._first, *self._nodes])  # the first may all have gone by now
        return RedisCluster(
            startup_nodes=[ClusterNode(*address) for address in known],  # type: ignore[no-untyped-call]
            require_full_coverage=False,
            ssl=self._kind is redis.SSLConnection,
            **options,
        )

    def _refresh(self) -> None:
        """Look up anew which node has which slot."""
        topology = self._topology
        if topology is None:
            self._known()
            return
        try:
            topology.nodes_manager.initialize()
        except (redis.RedisError, RedisClusterException) as error:
            self._forget_slots()
            raise self._meant(error) from error

    def _forget_slots(self) -> None:
        with self._lock:
            topology, self._topology = self._topology, None
        if topology is not None:
            topology.close()

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        """Turn the client's errors into mlforge's."""
        try:
            yield
        except (redis.RedisError, RedisClusterException) as error:
            raise self._meant(error) from error

    def _meant(self, error: Exception) -> Exception:
        if isinstance(error, ClusterDownError):
            return OnlineUnavailable(
                f"{self} is down ({error}): no node serves a part of its slots; start the node that did, or let a "
                "replica of it take over"
            )
        if is_moving([error]):
            return OnlineUnavailable(
                f"{self} moves slots from one node to another ({error}); ask again when they have arrived"
            )
        if isinstance(error, RedisClusterException):
            return OnlineUnavailable(
                f"{self} does not answer ({error}); give RedisStore the addresses of nodes that run, and leave "
                "cluster=True out for a server that is no cluster's"
            )
        return super()._meant(error)


class _SlotMoves(Exception):
    """A slot is not, or not wholly, on the node that was asked."""


def _received(pool: Any, connection: Any, parcel: Parcel, raw: bool) -> list[Any] | Exception:
    try:
        answers = read_answers(connection, parcel.replies, raw)
    except redis.RedisError as error:
        _give_up(pool, connection)
        return error
    pool.release(connection)
    return answers


def _give_up(pool: Any, connection: Any) -> None:
    connection.disconnect()  # replies may be under way
    pool.release(connection)


def _address(node: Any) -> Address:
    return str(node.host), int(node.port)
