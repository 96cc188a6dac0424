"""A project at work as its HTTP server tells of it: event log, state, and what a person asks of the workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from mlforge.definitions.registry import Definitions
from mlforge.errors import OnlineUnavailable
from mlforge.registry.live import Document, Happening, Live
from worker.connection import connect
from worker.monitor.ignored_files import with_ignored_files
from worker.monitor.status import gather
from worker.project import Project, Settings, fingerprint, scope_of
from worker.service.wait import ask_at_once, leave_quarantine
from worker.state.event_log import Entry
from worker.state.notices import Notices


def open_live(definitions: Definitions, url: str) -> Live:
    """The project of definitions on the server at a URL, which is reached when it is first asked."""
    return _Live(definitions, url)


class _Live(Live):
    def __init__(self, definitions: Definitions, url: str) -> None:
        self._definitions, self._url = definitions, url
        self._project: Project | None = None

    @property
    def _open(self) -> Project:
        if self._project is None:
            settings = Settings(self._url, None, Path.cwd())
            redis, definitions = connect(self._url), self._definitions
            self._project = Project(
                settings, definitions, redis, fingerprint(definitions), scope_of(definitions)
            )
        return self._project

    def close(self) -> None:
        project, self._project = self._project, None
        if project is not None:
            project.redis.close()

    def status(self) -> dict[str, Any]:
        with _in_words():
            return with_ignored_files(self._definitions, gather(self._open)).to_json()

    def recent(self, count: int) -> list[Happening]:
        with _in_words():
            return [_happening(entry) for entry in self._open.event_log.recent(count)]

    def after(self, id: str, wait_ms: int | None = None) -> list[Happening]:
        with _in_words():
            return [_happening(entry) for entry in self._open.event_log.read(id, wait_ms)]

    def last_id(self) -> str:
        with _in_words():
            return self._open.event_log.last_id()

    def has_their_definitions(self) -> bool:
        with _in_words():
            return self._open.is_current()

    def retry(self, feature: str, path: str | None = None) -> None:
        with _in_words():
            leave_quarantine(self._definitions.store, feature, path)
            ask_at_once(self._open, [feature], "retry")

    def write(self, kind: str, feature: str, details: Document) -> None:
        with _in_words():
            self._open.event_log.write(kind, feature, **details)

    def hint(self, addresses: Sequence[str]) -> None:
        with _in_words():
            Notices(self._open.redis, self._open.scope).put(addresses)


def _happening(entry: Entry) -> Happening:
    return Happening(entry.id, entry.at, entry.kind, entry.feature, entry.details)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise OnlineUnavailable(
            f"the server of the workers does not answer ({error}); `mlforge up` starts one"
        ) from error
