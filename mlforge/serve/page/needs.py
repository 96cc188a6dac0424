"""Things that need a person, by the state of a project, with the deeds that would help and what each would do. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlforge.core.text import plural
from mlforge.errors import without_owners
from mlforge.serve.operations import APPROVE, RETRY, ROLLBACK
from mlforge.serve.page.words import of, second, sentence

Document = Mapping[str, Any]
CALM = ("ready", "waiting", "queued", "working", "pushing")
"""States of a feature in which nobody needs to do anything."""


_REASONS = 3
"""How many reasons are told of files that were left out."""
_BEGINNING = 1000
"""Characters of a hold's reason that a form sends back, to tell it from the next one's."""


@dataclass(frozen=True, slots=True)
class Deed:
    """A deed on a feature: the label of its button, what it would do, and the command that does the same."""

    deed: str
    feature: str
    label: str
    effect: str
    command: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that a feature left out, why, and the deed that tries it again."""

    path: str
    why: str
    deed: Deed


@dataclass(frozen=True, slots=True)
class Need:
    """A thing that waits for a person. feature: None where it concerns the whole project. files: where it is about several."""

    feature: str | None
    title: str
    sentence: str
    more: str = ""
    deeds: tuple[Deed, ...] = ()
    is_bad: bool = False
    files: tuple[LeftOut, ...] = ()


def needs_of(status: Document) -> list[Need]:
    """The needs of a project by the document of its status, the worst first."""
    needs = [Need(None, "", sentence(warning), is_bad=True) for warning in status["warnings"]]
    for feature in status["features"]:
        needs += _needs(feature)
    return sorted(needs, key=lambda need: not need.is_bad)


def needs_of_feature(feature: Document) -> list[Need]:
    """The needs of one feature, by its entry in the document, and of the feature that it waits for."""
    needs, upstream = list(_needs(feature)), feature.get("upstream")
    if upstream and feature["state"] != "waiting":  # one that waits for its first version says so
        needs.append(Need(feature["feature"], "gets nothing new", sentence(upstream)))
    return needs


def _needs(feature: Document) -> Iterator[Need]:
    name, state = feature["feature"], feature["state"]
    audit = feature["audit"]
    if state == "wrong" and audit:
        count = plural(audit["mismatches"], "value")
        yield Need(
            name,
            "has wrong values",
            f"{count} of {audit['version']} differ from what the files give.",
            "; ".join(map(str, audit["first"])),
            (roll_back(name, seen=feature.get("version")),),
            is_bad=True,
        )
    if state == "unreadable":
        yield Need(name, "cannot be read", " ".join(map(str, feature["unreadable"])), is_bad=True)
    if feature["held"]:
        yield Need(
            name,
            "is held",
            sentence(feature["held"]),
            sentence(feature["held_now"]),
            (approve(name, feature["held"]),),
        )
    if feature["error"]:
        title = "has failed for good" if state == "parked" else "fails"
        since = feature.get("failing_since")
        lasts = f" So it is since {second(since)} UTC." if since else ""
        again = "" if state == "parked" else f"Workers try it again by themselves.{lasts}"
        yield Need(
            name, title, sentence(feature["error"]), again, (retry(name),), state == "parked"
        )
    files = [
        LeftOut(path, without_owners(str(reason), name, path), retry(name, path))
        for path, reason in feature["quarantine"].items()
    ]
    if len(files) == 1:
        [file] = files
        yield Need(name, "left out a file", f"{file.path}: {of('it', file.why)}.", "", (file.deed,))
    elif files:
        yield _left_out(name, files)


def _left_out(name: str, files: Sequence[LeftOut]) -> Need:
    """The need that several files make together: how many there are of each reason, the most frequent first."""
    reasons = Counter(file.why for file in files).most_common()
    told = [
        f"{plural(count, 'file')}: {of('it' if count == 1 else 'each', why)}."
        for why, count in reasons[:_REASONS]
    ]
    if len(reasons) > _REASONS:
        rest = sum(count for _, count in reasons[_REASONS:])
        told.append(f"{plural(rest, 'file')} for other reasons.")
    title = f"left out {plural(len(files), 'file')}"
    return Need(name, title, " ".join(told), files=tuple(files))


def approve(name: str, hold: str) -> Deed:
    """The deed that ends the hold that is there for this reason."""
    return Deed(
        APPROVE,
        name,
        "Approve",
        "Refreshes it from its source as it is now, whatever is lost by that, and pushes the rows online.",
        f"mlforge approve {shlex.quote(name)}",
        {"hold": hold[:_BEGINNING]},
    )


def retry(name: str, path: str | None = None) -> Deed:
    """The deed that lets workers try a feature, or a file of it, again."""
    what = "this file" if path else "it"
    return Deed(
        RETRY,
        name,
        "Retry",
        f"Asks the workers to try {what} again at once. It ends the same unless its cause is gone.",
        f"mlforge retry {shlex.quote(name)}",
        {"path": path} if path else {},
    )


def roll_back(name: str, version: str | None = None, seen: str | None = None) -> Deed:
    """The deed that serves an older version. seen: the version that is served as it is offered."""
    which = version or "the version before"
    return Deed(
        ROLLBACK,
        name,
        f"Roll back to {version}" if version else "Roll back",
        f"Serves {which} at once, offline and online, and holds the feature there until you approve it.",
        f"mlforge rollback {shlex.quote(name)}{f' {version}' if version else ''}",
        {"version": version} if version else {"from": seen} if seen else {},
    )
