"""Where the files of a training set in a bucket are kept at hand."""

from __future__ import annotations

import pwd
from typing import Any, NoReturn

import pytest

from mlforge.training_sets.document import SetDocument
from mlforge.training_sets.stored_set import StoredSet


def test_a_set_in_a_bucket_is_opened_also_by_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container whose user id has no name."""

    def nobody(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    document: Any = object.__new__(SetDocument)
    object.__setattr__(document, "id", "0123")
    opened = StoredSet.at("s3://bucket/train", document)
    assert opened.address == "s3://bucket/train"
    assert opened.path.name.endswith("-0123")
