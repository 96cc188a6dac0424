"""Features whose definition was edited: they are published at once, however long `publish_every` lets pass between drops."""

from __future__ import annotations

from mlforge.definitions.registry import Definitions
from worker.project import Project
from worker.supervision import survived


def hurry_redefined(project: Project) -> None:
    """Have features that are left alone, or are at work, wait no longer than for their next request, where their served version is of another definition."""
    definitions = project.definitions
    if definitions.settings.publish_every is None:
        return
    wanted = {}
    for ticket in project.work_queue.read(definitions.features):
        may_wait = ticket.unreadable is None and (ticket.rests_until or ticket.leased)
        with survived("hold a feature against its definition", feature=ticket.feature):
            if may_wait and _is_redefined(definitions, ticket.feature):
                # One more than there are: a job of the old definitions may be at work.
                wanted[ticket.feature] = ticket.wanted + 1
    if wanted:
        project.work_queue.hurry(wanted)


def _is_redefined(definitions: Definitions, name: str) -> bool:
    """Whether the served version was made by other code or settings, or from another place, than a refresh would go by."""
    feature, served = definitions.feature(name), definitions.store.latest(name)
    if served is None:
        return False
    is_same = (served.code_hash, served.spec) == (feature.code_hash, feature.spec)
    if feature.upstream is not None:
        return not (is_same and served.upstream and served.upstream[0] == feature.upstream)
    places = served.table_sources or feature.tables  # a release before did not note them
    return not (
        is_same
        and served.source == definitions.source(name).text
        and dict(places) == dict(feature.tables)
    )
