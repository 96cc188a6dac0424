"""The state of services: whether a request would be answered now, and if not, because of which feature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlforge.core.values import from_iso
from mlforge.services.description import describe
from mlforge.services.service import Service
from worker.monitor.feature_status import FeatureStatus

READY, WAITING, STALE = "ready", "waiting", "stale"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of a service: what it reads online, and what keeps it from answering.

    state: "ready"; "waiting", where a feature, or the version of it that the service names, is not online; "stale", where
    values of a feature are older than the service's `max_age`, or an untimed one was pushed longer ago. why: a sentence, None for "ready". served: the
    version online of each feature, None where there is none.
    """

    service: str
    owner: str
    state: str
    why: str | None
    max_age: str | None
    served: Mapping[str, str | None]


def service_status(
    service: Service, features: Mapping[str, FeatureStatus], now: int
) -> ServiceStatus:
    """The status of a service; features: those of the project, by name. now: UTC microseconds."""
    reasons = [*_unserved(service, features), *_stale(service, features, now)]
    state, why = reasons[0] if reasons else (READY, None)
    return ServiceStatus(
        service=service.name,
        owner=service.owner,
        state=state,
        why=why,
        max_age=None if service.max_age is None else str(service.max_age),
        served={name: features[name].online_version for name in service.feature_names},
    )


def _unserved(service: Service, features: Mapping[str, FeatureStatus]) -> Iterator[tuple[str, str]]:
    for use in describe(service)["features"]:
        name, version = use["feature"], use["version"]
        served = features[name].online_version
        if served is None:
            yield WAITING, f"{name} is not online"
        elif version not in (None, served):
            yield WAITING, f"it takes {name} {version}, {served} is online"


def _stale(
    service: Service, features: Mapping[str, FeatureStatus], now: int
) -> Iterator[tuple[str, str]]:
    if service.max_age is None:
        return
    for name in service.feature_names:
        status = features[name]
        since = status.as_of or status.pushed_at
        instant = from_iso(since)
        if instant is not None and abs(now - instant) > service.max_age.us:
            standing = "is as of" if status.as_of else "was pushed at"
            ahead = ", by a clock that was ahead" if instant > now else ""
            yield STALE, f"{name} {standing} {since}{ahead}, max_age is {service.max_age}"
