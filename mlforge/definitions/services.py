"""Services of a project by name, held against its features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlforge.core.arguments import instances
from mlforge.core.keeper import ALONE, Keeper
from mlforge.core.logs import get_logger
from mlforge.definitions.namesakes import check_meant
from mlforge.errors import (
    DefinitionError,
    FeatureNotFound,
    IntegrityError,
    MlforgeError,
    StoreError,
    did_you_mean,
)
from mlforge.features.feature import Feature
from mlforge.maintenance.retention import UNATTENDED
from mlforge.maintenance.service_versions import prune_services
from mlforge.services.keeping import AT, keep
from mlforge.services.service import Service
from mlforge.store import Store

log = get_logger("mlforge.services")

_WORKS = 'write services=[Service("checkout", features=[user_spend])], or leave it out'


def services_by_name(services: object, features: Mapping[str, Feature]) -> dict[str, Service]:
    """The services by name, case aside; DefinitionError for two of one name, and for features that are not defined."""
    by_name: dict[str, Service] = {}
    for service in instances(services, Service, "Definitions: services", _WORKS):
        if any(name.casefold() == service.name.casefold() for name in by_name):
            raise DefinitionError(
                f"Definitions: two services are named {service.name!r}; rename one of them"
            )
        for name in service.feature_names:
            if name not in features:
                raise DefinitionError(
                    f"Definitions: the service {service.name} takes the feature {name!r}, which is not among the "
                    f"features; {did_you_mean(name, sorted(features))}"
                )
        check_meant(f"the service {service.name}", service.features, features)
        service.check(features)
        by_name[service.name] = service
    return by_name


def service_named(services: Mapping[str, Service], text: str, store: Store) -> Service:
    """The service of the definitions by its name, or a kept version of one, as in `checkout@1`.

    Raises DefinitionError for a name that none has, and as `Service.at`.
    """
    if AT in text:
        return Service.at(store, text)
    if text not in services:
        raise DefinitionError(f"no service {text!r}; {did_you_mean(text, sorted(services))}")
    return services[text]


def keep_services(services: Iterable[Service], store: Store, keeper: Keeper = ALONE) -> bool:
    """Keep a version of each service that has changed, and prune those before it; those whose features have no version yet wait for these.

    A service that cannot be kept is logged, and keeps no other from its turn. Returns False where the store could not be
    read or written, so that another try may do better.
    """
    done = True
    for service in services:
        try:
            kept = keep(service, store, keeper)
            if kept is not None:
                prune_services(store, [service.name], UNATTENDED)
        except FeatureNotFound:
            continue
        except MlforgeError as error:
            log.warning("version of a service not kept", service=service.name, error=str(error))
            done &= not isinstance(error, StoreError) or isinstance(error, IntegrityError)
            continue
        if kept is not None:
            log.info(
                "version of a service kept",
                service=service.name,
                version=str(kept.version),
                bump=kept.bump,
                details=list(kept.details),
            )
    return done
