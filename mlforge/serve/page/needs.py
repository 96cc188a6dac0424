"""Things that need a person, by the state of a project, with the deeds that would help and what each would do. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlforge.errors import without_owners
from mlforge.serve.operations import APPROVE, RETRY, ROLLBACK
from mlforge.serve.page.words import plural

Document = Mapping[str, Any]
CALM = ("ready", "waiting", "queued", "working", "pushing")
"""States of a feature in which nobody needs to do anything."""


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
class Need:
    """A thing that waits for a person. feature: None where it concerns the whole project."""

    feature: str | None
    title: str
    sentence: str
    more: str = ""
    deeds: tuple[Deed, ...] = ()
    is_bad: bool = False


def needs_of(status: Document) -> list[Need]:
    """The needs of a project by the document of its status, the worst first."""
    needs = [Need(None, "", _sentence(warning), is_bad=True) for warning in status["warnings"]]
    for feature in status["features"]:
        needs += needs_of_feature(feature)
    return sorted(needs, key=lambda need: not need.is_bad)


def needs_of_feature(feature: Document) -> list[Need]:
    """The needs of one feature, by its entry in the document."""
    return list(_needs(feature))


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
            (roll_back(name),),
            is_bad=True,
        )
    if state == "unreadable":
        yield Need(name, "cannot be read", " ".join(map(str, feature["unreadable"])), is_bad=True)
    if feature["held"]:
        yield Need(
            name,
            "is held",
            _sentence(feature["held"]),
            _sentence(feature["held_now"]),
            (approve(name),),
        )
    if feature["error"]:
        title = "has failed for good" if state == "parked" else "fails"
        again = "" if state == "parked" else "Workers try it again by themselves."
        yield Need(
            name, title, _sentence(feature["error"]), again, (retry(name),), state == "parked"
        )
    for path, reason in feature["quarantine"].items():
        why = without_owners(str(reason), name, path)
        yield Need(name, "left out a file", f"{path}: {why}.", "", (retry(name, path),))


def approve(name: str) -> Deed:
    """The deed that ends a hold."""
    return Deed(
        APPROVE,
        name,
        "Approve",
        "Refreshes it from its source as it is now, whatever is lost by that, and pushes the rows online.",
        f"mlforge approve {shlex.quote(name)}",
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


def roll_back(name: str, version: str | None = None) -> Deed:
    """The deed that serves an older version."""
    which = version or "the version before"
    return Deed(
        ROLLBACK,
        name,
        f"Roll back to {version}" if version else "Roll back",
        f"Serves {which} at once, offline and online, and holds the feature there until you approve it.",
        f"mlforge rollback {shlex.quote(name)}{f' {version}' if version else ''}",
        {"version": version} if version else {},
    )


def _sentence(text: object) -> str:
    """A text as a sentence: a capital at its start, a stop at its end."""
    words = str(text or "").strip()
    return words[:1].upper() + words[1:] + ("" if not words or words[-1] in ".!?" else ".")
