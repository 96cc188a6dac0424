"""Entries of the event log as sentences for people, each drop with its life from close to readable. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core.text import FIRST_BUILD, plural
from mlforge.core.values import to_iso
from mlforge.errors import without_owners
from mlforge.registry.deeds import DEEDS
from mlforge.registry.live import Happening
from mlforge.serve.page.words import duration, of, sentence

STEPS: Mapping[str, str] = {
    "event": "seen",
    "queue": "queued",
    "lease": "leased",
    "read": "read",
    "build": "computed",
    "publish": "published",
    "push": "pushed",
    "other": "other",
}
"""The steps of a drop as the workers name them, and in a word."""
GOOD, QUIET, WARNING, BAD = "good", "quiet", "warning", "bad"
_WIDTH = 100.0
_WORTH_TELLING = 0.03  # of the whole
_TRIGGERS = {
    "definitions": "The definitions were taken up",
    "retry": "Somebody asked for a retry",
    "start": "The workers started",
    "first look into the source": "The workers looked into the source for the first time",
    "": "",
}
_REASONS = {"unchanged": "nothing changed"}
_PLAIN = ("data_refresh", FIRST_BUILD)
"""Reasons that the rest of the line tells."""
_LAG = ("version ", "its ", "rows are ", "a push ", "the server ", "the time to live ")
"""How the reasons begin for which rows online were out of date before a refresh: they hold no more."""
_PAST = {"is": "was", "are": "were", "lie": "lay", "cannot": "could not", "may": "might"}
_PRESENT = re.compile(rf"\b({'|'.join(_PAST)})\b")
_VERSION = re.compile(r" \d+\.\d+\.\d+$")
_TOLD = 2
"""How many files that were set aside a line tells of."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a drop's life: its word, its time, and where it lies in a bar of 100."""

    name: str
    word: str
    milliseconds: float
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Line:
    """A thing that happened, in words. tone: one of four. is_new: whether the reader has not seen it yet."""

    id: str
    at: str | None
    feature: str | None
    tone: str
    title: str
    sentence: str
    life: str = ""
    steps: tuple[Step, ...] = ()
    is_new: bool = False


def lines(entries: Iterable[Happening], seen: str | None = None) -> list[Line]:
    """The entries in words; seen: the id of the last one that the reader has."""
    return [_line(entry, seen is not None and _order(entry.id) > _order(seen)) for entry in entries]


def _order(id: str) -> tuple[int, int]:
    milliseconds, _, count = id.partition("-")
    whole = milliseconds.isdecimal() and (not count or count.isdecimal())
    return (int(milliseconds), int(count or 0)) if whole else (0, 0)


def _line(entry: Happening, is_new: bool) -> Line:
    try:
        tone, title, sentence, life, steps = _told(entry)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # no worker wrote it
        tone, title, life, steps = QUIET, "Unreadable", "", ()
        sentence = f"An entry of the event log cannot be read: {entry.kind}."
    return Line(
        entry.id, to_iso(entry.at), entry.feature, tone, title, sentence, life, steps, is_new
    )


def _told(entry: Happening) -> tuple[str, str, str, str, tuple[Step, ...]]:
    kind, details = entry.kind, entry.details
    if kind == "refreshed":
        return _refreshed(details, entry.feature or "")
    if kind == "failed":
        return BAD, "Failed", sentence(details["error"]), "", ()
    if kind == "held":
        return WARNING, "Held", sentence(details["reason"]), "", ()
    if deed := DEEDS.get(kind):
        tone = WARNING if deed.is_warning else GOOD
        return tone, deed.title, sentence(deed.sentence(details)), "", ()
    if kind == "mismatch":
        wrong = int(details["mismatches"])
        what = f"{plural(wrong, 'value')} {'differs' if wrong == 1 else 'differ'}"
        return BAD, "Wrong", f"{what} from what the files give: {details['first'][0]}", "", ()
    if kind == "dropped":
        return (
            QUIET,
            "Gone",
            "No longer in the definitions; its rows are not online any more.",
            "",
            (),
        )
    if kind == "watching":
        return (
            QUIET,
            "Watching",
            "The watcher looks at the sources: drop parquet files into them.",
            "",
            (),
        )
    if kind == "definitions":
        count = plural(len(details["features"]), "feature")
        return QUIET, "Definitions", f"Taken up, with {count}.", "", ()
    if kind == "late":
        late = f"{details['path']} changed in a partition that was sealed: all is listed once more."
        return WARNING, "Late", late, "", ()
    if kind == "definitions_unsteady":
        return BAD, "Definitions", f"Nothing is done: {details['error']}.", "", ()
    if kind == "definitions_broken":
        return (
            BAD,
            "Definitions",
            f"The edited ones do not import, the old ones stay: {details['error']}",
            "",
            (),
        )
    return QUIET, kind, "", "", ()


