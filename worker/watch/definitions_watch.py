"""The watch on edits of the definitions: edits that import are taken up, all others reported."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlforge.definitions.environment import PROFILES_FILE
from mlforge.errors import MlforgeError
from worker.child_process import bound_to_parent
from worker.project import Project, Settings, fingerprint

LOOK_EVERY_S = 0.5
_TIMEOUT_S, _GRACE_S = 60.0, 5.0
_AGAIN_S, _SHARE = 5.0, 10
"""The least pause until a broken edit is tried again, and the pause in times of what a try takes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an edit: other definitions (their hash), or an error."""

    hash: str | None = None
    error: str | None = None


@dataclass
class Follower:
    """A watch on the files of the definitions; `tick` is cheap, so call it often.

    taken_up: called when an edit imports and changes the definitions' meaning.
    broken: called with the error when an edit does not import, once for each edit. It is tried again from time to time, as what it lacks may
    lie elsewhere: a new module, a database. unsteady: called with a sentence where another process that loads these
    very files has other definitions, as by a model that is fitted at each import: no worker takes a job then.
    """

    project: Project
    taken_up: Callable[[], None]
    broken: Callable[[str], None]
    unsteady: Callable[[str], None]
    problem: str | None = field(default=None, init=False)
    """The reason, in a sentence, for which the files' definitions are not in use; None while they are, or are being tried for the first time."""
    _looked: float = 0.0
    _again_at: float = math.inf
    _known: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _told_of: dict[Path, tuple[int, int]] | None = None
    _trial: subprocess.Popen[str] | None = None
    _trial_ends: float = 0.0
    _is_edited: bool = False
    _is_untried: bool = False

    def __post_init__(self) -> None:
        self._files = _own_files(self.project)
        self._known = _stats(self._files)
        self._is_untried = bool(_objects_used(self.project))  # which may be others in each process

    def tick(self) -> None:
        """Notice an edit, try it in another process, report how that went."""
        now = time.monotonic()
        if self._trial is not None:
            self._conclude(self._trial, now)
        elif now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            stats = _stats(self._files)
            self._is_edited = stats != self._known or now >= self._again_at
            if self._is_edited or self._is_untried:
                self._known, self._is_untried = stats, False
                self._trial = _try_out(self.project.settings)
                self._trial_ends = now + _TIMEOUT_S

    def _conclude(self, trial: subprocess.Popen[str], now: float) -> None:
        if trial.poll() is None and now < self._trial_ends:
            return
        self._trial = None
        if trial.poll() is None:
            trial.terminate()
            try:
                trial.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                trial.kill()
                trial.wait()
            self._note_broken(f"the definitions do not import within {_TIMEOUT_S:.0f} s", now)
            return
        output, _ = trial.communicate()
        verdict = _read(output)
        if _stats(self._files) != self._known:  # edited again meanwhile: the next look will try it
            return
        if verdict.error is not None:
            self._note_broken(verdict.error, now)
            return
        self.problem, self._told_of, self._again_at = None, None, math.inf
        if verdict.hash != self.project.hash and self._is_edited:
            self.taken_up()
        elif verdict.hash != self.project.hash:
            self.problem = (
                f"each process that loads the definitions has others, so that no worker takes a job ({_objects_used(self.project)}): "
                "fit models beforehand, with a seed, and load them from a file"
            )
            self.unsteady(self.problem)

    def _note_broken(self, error: str, now: float) -> None:
        took_s = now - (self._trial_ends - _TIMEOUT_S)
        self._again_at = now + max(_AGAIN_S, _SHARE * took_s)
        self.problem = f"edited definitions do not import, the old ones stay in use: {error}"
        if self._told_of != self._known:  # by the edit, as an error may read otherwise at each try
            self._told_of = self._known
            self.broken(error)


def _objects_used(project: Project) -> str:
    """The objects from elsewhere whose states are part of a feature's code, as "spend uses MODEL"; empty where there are none."""
    features = project.definitions.features.values()
    used = ((feature.name, feature.code.states) for feature in features)
    return "; ".join(f"{name} uses {', '.join(states)}" for name, states in used if states)


def _try_out(settings: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        bound_to_parent(
            [
                sys.executable,
                "-P",
                "-c",
                "from worker.watch.definitions_watch import check; check()",
            ]
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=settings.here,
        text=True,
    )


def check() -> None:
    """Import the definitions and print what they are, as JSON: run in a process of its own."""
    from mlforge.definitions.loader import load

    answer: dict[str, str]
    out, sys.stdout = sys.stdout, sys.stderr  # what the definitions print is not the answer
    settings = Settings.read()
    try:
        definitions = load(settings.target, here=settings.here, profile=settings.profile)
        answer = {"hash": fingerprint(definitions)}
    except MlforgeError as error:
        answer = {"error": str(error)}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    os._exit(0)  # whatever the definitions started


def _read(output: str) -> Verdict:
    try:
        answer = json.loads(output)
    except ValueError:
        return Verdict(error="the definitions end the process that imports them")
    return Verdict(answer.get("hash"), answer.get("error"))


def _own_files(project: Project) -> list[Path]:
    """The files below the definitions' folder that this process imported, and its profiles; links are followed at each look."""
    folder = project.definitions.folder
    origins = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    imported = (file for file in map(Path, filter(None, origins)) if _lies_in(file, folder))
    return [*sorted(imported), folder / PROFILES_FILE]


def _lies_in(file: Path, folder: Path) -> bool:
    """Whether a module's file is one of the folder's own, an environment inside it left out."""
    for place, root in ((file, folder), (file.resolve(), folder.resolve())):
        if place.is_relative_to(root):
            return not {"site-packages", "dist-packages"} & set(place.relative_to(root).parts)
    return False


def _stats(files: list[Path]) -> dict[Path, tuple[int, int]]:
    stats = {}
    for file in files:
        try:
            stat = file.stat()
        except OSError:  # an editor that replaces files removes them for a moment
            continue
        stats[file] = (stat.st_mtime_ns, stat.st_size)
    return stats
