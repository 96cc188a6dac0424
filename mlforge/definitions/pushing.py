"""Pushes of a project: as its owner, shared with whoever its runner knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlforge.definitions.runners import distribution_of
from mlforge.engines import Engine
from mlforge.online import OnlineStore
from mlforge.online.push import PushResult, owner_of, push

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions


def pushed(
    definitions: Definitions,
    name: str,
    online: OnlineStore,
    engine: Engine,
    **how: Any,
) -> PushResult:
    """The result of a push of one feature; how: `adopt` and `diff`, as in `push`."""
    owner = owner_of(definitions.store, definitions.name, str(definitions.root))
    sharing = distribution_of(definitions)
    return push(name, definitions.store, online, engine, owner, sharing=sharing, **how)
