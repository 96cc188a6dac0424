"""Reads as steps: a read is a generator that yields questions to a store, and goes on with their answers.

So the meaning of a read is written once. Two drivers put the questions: `answered` waits for each of them,
`answered_async` awaits it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


class Question(NamedTuple):
    """A call to a store, as a function that blocks and as one that is awaited; both give the same, and raise the same."""

    ask: Callable[..., Any]
    ask_async: Callable[..., Awaitable[Any]]
    arguments: tuple[Any, ...] = ()


Steps: TypeAlias = Generator[Question, Any, T]


def answered(steps: Steps[T]) -> T:
    """The result of the steps, each question asked in this thread; raises as the steps and the questions do."""
    try:
        question = next(steps)
        while True:
            question = steps.send(question.ask(*question.arguments))
    except StopIteration as end:
        result: T = end.value
        return result


async def answered_async(steps: Steps[T]) -> T:
    """The result of the steps, each question awaited; raises as `answered` does."""
    try:
        question = next(steps)
        while True:
            question = steps.send(await question.ask_async(*question.arguments))
    except StopIteration as end:
        result: T = end.value
        return result
