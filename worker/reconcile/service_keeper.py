"""Versions of services, kept by the worker once what a service is made of has changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mlforge.definitions.keeping import note_names
from mlforge.definitions.services import keep_services
from mlforge.services.service import Service
from worker.project import Project
from worker.supervision import survived


@dataclass
class ServiceKeeper:
    """The services of a project, each as it was when it was last looked at in full."""

    project: Project
    _seen: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _are_names_noted: bool = False

    def look(self) -> None:
        """Keep versions of the services whose features, or whose features' defaults, have changed since the last look.

        The first look notes what names the definitions have, where others share their store.
        """
        definitions = self.project.definitions
        with survived("note the names of these definitions"):
            self._are_names_noted = self._are_names_noted or note_names(definitions)
        for service in definitions.services.values():
            with survived("keep a version of a service", service=service.name):
                state = self._state(service)
                if state == self._seen.get(service.name):
                    continue
                if keep_services([service], definitions.store, definitions.keeper):
                    self._seen[service.name] = state

    def _state(self, service: Service) -> tuple[Any, ...]:
        store, names = self.project.definitions.store, service.feature_names
        pointers = [(name, store.pointer(name)) for name in names]
        defaults = [json.dumps(store.books(name).defaults, sort_keys=True) for name in names]
        return service, *pointers, *defaults
