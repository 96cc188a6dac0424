"""Outcomes of jobs, each in a word: what a job's function returns, and what its process may do next."""

from __future__ import annotations

from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal[
    "refreshed",  # a version was published, or rows online are others
    "unchanged",
    "held",  # a person has to look first
    "resting",  # only pushed, as a version was published a moment ago
    "parked",  # only pushed, as its refresh has failed too often
    "failed",
    "gone",  # the definitions have no such feature
    "nothing to do",
    "task done",  # of a build that workers share
    "refused",  # such a task, for which another worker is asked
    "given back",  # the definitions at work are others by now
    "not ours",
]
ENDING: tuple[Outcome, ...] = ("failed", "parked", "gone")
"""Outcomes after which a job serves no further feature: its process may have been left in disorder."""
SOUND: tuple[Outcome, ...] = (
    *("refreshed", "unchanged", "resting", "held"),
    *("nothing to do", "task done"),
)
"""Outcomes after which the process of a job may serve another job."""
