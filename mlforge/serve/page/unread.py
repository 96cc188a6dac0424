"""The page of a feature or a service while the store cannot be read: what the definitions and the online store tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.registry.graph import FEATURE, KINDS, Node
from mlforge.serve.page.home import Mark, mark, service_mark
from mlforge.serve.page.needs import Need, needs_of_feature
from mlforge.serve.page.project import ProjectView


@dataclass(frozen=True)
class UnreadPage:
    """A feature or a service as it is known without the store. kind: in words. state: by the status of the project; None where no workers are known. problem: why the store cannot be read."""

    name: str
    kind: str
    description: str
    mark: Mark | None
    state: Mapping[str, Any] | None
    needs: tuple[Need, ...]
    problem: str


def unread_page(view: ProjectView, node: Node, problem: str) -> UnreadPage | None:
    """The page of a feature or a service; None where the definitions have none of that name."""
    definitions, state = view.definitions, view.state()
    is_feature = node.kind == FEATURE
    among = definitions.features if is_feature else definitions.services
    if node.name not in among:
        return None
    known = state.of(node.name) if is_feature else state.of_service(node.name)
    return UnreadPage(
        name=node.name,
        kind=KINDS[node.kind],
        description=among[node.name].description,
        mark=mark(known) if is_feature else service_mark(known),
        state=known,
        needs=tuple(needs_of_feature(known)) if known and is_feature else (),
        problem=problem,
    )
