"""Tasks on Spark: by Spark Connect, which Sail speaks, too, or a classic cluster.

Stages of mapInArrow, a partition a task; nothing is shuffled. Spark runs a task again whose executor is lost.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from mlforge.core.arguments import named, text
from mlforge.errors import DefinitionError, MissingExtra
from mlforge.runners import spark_greeting
from mlforge.runners.cluster import START_S, ClusterRunner, address_in
from mlforge.runners.executor import answered

if TYPE_CHECKING:
    import pyarrow as pa

REMOTE = "SPARK_REMOTE"
"""The variable that Spark's own clients take a server's address from."""
_CONNECT, _CLASSIC = "sc", "spark"
_KNOWN = re.compile(r"(sc|spark|k8s)://.|(yarn|local)$|local(-cluster)?\[")
"""How each kind of address begins. Another, such as a host and a port alone, Spark would take for a classic master."""
_PORTS = {_CONNECT: 15_002, _CLASSIC: 7_077}
_GREETINGS = {_CONNECT: spark_greeting.CONNECT, _CLASSIC: spark_greeting.MASTER}
_OVER_TLS = re.compile(r";(token=|use_ssl=true)", re.IGNORECASE)
"""Parameters of a Connect address with which its client speaks TLS from the first byte on."""
_RETRIES = 5
_STAGE = 1_000
"""The most tasks of a stage: each of them gets the orders of all."""
_SCHEMA = "number long, answer string"
log = logging.getLogger("mlforge.runners")


class SparkRunner(ClusterRunner):
    """Tasks by the executors of a Spark cluster, or of Sail.

    address: `sc://host:port` of a Spark Connect server, or a classic master such as `spark://host:port` or `yarn`, for which
    the process that builds needs Java and the whole pyspark. It may be given as `remote=` or `master=`, the words of Spark's own sessions. config: Spark's own settings; a
    Connect server takes those of a session alone. Executors need the same releases of mlforge and polars:
    PYSPARK_PYTHON, for a Connect server in its own environment, names their interpreter; for a classic master it is by
    default that of the process that builds.
    """

    name = "spark"
    kind = "Spark"
    lost = (
        "UNAVAILABLE",
        "Connection refused",
        "Connection reset",
        "All masters are unresponsive",
    )

    def __init__(
        self,
        address: str | None = None,
        *,
        remote: str | None = None,
        master: str | None = None,
        definitions: str | None = None,
        at_once: int | None = None,
        start_within: float = START_S,
        config: Mapping[str, str] | None = None,
    ) -> None:
        address = _the_one(address=address, remote=remote, master=master)
        super().__init__(
            address, definitions=definitions, at_once=at_once, start_within=start_within
        )
        if _KNOWN.match(address) is None:
            raise DefinitionError(
                f"SparkRunner: address={self.shown!r} is none of Spark's; write sc://host:15002 for a Spark Connect server or "
                "Sail, or a classic master: spark://host:7077, yarn or k8s://https://host:443"
            )
        what, works = "SparkRunner: config", 'write config={"spark.executor.memory": "6g"}'
        self.config = {} if config is None else dict(named(config, what, works))
        for name, value in self.config.items():
            text(value, f"{what}: {name}", works)

    def answers(self, orders: Sequence[str]) -> Sequence[str]:
        """The answers, a stage for each thousand orders."""
        self.check_listens()
        connected = _connect if self._scheme == _CONNECT else _classic
        with (
            self.client_errors(),
            connected(self.address, self.config, self.check_speaks) as session,
        ):
            self._wait_for_executor(session)
            stages = [orders[at : at + _STAGE] for at in range(0, len(orders), _STAGE)]
            return [answer for stage in stages for answer in _answers(session, stage)]

    def check_speaks(self) -> None:
        """Raise RunnerUnavailable where whoever listens at each place of the address answers otherwise than Spark does, or not at all."""
        greeting, places = _GREETINGS.get(self._scheme), self.places()
        if greeting is None or _OVER_TLS.search(self.address):
            return
        if not any(spark_greeting.answers(place, greeting) for place in places):
            raise self.unavailable("whoever listens there has not answered as Spark does")

    def _wait_for_executor(self, session: Any) -> None:
        """Return once an executor has taken a first task: Spark itself would wait for one for ever."""
        first = session.range(0, 1, 1, 1).mapInArrow(_as_they_come, "id long")
        ended: Future[Any] = Future()
        Thread(target=_settle, args=(ended, first.collect), daemon=True).start()
        try:
            ended.result(self.start_within)
        except TimeoutError:
            raise self.idle() from None

    @property
    def _scheme(self) -> str:
        return self.address.partition("://")[0]

    def places(self) -> list[tuple[str, int]]:
        """The hosts and ports of the address, of which a classic one may name several; none where it has none, such as `yarn`."""
        if self._scheme not in _PORTS:
            return []
        return self.parsed_places(_PORTS[self._scheme])


def open_spark(definitions: object) -> SparkRunner:
    """The runner of the Spark Connect server that SPARK_REMOTE names."""
    return SparkRunner(address_in(REMOTE, "cluster", SparkRunner, "sc://host:15002"))


def _the_one(**addresses: str | None) -> str:
    """The one address that is given; DefinitionError for none, or several."""
    given = [address for address in addresses.values() if address is not None]
    if len(given) != 1:
        raise DefinitionError(
            'SparkRunner: give one address: SparkRunner("sc://host:15002"), remote="sc://host:15002" or master="spark://host:7077"'
        )
    return given[0]


def _answers(session: Any, orders: Sequence[str]) -> list[str]:
    """The answers of a stage, a partition an order."""
    numbers = session.range(0, len(orders), 1, len(orders))
    rows = numbers.mapInArrow(_by_partition(orders), _SCHEMA).collect()
    by_number = {row.number: row.answer for row in rows}
    return [by_number[number] for number in range(len(orders))]


def _as_they_come(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    return batches


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Do the work, and let the future end as it does."""
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        log.debug("the first task failed", exc_info=error)


