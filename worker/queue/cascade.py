"""The cascade: a version that is published is a drop for the features that are made from it."""

from __future__ import annotations

from mlforge.definitions.chains import readers
from worker.project import Project
from worker.queue import enqueue


def request_readers(
    project: Project, feature: str, version: str | None, closed_at: int | None
) -> None:
    """Request the features whose source is this one.

    closed_at: when the file was closed that the version follows from, in UTC microseconds: freshness counts from there.
    What a process that dies here leaves out, the watcher's next scan of its versions requests.
    """
    for reader in readers(project.definitions.features, feature):
        request = project.work_queue.request(reader, f"{feature} {version}", closed_at)
        enqueue(project, reader, request.job)
