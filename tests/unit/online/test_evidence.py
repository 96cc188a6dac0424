"""Evidence of lost rows, read out of what servers tell of themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlforge.online import Evidence, OnlineBooks, Target
from mlforge.online.books import INCOMPLETE
from mlforge.online.codec import from_fields, to_fields
from mlforge.online.redis.evidence import evidence_of, facts_of, lacks_mark

SEEN = Evidence("run", 3, "replid", "MLFORGE1")
TARGET = Target("1.0.0", 1, None)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (SEEN, None),
        (replace(SEEN, evicted=4), "has evicted keys"),
        (replace(SEEN, evicted=0), "has evicted keys"),
        (Evidence("other", 0, "other"), "restarted or failed over"),
        (Evidence("other", 0), "restarted or failed over"),
        (replace(SEEN, history="other"), "restarted or failed over"),
        (replace(SEEN, mark=""), "set back"),
        (replace(SEEN, mark="MLFORGE2"), "set back"),
        (Evidence("replica", 0, "replid", is_replica=True), None),
        (Evidence("replica", 1, "replid", is_replica=True), "has evicted keys"),
        (Evidence("replica", 0, "other", is_replica=True), "restarted or failed over"),
    ],
    ids=str,
)
def test_a_loss_since_the_evidence_is_told_by_what_differs(now: Evidence, why: str | None) -> None:
    loss = SEEN.loss_by(now)
    assert loss is None if why is None else why in (loss or "")


def test_rows_that_are_known_to_be_missing_are_a_loss_whatever_the_server_tells() -> None:
    assert INCOMPLETE.loss_by(INCOMPLETE) is not None
    assert INCOMPLETE.loss_by(SEEN) is not None


def test_evidence_of_a_release_before_is_held_against_run_and_count_alone() -> None:
    before = Evidence("run", 3)
    assert before.loss_by(SEEN) is None
    assert before.loss_by(replace(SEEN, evicted=0)) is not None
    assert before.loss_by(replace(SEEN, server="other", evicted=0)) is not None


def told(run: str, evicted: int, *kinds: str, role: str = "master") -> dict[str, str]:
    return facts_of(
        [
            f"# Server\r\nrun_id:{run}\r\n",
            f"# Stats\r\nevicted_keys:{evicted}\r\n",
            f"# Replication\r\nrole:{role}\r\nmaster_replid:of-{run}\r\n",
            "# Errorstats\r\n" + "".join(f"errorstat_{kind}:count=1\r\n" for kind in kinds),
        ]
    )


def test_nodes_of_a_cluster_tell_together_in_the_order_of_their_runs() -> None:
    nodes = [told("b", 2, "ERR", "MLFORGE7"), told("a", 1)]
    assert evidence_of(nodes) == Evidence("a b", 3, "of-a,of-b", ",MLFORGE7")
    assert evidence_of([{"run_id": "a"}, told("b", 0)]) is None


def test_a_server_that_is_able_to_keep_a_mark_and_has_none_lacks_it() -> None:
    assert lacks_mark(told("a", 0, "ERR"))
    assert not lacks_mark(told("a", 0, "MLFORGE1"))
    assert not lacks_mark(told("a", 0, "ERRORSTATS_OVERFLOW")), "it notes no more kinds"
    assert not lacks_mark(facts_of(["run_id:a", "evicted_keys:0"])), "it notes none"


@pytest.mark.parametrize("evidence", [SEEN, replace(SEEN, mark=""), Evidence("a b", 0, "x,y", ","), INCOMPLETE, None], ids=str)  # fmt: skip
def test_books_bring_evidence_back_as_it_was(evidence: Evidence | None) -> None:
    fields = {"format": "1", **to_fields(TARGET, OnlineBooks(TARGET, evidence=evidence), None)}
    books = from_fields(fields, "here")
    assert books is not None
    assert books.evidence == evidence


def test_a_history_of_other_evidence_is_left_out() -> None:
    """A worker of a release before has written its own evidence beside it."""
    fields = {"format": "1", **to_fields(TARGET, OnlineBooks(TARGET, evidence=SEEN), None)}
    books = from_fields({**fields, "losses": "4 run"}, "here")
    assert books is not None
    assert books.evidence == Evidence("run", 4)