def _refreshed(
    details: Mapping[str, Any], feature: str
) -> tuple[str, str, str, str, tuple[Step, ...]]:
    did = _did(details, feature)
    quarantined = details["quarantined"]
    tone = WARNING if quarantined else GOOD if details["changed"] else QUIET
    life, steps = _life(details)
    return tone, _title(details), did, life, steps


def _title(details: Mapping[str, Any]) -> str:
    """`1.0.1, a patch version`, or what is served on where nothing changed."""
    version, bump = details["version"] or "no version yet", details["bump"]
    if not bump:
        return str(version)
    return f"{version}, {'the first' if details['reason'] == FIRST_BUILD else f'a {bump}'} version"


def _did(details: Mapping[str, Any], feature: str) -> str:
    """A sentence of what a refresh did, and one for each file that it set aside."""
    trigger, reason = str(details["trigger"] or ""), str(details["reason"])
    what = _why(trigger)
    done = [] if reason in _PLAIN else [_REASONS.get(reason, reason.replace("_", " "))]
    if details["changed"]:
        done.append(f"{plural(details['rows_recomputed'], 'row')} recomputed")
    pushed = details["entities_pushed"] + details["entities_deleted"]
    if pushed:
        done.append(f"{plural(pushed, 'entity', 'entities')} pushed")
    told = ": ".join(text for text in (what, ", ".join(done)) if text)
    quarantined = details["quarantined"]
    aside = [
        f"{path} is set aside: {of('it', without_owners(str(why), feature, path))}."
        for path, why in list(quarantined.items())[:_TOLD]
    ]
    if len(quarantined) > _TOLD:
        aside.append(f"So are {plural(len(quarantined) - _TOLD, 'more file', 'more files')}.")
    return " ".join([f"{told}.", *aside])


def _why(trigger: str) -> str:
    """The reason that a refresh was asked for, as the beginning of a sentence."""
    what = _TRIGGERS.get(trigger, trigger)
    if what.startswith(_LAG):
        return sentence(_PRESENT.sub(lambda verb: _PAST[verb[0]], what)).removesuffix(".")
    return f"{what} was published" if _VERSION.search(what) else what


def _life(details: Mapping[str, Any]) -> tuple[str, tuple[Step, ...]]:
    """The life of a drop from its file's close to its rows being readable: a sentence, and its steps."""
    total = _milliseconds(details["freshness_ms"])
    if total <= 0:
        return "", ()
    what = "Readable" if details["changed"] else "Known to change nothing"
    steps = tuple(_steps(details.get("steps"), total))
    told = [step for step in steps if step.milliseconds >= _WORTH_TELLING * total]
    spent = ", ".join(f"{step.word} {duration(step.milliseconds)}" for step in told)
    text = f"{what} {duration(total)} after the file was closed"
    return f"{text}: {spent}." if spent else f"{text}.", steps


def _steps(by_name: Any, total: float) -> Iterator[Step]:
    """The steps that took a millisecond and more, laid one after the other."""
    if not isinstance(by_name, dict):
        return
    taken = {name: _milliseconds(by_name.get(name)) for name in STEPS}
    whole = max(total, sum(taken.values()))
    start = 0.0
    for name, milliseconds in taken.items():
        width = _WIDTH * milliseconds / whole
        if milliseconds >= 1:
            yield Step(name, STEPS[name], milliseconds, round(start, 2), round(width, 2))
        start += width


def _milliseconds(value: Any) -> float:
    """A finite number from 0 on; 0 for anything else."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return max(0.0, float(value)) if is_number else 0.0
