"""Whether a function asks anything of the world: clocks, random numbers, files, the environment."""

from __future__ import annotations

import contextvars
import datetime
import os
import random
import sys
import threading
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from mlforge.features.ast_form import nested
from mlforge.features.garbage import hear_collections, is_being_collected
from mlforge.features.native_reads import files_in_sql
from mlforge.features.references import Home, is_installed, module_of, reachable

_CLOCK, _CHANCE = "reads the clock", "draws random numbers"
_FILES, _ENVIRONMENT = "reads files", "reads the environment"

# Names that compiled libraries answer to (numpy, pandas): the interpreter does not see those calls.
_NAMES = {
    **dict.fromkeys(("now", "utcnow", "today", "time_ns", "monotonic", "perf_counter"), _CLOCK),
    **dict.fromkeys(("random", "default_rng", "RandomState", "uuid1", "uuid4", "urandom"), _CHANCE),
}
# Built-in functions by module and name; "" stands for all in it.
_BUILT_IN = {
    ("time", ""): _CLOCK,
    ("posix", "urandom"): _CHANCE,
    ("nt", "urandom"): _CHANCE,
    ("_socket", ""): "uses the network",
    ("_posixsubprocess", ""): "runs programs",
}
# Questions about files that are not opened, where code outside of installed packages asks them.
_ABOUT_FILES = frozenset(
    ("posix", name) for name in ("access", "lstat", "readlink", "stat", "statx")
)
# Modules between such code and the question.
_PATHS = {"fnmatch", "genericpath", "glob", "os", "pathlib", "posixpath", "shutil"}
# Methods of polars' own objects, by the start of their qualified names.
_POLARS = {
    "PyLazyFrame.new_from_": _FILES,
    "PyDataFrame.read_": _FILES,
    "PyDataFrame.sample_": _CHANCE,
    "PyExpr.sample_": _CHANCE,
    "PyExpr.shuffle": _CHANCE,
}
# Who looks at clocks and files on the way, without the result's depending on them.
_BYSTANDERS = {"_strptime", "dateutil", "importlib", "linecache", "logging", "pytz", "structlog", "tokenize", "warnings", "zoneinfo"}  # fmt: skip
# Arrow opens files where the interpreter does not see it; its functions in Python are seen.
_ARROW = {"read_table", "read_pandas", "read_feather", "dataset", "ParquetFile.__init__", "ParquetDataset.__init__"}  # fmt: skip
_SQL_CALLS = {"execute", "from_query", "query", "sql"}
_GETENV: CodeType = type(os.environ).__getitem__.__code__


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a call or its error, and the world that it was seen to ask, in the order of asking."""

    result: object = None
    error: BaseException | None = None
    questions: tuple[str, ...] = ()

    @property
    def first_question(self) -> str | None:
        """The first question to the outside world, None if the call asked nothing."""
        return self.questions[0] if self.questions else None

    @property
    def reads(self) -> str | None:
        """The first question about files, None if the call read none."""
        return next((question for question in self.questions if question.startswith(_FILES)), None)


def named(function: Callable[..., object]) -> str | None:
    """The name of the outside world that the code of a function or its helpers uses; None for nothing.

    It is a coarse net below `call`, for what compiled libraries do: a name alone is enough.
    """
    home = Home.of(function)
    for value in reachable(function):
        if isinstance(value, FunctionType) and home.owns(module_of(value)):
            for code in nested(value.__code__):
                for name in code.co_names:
                    if name in _NAMES:
                        return f"{_NAMES[name]} ({name})"
        for owner in (value, getattr(value, "__self__", None)):
            if type(owner).__module__.startswith("numpy.random"):
                return f"{_CHANCE} (numpy)"
    return None


def call(function: Callable[[], object]) -> Outcome:
    """Call a function and record what it asks of the outside world; its exceptions are caught, not raised.

    But for MemoryError, which says nothing of the function: in a process that is short of memory not even a
    further thread may start.

    The function runs in a thread of its own, so that a profiler at work here stays undisturbed, and a timeout
    that a signal raises here is not taken for the function's error.
    """
    _hear_opened_files()
    questions: dict[str, None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("c_call", "call"):
            return
        what = _asked_natively(argument, frame) if event == "c_call" else _asked(frame)
        if what and what not in questions and not _on_the_way(frame):
            questions[what] = None

    def opened(frame: FrameType) -> None:
        if not _on_the_way(frame):
            questions[f"{_FILES} (open)"] = None

    def watched() -> object:
        hear_collections()
        _listeners[threading.get_ident()] = opened
        sys.setprofile(note)
        try:
            return function()
        finally:
            sys.setprofile(None)
            del _listeners[threading.get_ident()]

    return replace(call_unwatched(watched), questions=tuple(questions))


def call_unwatched(function: Callable[[], object]) -> Outcome:
    """As `call`, at full speed: what the function asks of the outside world is not recorded."""
    outcomes: list[Outcome] = []

    def run() -> None:
        try:
            outcomes.append(Outcome(function()))
        # All that a function raises is an answer; interrupts are for the thread that waits.
        except BaseException as error:  # noqa: BLE001
            outcomes.append(Outcome(error=error))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="mlforge-proof", daemon=True)
    thread.start()
    thread.join()
    [outcome] = outcomes
    if isinstance(outcome.error, MemoryError):
        raise outcome.error
    return outcome


@contextmanager
def hearing_reads() -> Iterator[list[str]]:
    """The files that this thread opens for reading within the block, as questions; a call at full speed."""
    _hear_opened_files()
    questions: list[str] = []

    def opened(frame: FrameType) -> None:
        if not questions and not _on_the_way(frame):
            questions.append(f"{_FILES} (open)")

    hear_collections()
    thread = threading.get_ident()
    _listeners[thread] = opened
    try:
        yield questions
    finally:
        del _listeners[thread]


# What Python tells of, besides files that are opened: databases, and the names in a folder.
_OPENINGS = frozenset({"open", "sqlite3.connect", "os.listdir", "os.scandir"})
# By thread: the calls that are being watched.
_listeners: dict[int, Callable[[FrameType], None]] = {}


@cache
def _hear_opened_files() -> None:
    """Start to tell listeners of files that their threads open for reading, also in compiled code."""
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _OPENINGS or not _listeners:
        return
    listener = _listeners.get(threading.get_ident())
    if event != "open":
        if listener is not None and str(arguments[0]) not in ("", ":memory:"):
            listener(sys._getframe(1))
        return
    flags = arguments[2]
    is_written = flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_TRUNC
    is_zone = str(arguments[0]).startswith(zoneinfo.TZPATH)  # libraries look zones up by themselves
    if listener is not None and not is_written and not is_zone:
        listener(sys._getframe(1))


def _asked_natively(function: Any, frame: FrameType) -> str | None:
    owner, name = getattr(function, "__self__", None), function.__name__
    if isinstance(owner, random.Random):
        what: str | None = _CHANCE
    elif isinstance(owner, type) and issubclass(owner, datetime.date):
        what = _CLOCK if name in ("now", "utcnow", "today") else None
    elif isinstance(owner, ModuleType) and (owner.__name__, name) in _ABOUT_FILES:
        what = _FILES if _is_asked_by_user(frame) else None
    elif isinstance(owner, ModuleType):
        what = _BUILT_IN.get((owner.__name__, name)) or _BUILT_IN.get((owner.__name__, ""))
    else:
        full = function.__qualname__
        what = next((q for start, q in _POLARS.items() if full.startswith(start)), None)
    return what and f"{what} ({name})"


def _is_asked_by_user(frame: FrameType | None) -> bool:
    """Whether a question about a file comes from code that is not of an installed package."""
    while frame and _package(frame) in _PATHS:
        frame = frame.f_back
    return frame is not None and not is_installed(_package(frame))


def _asked(frame: FrameType) -> str | None:
    if frame.f_code.co_name in _SQL_CALLS and _package(frame) in ("duckdb", "polars"):
        return f"{_FILES} (SQL)" if any(map(files_in_sql, frame.f_locals.values())) else None
    if frame.f_code is not _GETENV:
        opener = frame.f_code.co_qualname
        return f"{_FILES} ({opener})" if opener in _ARROW and _package(frame) == "pyarrow" else None
    caller = frame.f_back
    while caller and _package(caller) in ("os", "collections"):
        caller = caller.f_back
    return None if caller and _package(caller) == "polars" else _ENVIRONMENT


def _on_the_way(frame: FrameType | None) -> bool:
    """Whether the question is a library's own, or comes while garbage is collected."""
    if is_being_collected():
        return True
    while frame:
        if _package(frame) in _BYSTANDERS:
            return True
        frame = frame.f_back
    return False


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
