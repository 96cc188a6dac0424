"""Everything that a process of the worker holds: definitions, server, work queue, event log."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import ResponseError

from mlforge.core import clock
from mlforge.core.values import DAY_US, SECOND_US
from mlforge.definitions.environment import PROFILE, redis_url
from mlforge.definitions.running import serve_at
from mlforge.errors import MlforgeError
from worker.connection import connect
from worker.state.counters import Counts
from worker.state.event_log import EventLog
from worker.state.presence import Presence
from worker.state.ticket import Ticket
from worker.state.work_queue import WorkQueue

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.online import OnlineStore

DEFINITIONS = "MLFORGE_DEFINITIONS"
JOB_TIMEOUT = "MLFORGE_JOB_TIMEOUT"
HINTS = "MLFORGE_HINTS"
JOB_TIMEOUT_S = 3_600
_CLOCKS_AGREE_US = SECOND_US


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings from the environment; read once, at the entry points."""

    redis_url: str
    target: str | None
    here: Path
    job_timeout_s: int = JOB_TIMEOUT_S
    """How long a refresh may take before its process is killed."""
    profile: str | None = None
    """Of `mlforge.toml`; None for its default."""
    hints: str | None = None
    """The URL of a queue that is told of buckets' changes."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings in REDIS_URL, MLFORGE_DEFINITIONS, MLFORGE_PROFILE, MLFORGE_JOB_TIMEOUT (seconds) and MLFORGE_HINTS.

        REDIS_URL_FILE names a file with the URL in place of REDIS_URL: a password need not be
        in the environment. Raises MlforgeError without a URL, or with an invalid timeout.
        """
        url = redis_url(environment) or environment.get("RQ_REDIS_URL")
        if not url:
            raise MlforgeError(
                "REDIS_URL is not set: start `mlforge up`, which brings a server that commands find by "
                "themselves, or export REDIS_URL=redis://localhost:6379/0 for a server of your own"
            )
        timeout = environment.get(JOB_TIMEOUT) or str(JOB_TIMEOUT_S)
        if not timeout.isdecimal() or int(timeout) < 1:
            raise MlforgeError(
                f"{JOB_TIMEOUT}={timeout!r} is not a number of seconds; "
                f"{JOB_TIMEOUT_S} is what it is when unset"
            )
        target, profile = environment.get(DEFINITIONS) or None, environment.get(PROFILE) or None
        hints = environment.get(HINTS) or None
        return cls(url, target, Path.cwd(), int(timeout), profile, hints)


@dataclass(frozen=True, slots=True)
class TakenUp:
    """The take-over by a watcher's definitions: its time by the server's clock, and whether other definitions decided before."""

    since: int
    others_before: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """A feature that the definitions no longer have, still served; instants in UTC microseconds."""

    feature: str
    since: int
    until: int


