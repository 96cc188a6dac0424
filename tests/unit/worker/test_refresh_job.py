"""How a refresh goes about what ended the attempt before, and whose fault that was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mlforge.errors import (
    DataError,
    IntegrityError,
    OnlineUnavailable,
    RunnerUnavailable,
    SourceUnavailable,
    StoreUnavailable,
    UnsupportedStore,
)
from mlforge.store.local import io
from mlforge.store.objects.objects import NoAnswer
from worker.queue.refresh_job import TRANSIENT
from worker.state.ticket import Ticket, ticket_of


@pytest.mark.parametrize(
    ("fields", "apart"),
    [
        ({}, False),
        ({"failures": 1, "error": "ColumnNotFound: spend: no column 'amt'"}, False),
        ({"interruptions": 1, "error": "ConnectionError: no server"}, False),
        ({"deaths": 1, "error": "the process at work was ended by SIGKILL"}, True),
        ({"interruptions": 1, "error": "MemoryError: no memory", "exhausted": 1}, True),
        ({"failures": 1, "error": "it was not done within 9 s", "exhausted": 1}, True),
        (
            {"failures": 1, "error": "DataError: MemoryError is a word of it", "exhausted": ""},
            False,
        ),
    ],
)
def test_files_are_read_apart_only_where_one_may_have_ended_the_attempt_before(
    fields: dict[str, object], apart: bool
) -> None:
    stored = {name.encode(): str(value).encode() for name, value in fields.items()}
    before = ticket_of("spend", stored, -2)
    assert isinstance(before, Ticket)
    assert before.unreadable is None
    assert before.may_be_a_files_fault is apart


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]
)
def test_a_disk_that_takes_nothing_is_not_the_features_fault(tmp_path: Path, number: int) -> None:
    """Else a feature would be given up while its disk is full, and nothing would go on once there is room."""
    with pytest.raises(TRANSIENT), io.storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(TRANSIENT):
        io.read_bytes(tmp_path)  # a folder


def test_faults_of_places_are_tried_for_as_long_as_it_takes_and_others_are_not() -> None:
    places = (StoreUnavailable, SourceUnavailable, OnlineUnavailable, RunnerUnavailable, NoAnswer)
    assert all(issubclass(kind, TRANSIENT) for kind in places)
    assert not any(
        issubclass(kind, TRANSIENT) for kind in (DataError, IntegrityError, UnsupportedStore)
    )
