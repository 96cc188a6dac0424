"""Audits in the background: one feature after another, in a process of its own, while there is nothing else to do.

That process has the lowest priority and bounds on its time and memory, and is ended as soon as work
arrives: no drop waits for an audit. Results are kept in the store, beside the versions.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.core.machine import memory
from mlforge.core.values import SECOND_US
from mlforge.errors import MlforgeError
from worker import logs
from worker.child_process import bound_to_parent
from worker.project import Project, Settings
from worker.state.ticket import Ticket

QUIET_S = 20.0
"""How long nothing must have been at work before an audit begins."""
TIMEOUT_S = 300.0
MEMORY = 4 << 30
AT_ONCE = 20
"""How many features a process audits at the most: its start costs as much as several small audits."""
SPAN_S = 1.0
"""How long a process begins further audits."""
REST, REST_PROVEN = 200, 400
"""Pauses between such processes, in times of the last one's length: so they take 0.5% of a core at most, and half of that once all that
is served is proven."""
PROVEN_S = 6 * 3600.0
"""How old the proof of a served version may be for that."""
_LOOKS = 20
"""How often it is looked which feature is due, while none is, within the time after which one is audited again."""
_PROVEN, _WRONG, _FAILED = 0, 1, 3

log = get_logger(__name__)


@dataclass
class Auditor:
    """Starts and ends audits; `tick` is called each second, `give_way` when something is requested.

    every_s: a feature is audited at most so often; 0 never.
    """

    project: Project
    every_s: float
    quiet_s: float = QUIET_S
    _process: subprocess.Popen[bytes] | None = None
    _features: tuple[str, ...] = ()
    _began: float = 0.0
    _busy_at: float = field(default_factory=time.monotonic)
    _rests_until: float = 0.0
    _rests_until_work: float = 0.0
    """The same once work has arrived: there may be versions now that nobody has proven."""
    _tried: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self, tickets: Iterable[Ticket]) -> None:
        """Do one round: stop an audit if there is work, record a finished one, or start the next."""
        if self.every_s <= 0:
            return
        if any(t.leased or (t.behind and not t.parked) for t in tickets):
            self.give_way()
            return
        now = time.monotonic()
        with self._lock:
            was_at_work = self._process is not None
            if self._process is not None:
                self._conclude(self._process, now)
            has_ended = was_at_work and self._process is None
            quiet_from = self._busy_at + min(self.quiet_s, self.every_s)
            is_due = not was_at_work and now >= max(self._rests_until, quiet_from)
        if has_ended:
            self._rest_on(now)
        elif is_due:
            self._begin(now)

    def give_way(self) -> None:
        """Work arrives: an audit in hand is given up, and tried again once it is quiet."""
        with self._lock:
            self._busy_at = time.monotonic()
            self._rests_until = min(self._rests_until, self._rests_until_work)
            if self._process is not None:
                self._end("gives way to work")
                self._forget_tries(self._features)

    def stop(self) -> None:
        """End the running audit, if any."""
        with self._lock:
            if self._process is not None:
                self._end("stopping")

    def _begin(self, now: float) -> None:
        """Begin with the features that are due. They are looked up without the lock, for which a drop would wait."""
        features = self._due(now)
        is_current = bool(features) and self.project.is_current()
        with self._lock:
            if self._busy_at >= now:
                return  # work has arrived meanwhile
            if is_current:
                self._start(features, now)
            else:
                self._rests_until = now + self.every_s / _LOOKS

    def _start(self, features: tuple[str, ...], now: float) -> None:
        self._features, self._began = features, now
        self._tried |= dict.fromkeys(features, now)
        code = "import sys; from worker.reconcile.audit_scheduler import main; main(sys.argv[1:])"
        self._process = subprocess.Popen(
            bound_to_parent([sys.executable, "-P", "-c", code, *features]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=self.project.settings.here,
        )

    def _due(self, now: float) -> tuple[str, ...]:
        """The features that were audited longest ago, those for which that is long enough."""
        store, now_us = self.project.definitions.store, clock.now()
        oldest = now_us - int(self.every_s * 1e6)
        candidates: list[tuple[int, str]] = []
        for name in self.project.definitions.features:
            tried = self._tried.get(name)
            if (tried is not None and now - tried < self.every_s) or store.pointer(name) is None:
                continue
            last = store.audit(name)
            # An audit to come: a clock was set back.
            if last is None or not oldest < last.at <= now_us:
                candidates.append((last.at if last else 0, name))
        return tuple(name for _, name in sorted(candidates)[:AT_ONCE])

    def _conclude(self, process: subprocess.Popen[bytes], now: float) -> None:
        code = process.poll()
        if code is None:
            if now - self._began > TIMEOUT_S:
                self._end(f"not done within {TIMEOUT_S:.0f} s")
            return
        self._process = None
        self._rest(now)
        begun = _told(process).split()
        self._forget_tries(set(self._features) - set(begun))
        if code not in (_PROVEN, _WRONG, _FAILED):
            log.warning("audit ended before its time", features=begun[-1:], code=code)

    def _forget_tries(self, features: Iterable[str]) -> None:
        """Have features that were not audited in the end be due again."""
        for feature in features:
            self._tried.pop(feature, None)

    def _rest(self, now: float) -> None:
        self._rests_until = self._rests_until_work = self._rested(now, REST)

    def _rest_on(self, now: float) -> None:
        """Rest for longer where all is proven; that is looked up without the lock, too."""
        if not self._all_is_proven():
            return
        with self._lock:
            if self._busy_at < now:
                self._rests_until = self._rested(now, REST_PROVEN)

    def _rested(self, now: float, times: int) -> float:
        return now + min(times * (now - self._began), 10 * self.every_s)

    def _all_is_proven(self) -> bool:
        """Whether an audit has lately proven each version that is served."""
        return all(map(self._is_proven, self.project.definitions.features))

    def _is_proven(self, feature: str) -> bool:
        served = self.project.definitions.store.pointer(feature)
        if served is None:
            return True
        last = self.project.definitions.store.audit(feature)
        if last is None or not last.is_proof or last.version != str(served.version):
            return False
        return 0 <= clock.now() - last.at < PROVEN_S * SECOND_US

    def _end(self, why: str) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()
        # else one that never ends would be the first again, and the others never have their turn
        self._forget_tries(set(self._features) - set(_told(process).split()))
        self._rest(time.monotonic())
        log.info("audit given up", features=self._features, why=why)


def _told(process: subprocess.Popen[bytes]) -> str:
    """The output of an ended process. Others may hold its stdout open for longer, such as processes of the definitions."""
    assert process.stdout is not None
    with process.stdout as stdout:
        os.set_blocking(stdout.fileno(), False)
        return (stdout.read() or b"").decode()


def main(features: Sequence[str]) -> None:
    """Audit features, in a process of its own.

    The scheduler hears through stdout which were begun, and the outcome by the exit code.
    """
    scheduler = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the definitions print
    os.nice(19)
    # Where a container is out of memory, some systems end all that is in it, the watcher too.
    most = min(MEMORY, memory() // 2)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    logs.configure("audit")
    code = _audit_all(features, lambda feature: print(feature, file=scheduler))
    sys.stderr.flush()
    os._exit(code)  # whatever the definitions started


def _audit_all(features: Sequence[str], begin: Callable[[str], object]) -> int:
    """The worst outcome of the audits that were begun within the span."""
    codes = {_PROVEN}
    try:
        project = Project.open(Settings.read())
    except MlforgeError as error:
        log.warning("cannot audit", features=features, error=str(error))
        return _FAILED
    ends = time.monotonic() + SPAN_S
    for feature in features:
        begin(feature)
        try:
            codes.add(_audit(project, feature))
        except MlforgeError as error:
            log.warning("cannot audit", feature=feature, error=str(error))
            codes.add(_FAILED)
        if time.monotonic() > ends:
            break
    return _WRONG if _WRONG in codes else max(codes)


def _audit(project: Project, feature: str) -> int:
    from mlforge.maintenance.sampling import Share

    audit = project.definitions.audit(feature, Share(seed=time.time_ns()))
    about = {
        "version": audit.version,
        "values": audit.values,
        "entities": audit.entities,
        "unproven": audit.unproven,
        "ms": round(audit.seconds * 1000, 1),
    }
    if audit.mismatches:
        log.error(
            "audit: what is stored or served is not what the files give",
            feature=feature,
            mismatches=audit.mismatches,
            first=audit.first[:3],
            **about,
        )
        project.event_log.write("mismatch", feature, mismatches=audit.mismatches, first=audit.first)
        return _WRONG
    log.info("audited", feature=feature, **about)
    return _PROVEN