@dataclass(frozen=True)
class Project:
    """A set of definitions at work on one server.

    scope: names all that the project keeps on the server. It is the store's id, so that two projects on one
        server never see each other's work, whatever they or their folders are called.
    """

    settings: Settings
    definitions: Definitions
    redis: Redis
    hash: str
    scope: str

    @classmethod
    def open(cls, settings: Settings) -> Project:
        """Import the definitions and reach the server.

        The store gets its identity now if it has none. Raises DefinitionError, StoreError or
        OnlineUnavailable, each saying what would work.
        """
        from mlforge.definitions.loader import load

        redis = connect(settings.redis_url)
        definitions = load(settings.target, here=settings.here, profile=settings.profile)
        hash_, scope = fingerprint(definitions), scope_of(definitions)
        return cls(settings, serve_at(definitions, settings.redis_url), redis, hash_, scope)

    @property
    def name(self) -> str:
        """The project's name for people."""
        return self.definitions.name

    def is_of_its_store(self) -> bool:
        """Whether the store is still the one that the scope names; False once a new store lies in its place."""
        identity = self.definitions.store.identity()
        return identity is None or self.scope.startswith(identity.id)

    @cached_property
    def work_queue(self) -> WorkQueue:
        """The work queue of the project."""
        return WorkQueue(self.redis, self.scope, self.hash)

    @cached_property
    def event_log(self) -> EventLog:
        """The event log of the project."""
        return EventLog(self.redis, self.scope)

    @cached_property
    def counts(self) -> Counts:
        """Counts of what has happened so far, for metrics."""
        return Counts(self.redis, self.scope)

    @cached_property
    def presence(self) -> Presence:
        """Whether a watcher of the project is at work."""
        from mlforge.definitions.loader import DEFAULT

        label = f"{self.name} ({Path(self.settings.target or DEFAULT).name})"
        return Presence(self.redis, self.scope, label, sorted(self.definitions.features))

    @property
    def online(self) -> OnlineStore:
        """Where features go: the definitions' own store, else the server of the queue."""
        store = self.definitions.online_store
        assert store is not None, "open() gives every project one"
        return store

    @contextmanager
    def common_clock(self, ahead: int | None = None) -> Iterator[int]:
        """Use the server's clock in place of this host's within the block, since hosts must agree on the time.

        Otherwise a host whose clock is ahead would serve future values, and keep the others from correcting them.
        Yields the microseconds by which this host's clock is off. ahead: by how much it is, where that is known by now.
        """
        off = clock.now() - self.work_queue.now() if ahead is None else ahead
        if abs(off) < _CLOCKS_AGREE_US:
            off = 0
        with clock.shifted(-off):
            yield off

    def is_current(self) -> bool:
        """Whether these are the definitions that the watcher last took up."""
        return self._is_deciding(_or_nothing(self.redis.get, _current_key(self.scope)))

    def ticket_if_current(self, feature: str) -> Ticket | None:
        """A feature's ticket, where these are the definitions that the watcher last took up; both in one trip."""
        [ticket], current = self.work_queue.read_beside(_current_key(self.scope), [feature])
        return ticket if self._is_deciding(current) else None

    def _is_deciding(self, current: bytes | None) -> bool:
        return current is None or _deciding(current) == self.hash

    def has_say(self) -> bool:
        """Whether this process may take work: its definitions are the current ones, and their store is still there."""
        return self.is_current() and self.is_of_its_store()

    def make_current(self) -> TakenUp:
        """Make these definitions the current ones."""
        keys, arguments = [_current_key(self.scope)], [self.hash]
        since, before = self.redis.register_script(_TAKE_UP)(keys, arguments)
        return TakenUp(int(since), before is None or _deciding(before) != self.hash)

    def resign(self) -> None:
        """Let these definitions decide no longer: workers start anew, as the edited ones may name another store."""
        self.redis.register_script(_RESIGN)([_current_key(self.scope)], [self.hash])

    def stay_current(self, since: int) -> None:
        """Record these definitions as current again, where the server lost or reverted the record.

        since: when they were taken up. Definitions taken up later stay current.
        """
        self.redis.register_script(_STAY)([_current_key(self.scope)], [self.hash, since])

    def owned(self) -> set[str]:
        """Features that this project has pushed and not dropped since."""
        names: Any = _or_nothing(self.redis.smembers, self._owned_key) or ()
        return {name.decode(errors="replace") for name in names}

    def gone(self) -> list[Gone]:
        """Features that this project has pushed and no longer defines, by name."""
        noted: Any = _or_nothing(self.redis.hgetall, self._gone_key) or {}
        since = {name.decode(errors="replace"): _instant(at) for name, at in noted.items()}
        names = sorted(self.owned() - set(self.definitions.features))
        now, after = self.work_queue.now(), self.definitions.settings.gone_after.us
        starts = [(name, min(since.get(name, now), now)) for name in names]
        return [Gone(name, start, start + after) for name, start in starts]

    def note_gone(self, gone: Iterable[Gone]) -> None:
        """Record since when these features are gone, and drop the record of features that came back."""
        noted: Any = self.redis.hkeys(self._gone_key)
        starts = {feature.feature: feature.since for feature in gone}
        for name in noted:
            if name.decode(errors="replace") not in starts:
                self.redis.hdel(self._gone_key, name)
        for name, start in starts.items():
            self.redis.hsetnx(self._gone_key, name, str(start))

    def claim(self, feature: str) -> None:
        """Record that the feature's online rows belong to this project."""
        self.redis.sadd(self._owned_key, feature)

    def take_over(self) -> set[str]:
        """Claim features that the last release pushed for this project: it named owners by the project's name.

        Another project may have the same name, so only features with versions in this store are claimed.
        """
        owners: Any = self.redis.hgetall(_OWNERS_BEFORE)
        name = self.name.encode()
        before = {key.decode(errors="replace") for key, owner in owners.items() if owner == name}
        taken_over = before & set(self.definitions.store.features())
        for feature in taken_over:
            self.claim(feature)
            self.redis.hdel(_OWNERS_BEFORE, feature)
        return taken_over

    def delete_unreadable(self) -> list[str]:
        """Delete what lies where the lists of features do and is none; its keys' names.

        A feature is listed anew at its next push.
        """
        kinds = {self._owned_key: b"set", self._gone_key: b"hash"}
        others = [k for k, kind in kinds.items() if self.redis.type(k) not in (b"none", kind)]
        if others:
            self.redis.delete(*others)
        return others

    def disown(self, feature: str) -> None:
        """Delete the project's records of a feature that is gone."""
        self.redis.srem(self._owned_key, feature)
        self.redis.hdel(self._gone_key, feature)
        self.work_queue.forget(feature)
        self.event_log.forget(feature)
        self.counts.forget(feature)

    @property
    def _gone_key(self) -> str:
        return f"mlforge-work:{self.scope}:gone"

    @property
    def _owned_key(self) -> str:
        return f"mlforge-work:{self.scope}:owned"


