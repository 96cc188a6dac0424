"""Requests that wait to be sent become one for each feature, however long the server is away."""

from __future__ import annotations

import pytest

from worker.state.named_paths import MOST_NAMED
from worker.state.pending import PendingRequest, merge_into


@pytest.mark.parametrize(("many", "named"), [(MOST_NAMED, True), (MOST_NAMED + 1, False)])
def test_requests_are_merged_with_their_files_as_long_as_these_can_be_named(
    many: int, named: bool
) -> None:
    requests: dict[str, PendingRequest] = {}
    for number in range(many):
        came = PendingRequest("came", closed_at=many - number, paths=frozenset([str(number)]))
        merge_into(requests, {"spend": came})
    of_all = frozenset(map(str, range(many))) if named else None
    assert requests == {"spend": PendingRequest("came", 1, True, of_all)}


def test_of_merged_requests_one_about_all_is_about_all() -> None:
    requests = {"spend": PendingRequest("a came", paths=frozenset(["a"]))}
    merge_into(requests, {"spend": PendingRequest("reminded", afresh=False)})
    assert requests == {"spend": PendingRequest("reminded", None, True, None)}
