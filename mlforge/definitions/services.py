"""Services of a project by name, held against its features."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.core.arguments import instances
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.services.service import Service

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
        service.check(features)
        by_name[service.name] = service
    return by_name
