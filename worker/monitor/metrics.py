"""`/metrics` for Prometheus, `/healthz` and `/readyz`: read at each request from the state that all processes share.

The watcher process serves them. Jobs run in forks of other processes, so nothing is counted here: counts of
jobs are in Redis, facts on versions in the store.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.core.release import RELEASE
from mlforge.core.values import SECOND_US, from_iso
from mlforge.errors import MissingExtra, MlforgeError
from worker.monitor.feature_status import FeatureStatus
from worker.monitor.status import gather
from worker.project import Project
from worker.state.counters import buckets
from worker.state.drop_steps import STEPS
from worker.supervision import DEAD_S, FAULTS, Heartbeat, tell_fault

if TYPE_CHECKING:
    from prometheus_client.core import Metric

HOST = "127.0.0.1"
_STATES = ("held", "parked", "failing", "incomplete", "quarantined", "unreadable", "wrong")
_COUNTERS = {
    "drops": "Changes of a feature's source that asked for a refresh; files that come together are one",
    "rows_changed": "Events that differed from those of the version before",
    "rows_recomputed": "Rows evaluated anew",
    "pushes": "Pushes that wrote or deleted rows",
    "entities_pushed": "Rows written online",
    "entities_deleted": "Rows deleted online",
}
_RESULTS = ("refreshed", "unchanged", "held", "failed")

log = get_logger(__name__)


@dataclass
class Health:
    """State that `/readyz` and `/healthz` ask for; `scanned` is set once all sources have been looked at."""

    project: Project
    heartbeats: tuple[Heartbeat, ...] = ()
    scanned: threading.Event = field(default_factory=threading.Event)

    def checks(self) -> dict[str, str]:
        """The problem of each condition, by its name; an empty text where there is none."""
        return {
            "redis": _wrong(self.project.redis.ping),
            "definitions": _wrong(self._are_current),
            "store": _wrong(self._store),
            "scan": "" if self.scanned.is_set() else "the sources have not been looked at yet",
            **{heartbeat.work: heartbeat.problem() for heartbeat in self.heartbeats},
        }

    def stuck(self) -> str:
        """The work that has not finished a round for DEAD_S seconds, with its problem, as text; empty if all goes on."""
        problems = ((each.work, each.problem(DEAD_S)) for each in self.heartbeats)
        return "; ".join(f"{work}: {problem}" for work, problem in problems if problem)

    def _are_current(self) -> None:
        if not self.project.is_current():
            raise MlforgeError("other definitions are in use by now")

    def _store(self) -> None:
        for name in self.project.definitions.features:
            self.project.definitions.store.pointer(name)


def _wrong(look: Callable[[], object]) -> str:
    try:
        look()
    except FAULTS as error:
        return str(error) or type(error).__name__
    return ""


class Collector:
    """A collector that reads all state again for each scrape."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def collect(self) -> Iterator[Metric]:
        """All metrics; where the server does not answer, only the metric that says so."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily(
            "mlforge",
            "This mlforge",
            value={"version": RELEASE, "project": self._project.name},
        )
        try:
            metrics = [*self._counted(), *self._seen()]
        except FAULTS as error:
            tell_fault("tell all metrics", error)
            metrics = []
        yield GaugeMetricFamily(
            "mlforge_up", "Whether the server and the store could be asked", value=bool(metrics)
        )
        yield from metrics

    def _counted(self) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            HistogramMetricFamily,
            SummaryMetricFamily,
        )

        names = sorted(self._project.definitions.features)
        counts = {name: self._project.counts.read(name) for name in names}
        for counter, what in _COUNTERS.items():
            family = CounterMetricFamily(f"mlforge_{counter}", what, labels=["feature"])
            for name in names:
                family.add_metric([name], counts[name].get(counter, 0))
            yield family
        results = CounterMetricFamily(
            "mlforge_refreshes", "Refreshes by how they ended", labels=["feature", "result"]
        )
        fresh = HistogramMetricFamily(
            "mlforge_freshness_seconds",
            "From a file's close to its rows being readable online",
            labels=["feature"],
        )
        steps = SummaryMetricFamily(
            "mlforge_freshness_steps_seconds",
            "Each step of a drop between a file's close and its rows being readable online",
            labels=["feature", "step"],
        )
        for name in names:
            for step in STEPS:
                drops, took_s = counts[name].get("steps", 0), counts[name].get(f"step_{step}", 0)
                steps.add_metric([name, step], count_value=int(drops), sum_value=took_s)
            for result in _RESULTS:
                results.add_metric([name, result], counts[name].get(result, 0))
            fresh.add_metric([name], buckets(counts[name]), counts[name].get("freshness_sum", 0))
        yield from (results, fresh, steps)

    def _seen(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        status = gather(self._project)
        watcher = status.watcher
        broken = watcher is not None and watcher.is_at_work and bool(watcher.definitions_problem)
        for name, what, value in (
            ("queue_depth", "Jobs that no worker has taken yet", status.queued),
            ("workers", "Workers that listen", sum(worker.is_ours for worker in status.workers)),
            ("warnings", "What `mlforge status` warns of", len(status.warnings)),
            (
                "definitions_broken",
                "1 while the definitions' files are not in use, as they do not import, or differ in each process",
                broken,
            ),
        ):
            yield GaugeMetricFamily(f"mlforge_{name}", what, value=value)
        for name, (what, tell) in _GAUGES.items():
            family = GaugeMetricFamily(f"mlforge_{name}", what, labels=["feature"])
            for feature in status.features:
                reading = tell(feature)
                if reading is not None:
                    family.add_metric([feature.feature], reading)
            yield family
        yield from _drift(status.features)
        states = GaugeMetricFamily(
            "mlforge_needs_attention",
            "1 for features in a state that a person must see to",
            labels=["feature", "state"],
        )
        for feature in status.features:
            for state in _STATES:
                states.add_metric([feature.feature, state], feature.state == state)
        yield states


def _drift(features: Iterable[FeatureStatus]) -> tuple[Metric, Metric]:
    """The index of each column that has a rule of drift, and the index from which on it says that the column has drifted."""
    from prometheus_client.core import GaugeMetricFamily

    index = GaugeMetricFamily(
        "mlforge_drift_psi",
        "How far the latest rows of a column have drifted from those before (population stability index)",
        labels=["feature", "column"],
    )
    limit = GaugeMetricFamily(
        "mlforge_drift_psi_limit",
        "The index from which on the column's rule says that it has drifted, the least of several rules",
        labels=["feature", "column"],
    )
    for feature in features:
        for column, note in feature.drift.items():
            index.add_metric([feature.feature, column], note.psi)
            limit.add_metric([feature.feature, column], note.limit)
    return index, limit


def _seconds(iso: str | None) -> float | None:
    us = from_iso(iso)
    return None if us is None else us / SECOND_US


def _since(iso: str | None) -> float:
    us = from_iso(iso)
    return 0.0 if us is None else max(0.0, (clock.now() - us) / SECOND_US)


# Gauges of a feature: name, help and value; None where there is no value.
_GAUGES: Mapping[str, tuple[str, Callable[[FeatureStatus], float | None]]] = {
    "rows": ("Rows of the served version", lambda f: f.rows),
    "online_rows": ("Rows online", lambda f: f.online_rows),
    "as_of_timestamp_seconds": ("The instant of the rows online", lambda f: _seconds(f.as_of)),
    "lag_seconds": (
        "How long the rows online have been behind what they should be",
        lambda f: f.lag_seconds,
    ),
    "failing_seconds": (
        "How long no refresh has gone well, since the first that failed; 0 if the last one did",
        lambda f: _since(f.failing_since),
    ),
    "quarantined_files": ("Files that are set aside", lambda f: len(f.quarantine)),
    "audit_mismatches": (
        "Values or rows that the last audit found wrong",
        lambda f: f.audit.mismatches if f.audit else None,
    ),
    "audit_values": (
        "Values that the last audit compared",
        lambda f: f.audit.values if f.audit else None,
    ),
    "audit_unproven_entities": (
        "Entities that the last audit could not prove, for files are gone",
        lambda f: f.audit.unproven if f.audit else None,
    ),
    "proven_timestamp_seconds": (
        "When the last audit without a mismatch was",
        lambda f: _seconds(f.audit.proven_at) if f.audit else None,
    ),
}


class Exporter:
    """An HTTP server in threads of this process; port 0 takes a free one."""

    def __init__(self, health: Health, port: int, host: str = HOST) -> None:
        try:
            from prometheus_client import CollectorRegistry, generate_latest
        except ModuleNotFoundError as error:
            raise MissingExtra.of("--metrics-port", "metrics") from error
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(health.project))
        try:
            self._server = ThreadingHTTPServer(
                (host, port), _handler(health, lambda: generate_latest(registry))
            )
        except OSError as error:
            raise MlforgeError(
                f"cannot serve metrics at {host}:{port} ({error.strerror}); give another --metrics-port"
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Start answering requests."""
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Stop answering requests, and close the port."""
        self._server.shutdown()
        self._server.server_close()


def _handler(health: Health, metrics: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics())
            elif self.path == "/healthz":
                stuck = health.stuck()
                self._answer(503 if stuck else 200, "text/plain", f"{stuck or 'alive'}\n".encode())
            elif self.path == "/readyz":
                checks = health.checks()
                body = json.dumps({name: wrong or "ok" for name, wrong in checks.items()})
                self._answer(
                    503 if any(checks.values()) else 200, "application/json", body.encode() + b"\n"
                )
            else:
                self._answer(404, "text/plain", b"/metrics, /healthz and /readyz are here\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            log.debug("asked", line=format % arguments)

    return Handler