def scope_of(definitions: Definitions) -> str:
    """The scope of a project, which is part of all its key names on a server: its store's id.

    Definitions that share a store (each with `partial=True`) have a scope each.
    """
    store_id = definitions.store.establish().id
    if not definitions.partial:
        return store_id
    return f"{store_id}-{hashlib.sha256(definitions.name.encode()).hexdigest()[:8]}"


def fingerprint(definitions: Definitions) -> str:
    """The hash of a set of definitions: it changes when they do."""
    text = f"{definitions.name}\0{definitions.hash}"
    return hashlib.sha256(text.encode()).hexdigest()


def _instant(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= 18 else 0


def _or_nothing(read: Callable[[str], Any], key: str) -> Any:
    """The value of a key; None where it is of another type, which nobody of us wrote."""
    try:
        return read(key)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return None


def _deciding(text: bytes) -> str:
    """The hash of the definitions that decide; empty where the text names none."""
    return text.decode(errors="replace").partition(" ")[0]


def _current_key(scope: str) -> str:
    return f"mlforge-work:{scope}:definitions"


_OWNERS_BEFORE = "mlforge-work:owners"

# The value is the hash and, in microseconds, since when it decides: that only rises. A key of another type is
# none and is written over, as is one whose instant is more than a year ahead: no watcher wrote it.
_BEFORE = f"""
local before = redis.pcall('GET', KEYS[1])
if type(before) ~= 'string' then before = false end
local t = redis.call('TIME')
local now = t[1] * {SECOND_US} + t[2]
local decided = tonumber(string.match(before or '', ' (%d+)$') or '0')
if decided > now + {366 * DAY_US} then decided = 0 end
"""
_TAKE_UP = f"""{_BEFORE}
local since = math.max(now, decided + 1)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. string.format('%d', since))
return {{string.format('%d', since), before}}
"""
_RESIGN = f"""{_BEFORE}
if before and string.match(before, '^%S+') == ARGV[1] then
  redis.call('SET', KEYS[1], ' ' .. string.format('%d', math.max(now, decided + 1)))
end
"""
_STAY = f"""{_BEFORE}
if decided < tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2]) end
"""

_open: Project | None = None


def use(project: Project) -> None:
    """Let the jobs of this process, and of its forks, find the project."""
    global _open  # noqa: PLW0603 - a job's function gets no more than its arguments
    _open = project


def known() -> Project | None:
    """The project of this process, None where nobody has opened one."""
    return _open


def in_use() -> Project:
    """The project of this process, opened from the environment if nobody did."""
    if _open is None:
        use(Project.open(Settings.read()))
    assert _open is not None
    return _open