def _by_partition(
    orders: Sequence[str],
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function of a stage: from numbers of orders to their answers. It travels as its code, with `answered` by name.

    Every partition gets it whole, so the orders, which are much alike, are packed.
    """
    packed = zlib.compress("\n".join(orders).encode())

    def answer(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        orders = zlib.decompress(packed).decode().split("\n")  # JSON has no line ends of its own
        for batch in batches:
            numbers = batch.column(0).to_pylist()
            answers = [answered(orders[number]) for number in numbers]
            yield pa.RecordBatch.from_pydict({"number": numbers, "answer": answers})

    return answer


@contextmanager
def _connect(address: str, config: Mapping[str, str], check: Callable[[], None]) -> Iterator[Any]:
    """A session of a Spark Connect server, apart from any other of this process; `check` is called before the first word to it."""
    try:
        from pyspark.sql.connect.client.retries import DefaultPolicy
        from pyspark.sql.connect.session import SparkSession
    except ImportError as error:
        raise MissingExtra.of("runner 'spark'", "spark") from error
    check()
    session = SparkSession.builder.remote(address).create()
    session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES, max_backoff=5_000)])
    try:
        for name, value in config.items():
            _configure(session, name, value)
        yield session
    finally:
        session.stop()


def _configure(session: Any, name: str, value: str) -> None:
    """Have a session's setting. DefinitionError for one that the server takes at its own start alone: Spark's builder would only warn."""
    from pyspark.errors import AnalysisException

    try:
        session.conf.set(name, value)
    except AnalysisException as error:
        why = " ".join(str(error).split())[:300]
        raise DefinitionError(
            f"SparkRunner: config: {name!r} is no setting of a session ({why}); give it to the Spark Connect server where that is started"
        ) from error


@contextmanager
def _classic(address: str, config: Mapping[str, str], check: Callable[[], None]) -> Iterator[Any]:
    """The session of this process on a classic master; stopped at the end unless it was there before. check: as in `_connect`."""
    try:
        from pyspark.core.context import SparkContext
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtra(
            f"{address} is a classic master, for which 'pip install pyspark' in the place of pyspark-client, and Java 17: "
            "or give the address of its Spark Connect server, sc://host:15002"
        ) from error
    found = SparkContext._active_spark_context is not None
    if not found:
        check()
    builder = SparkSession.builder.master(address).appName("mlforge")
    if "PYSPARK_PYTHON" not in os.environ:
        builder = builder.config("spark.pyspark.python", sys.executable)
    session = builder.config(map={"spark.ui.enabled": "false", **config}).getOrCreate()
    try:
        yield session
    finally:
        if not found:
            session.stop()
