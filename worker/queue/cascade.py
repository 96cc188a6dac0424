"""The cascade: a version that is published is a drop for the features that are made from it."""

from __future__ import annotations

from mlforge.definitions.chains import readers
from worker.project import Project
from worker.queue.requests import request_each
from worker.state.pending import PendingRequest


def request_readers(
    project: Project, feature: str, version: str | None, closed_at: int | None
) -> None:
    """Request the features whose source is this one.

    closed_at: when the file was closed that the version follows from, in UTC microseconds: freshness counts from there.
    What a process that dies here leaves out, the reconciler requests: see `has_moved`.
    """
    pending = PendingRequest(f"{feature} {version}", closed_at)
    if of_readers := dict.fromkeys(readers(project.definitions.features, feature), pending):
        request_each(project, of_readers)


def has_moved(project: Project, feature: str) -> bool:
    """Whether the feature that this one is made from serves parts that this one has not looked at; False of one made from files."""
    definitions = project.definitions
    if definitions.feature(feature).upstream is None:
        return False
    listing = definitions.source(feature).scan()
    states = definitions.store.file_states(feature)
    seen = {path: state[:4] for path, state in states.items()}
    return listing.exists and seen != listing.stats
