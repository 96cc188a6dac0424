"""The protocol that gives one refresh at a time, and exactly one more for what came meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from redis import Redis

from mlforge.core.values import SECOND_US
from tests.support.workers import eventually, requested
from worker.state import work_queue as module
from worker.state.event_log import Distribution, EventLog
from worker.state.figures import add_each
from worker.state.pending import PendingRequest
from worker.state.ticket import DEATHS, RETRY_AFTER_S, Ticket, idle, orphaned, overdue
from worker.state.work_queue import Lease, WorkQueue


@pytest.fixture
def tickets(redis: Redis) -> WorkQueue:
    return WorkQueue(redis, "shop")


def ticket_of(tickets: WorkQueue) -> Ticket:
    return tickets.read(["spend"])[0]


def test_requests_while_a_job_waits_make_no_other_job(tickets):
    first = requested(tickets, "spend", "a came").job
    assert first is not None
    assert requested(tickets, "spend", "b came").job is None
    lease = tickets.start("spend", first)
    assert lease is not None
    assert lease.serves == 2
    assert tickets.done(lease) is None
    assert not ticket_of(tickets).behind


def test_features_are_requested_together_and_a_ticket_of_others_keeps_none_from_it(tickets, redis):
    queued = requested(tickets, "count", "a came").job
    redis.set("mlforge-work:shop:ticket:foreign", "somebody else's")
    redis.hset("mlforge-work:shop:ticket:sum", "wanted", "many")
    trips = redis.info("commandstats")["cmdstat_evalsha"]["calls"]

    of_b, of_c = (
        PendingRequest(f"{f} came", at, paths=frozenset(f)) for f, at in (("b", 5), ("c", 6))
    )
    answers = tickets.request_each(
        {
            "spend": of_b,
            "foreign": of_b,
            "count": of_c,
            "sum": of_b,
            "last": PendingRequest("start"),
        }
    )

    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] - trips == 1
    spend, foreign, count, sum_, last = answers.values()
    assert (foreign.args[0].split()[0], "not an integer" in str(sum_)) == ("WRONGTYPE", True)
    assert (count.job, count.wanted) == (None, 2)
    assert [spend.wanted, last.wanted] == [1, 1]
    assert [
        (t.queued, t.wanted, t.closed_at, t.reason)
        for t in tickets.read(["spend", "count", "last"])
    ] == [
        (spend.job, 1, 5, "b came"),
        (queued, 2, 6, "c came"),
        (last.job, 1, None, "start"),
    ]
    assert redis.hget("mlforge-work:shop:ticket:count", "named") == b"2\tc\0"


def test_a_push_of_a_feature_that_rests_leaves_the_time_of_what_waits(tickets):
    lease = tickets.start("spend", requested(tickets, "spend", "a came", 4).job)
    requested(tickets, "spend", "b came", 5)
    tickets.done(lease, "all", rest_us=60 * SECOND_US)
    for _ in range(2):
        resting = ticket_of(tickets)
        push = tickets.start("spend", tickets.requeue(resting))
        tickets.rested_on(push, resting, tickets.now())
        assert ticket_of(tickets).behind
    assert (push.closed_at, push.requested_at is not None) == (5, True)
    refresh = tickets.start("spend", tickets.requeue(ticket_of(tickets)))
    assert (refresh.closed_at, refresh.requested_at) == (5, push.requested_at)


def test_a_feature_that_was_just_published_rests_until_what_came_meanwhile_is_due(tickets, redis):
    lease = tickets.start("spend", requested(tickets, "spend", "a came").job)
    requested(tickets, "spend", "b came")
    assert tickets.done(lease, "all", rest_us=60 * SECOND_US) is None
    assert requested(tickets, "spend", "c came").job is None
    ticket = ticket_of(tickets)
    assert not overdue(ticket, ticket.rests_until - 1, lost=False)
    assert overdue(ticket, ticket.rests_until, lost=False)
    assert idle(ticket, ticket.rests_until - 1), "it may be pushed meanwhile"
    of_a_push = replace(ticket, queued="job")
    assert not idle(of_a_push, ticket.rests_until - 1)
    assert overdue(of_a_push, ticket.rests_until - 1, lost=True)
    lease = tickets.start("spend", tickets.requeue(ticket))
    assert lease.serves == 3
    tickets.done(lease, "all")
    assert not redis.hexists("mlforge-work:shop:ticket:spend", "taken_closed_at")
    later = tickets.now() + 60 * SECOND_US
    # Over by now; longer than anybody of us leaves a feature alone; since the server's clock was set back.
    for rests_until, served_at in ((1, 1), (2**53, 1), (later, later - 1)):
        mapping = {"rests_until": rests_until, "served_at": served_at}
        redis.hset("mlforge-work:shop:ticket:spend", mapping=mapping)
        assert not ticket_of(tickets).rests(tickets.now())
        job = requested(tickets, "spend", "d came").job
        tickets.done(tickets.start("spend", job), "all")


def test_requests_while_a_refresh_runs_lead_to_exactly_one_more(tickets):
    job = requested(tickets, "spend", "a came").job
    lease = tickets.start("spend", job)
    assert [requested(tickets, "spend", f"{n} came").job for n in range(5)] == [None] * 5
    another = tickets.done(lease)
    assert another is not None
    again = tickets.start("spend", another)
    assert again is not None
    assert again.serves == 6
    assert tickets.done(again) is None


def test_only_one_worker_holds_a_feature(tickets):
    job = requested(tickets, "spend", "a came").job
    lease = tickets.start("spend", job)
    assert lease is not None
    assert tickets.start("spend", "another") is None
    tickets.done(lease)
    assert tickets.start("spend", "another") is None, "nothing is wanted any more"


def test_the_earliest_close_is_what_freshness_counts_from(tickets):
    job = requested(tickets, "spend", "a came", closed_at=500).job
    requested(tickets, "spend", "b came", closed_at=300)
    requested(tickets, "spend", "c came")
    lease = tickets.start("spend", job)
    assert lease.closed_at == 300
    another = None if tickets.failed(lease, "boom") else tickets.requeue(ticket_of(tickets))
    assert tickets.start("spend", another).closed_at == 300, "a failure does not stop the clock"


def test_a_lease_tells_when_the_earliest_drop_that_it_serves_was_requested(tickets):
    began = tickets.now()
    job = requested(tickets, "spend", "a came", closed_at=300).job
    between = tickets.now()
    requested(tickets, "spend", "b came", closed_at=500)
    requested(tickets, "spend", "reminded")
    lease = tickets.start("spend", job)
    assert began <= lease.requested_at <= between <= lease.taken_at <= tickets.now()
    requested(tickets, "spend", "c came", closed_at=900)
    another = tickets.failed(lease, "as always")
    again = tickets.start("spend", another)
    assert (again.closed_at, again.requested_at) == (300, lease.requested_at)
    tickets.done(again)


def test_a_refresh_that_serves_no_drop_tells_no_time_of_a_request(tickets):
    done = tickets.start("spend", requested(tickets, "spend", "a came", closed_at=300).job)
    tickets.done(done)
    reminded = tickets.start("spend", requested(tickets, "spend", "reminded").job)
    assert (reminded.closed_at, reminded.requested_at) == (None, None)


def test_a_lease_that_is_not_renewed_is_taken_over(tickets, monkeypatch):
    monkeypatch.setattr(module, "LEASE_MS", 50)
    lease = tickets.start("spend", requested(tickets, "spend", "a came").job)
    left = eventually(lambda: found if orphaned(found := ticket_of(tickets)) else None)
    assert tickets.died("spend", left.working, "killed")
    assert not tickets.died("spend", left.working, "killed"), "it is at work no more"
    left = ticket_of(tickets)
    assert (left.error, left.deaths, left.failures) == ("killed", 1, 0)
    assert overdue(left, tickets.now(), lost=False)
    monkeypatch.setattr(module, "LEASE_MS", 60_000)  # longer than a busy machine takes for the rest
    heir = tickets.start("spend", tickets.requeue(left))
    assert heir is not None
    assert not tickets.renew(lease.feature, lease.job)
    assert tickets.done(lease) is None, "the old holder cannot give the new one's lease back"
    assert ticket_of(tickets).leased


def test_failures_pause_longer_and_are_parked_until_something_changes(tickets):
    job = requested(tickets, "spend", "a came").job
    for pause in RETRY_AFTER_S:
        assert tickets.failed(tickets.start("spend", job), "boom") is None
        failed = ticket_of(tickets)
        assert failed.retry_at - failed.failed_at == pause * 1_000_000
        assert not overdue(failed, failed.retry_at - 1, lost=False)
        assert overdue(failed, failed.retry_at, lost=False)
        assert overdue(failed, failed.failed_at - 1, lost=False), "the server's clock was set back"
        job = tickets.requeue(failed)
    tickets.failed(tickets.start("spend", job), "boom")
    parked = ticket_of(tickets)
    assert parked.parked
    assert not overdue(parked, parked.failed_at + 10**12, lost=False)
    assert requested(tickets, "spend", "time passed", afresh=False).job is None
    again = requested(tickets, "spend", "the file changed").job
    assert again is not None
    assert not ticket_of(tickets).parked


def test_processes_that_die_one_after_the_other_are_parked_in_the_end(tickets):
    job = requested(tickets, "spend", "a came").job
    for _ in range(DEATHS):
        assert not ticket_of(tickets).parked
        tickets.start("spend", job)
        tickets.died("spend", job, "killed")
        job = tickets.requeue(ticket_of(tickets))
    parked = ticket_of(tickets)
    assert (parked.parked, parked.error) == (True, "killed")
    assert not overdue(replace(parked, queued=None), parked.failed_at + 10**12, lost=False)
    requested(tickets, "spend", "the file changed")
    assert not ticket_of(tickets).parked


def test_deaths_are_forgotten_once_a_refresh_gets_through(tickets):
    job = requested(tickets, "spend", "a came").job
    tickets.start("spend", job)
    tickets.died("spend", job, "killed")
    assert ticket_of(tickets).troubled
    tickets.done(tickets.start("spend", tickets.requeue(ticket_of(tickets))))
    assert not ticket_of(tickets).troubled


def test_since_when_no_refresh_goes_well_is_known_whatever_is_dropped_meanwhile(tickets):
    lease = tickets.start("spend", requested(tickets, "spend", "a came").job)
    assert ticket_of(tickets).failing_since is None
    tickets.failed(lease, "no bucket", transient=True)
    since = ticket_of(tickets).failing_since
    assert since == ticket_of(tickets).failed_at
    again = requested(tickets, "spend", "b came").job
    ticket = ticket_of(tickets)
    assert (ticket.error, ticket.failing_since) == (None, since)
    tickets.failed(tickets.start("spend", again), "no bucket", transient=True)
    ticket = ticket_of(tickets)
    assert ticket.failing_since == since < ticket.failed_at
    tickets.done(tickets.start("spend", tickets.requeue(ticket)))
    assert ticket_of(tickets).failing_since is None


@pytest.mark.parametrize("again", ["death", "fault"])
def test_a_feature_does_not_fail_for_a_process_that_was_ended_once(tickets, again):
    """A deploy ends processes, and the build that is made again may take long."""
    job = requested(tickets, "spend", "a came").job
    tickets.start("spend", job)
    tickets.died("spend", job, "killed")
    first = ticket_of(tickets)
    assert (first.deaths, first.failing_since) == (1, None)
    job = requested(tickets, "spend", "b came", closed_at=1).job
    lease = tickets.start("spend", job)
    assert ticket_of(tickets).failing_since is None
    if again == "death":
        tickets.died("spend", job, "killed")
    else:
        tickets.failed(lease, "no bucket", transient=True)
    assert ticket_of(tickets).failing_since == first.failed_at
    tickets.done(tickets.start("spend", tickets.requeue(ticket_of(tickets))))
    job = requested(tickets, "spend", "c came").job
    tickets.start("spend", job)
    tickets.died("spend", job, "killed")
    assert ticket_of(tickets).failing_since is None


def test_that_memory_or_time_ran_out_is_known_until_an_attempt_ends_otherwise(tickets):
    job = requested(tickets, "spend", "a came").job

    def exhausted_after(end: Callable[[Lease], object]) -> bool:
        nonlocal job
        end(tickets.start("spend", job))
        ticket = ticket_of(tickets)
        job = tickets.requeue(ticket) or job
        return ticket.exhausted

    assert exhausted_after(lambda lease: tickets.failed(lease, "no memory", True, exhausted=True))
    assert exhausted_after(lambda lease: tickets.rested(lease, ticket_of(tickets)))
    assert not exhausted_after(lambda lease: tickets.failed(lease, "boom"))
    assert exhausted_after(lambda lease: tickets.died("spend", lease.job, "late", at_fault=True))
    requested(tickets, "spend", "the file changed")
    assert not ticket_of(tickets).exhausted
    assert exhausted_after(lambda lease: tickets.died("spend", lease.job, "late", at_fault=True))
    tickets.done(tickets.start("spend", job))
    assert not ticket_of(tickets).exhausted


def test_a_change_during_a_failing_refresh_is_tried_at_once(tickets):
    lease = tickets.start("spend", requested(tickets, "spend", "a came").job)
    requested(tickets, "spend", "a changed")
    assert tickets.failed(lease, "boom") is not None


def test_faults_of_the_surroundings_are_never_parked(tickets):
    job = requested(tickets, "spend", "a came").job
    for _ in range(10):
        tickets.failed(tickets.start("spend", job), "no server", transient=True)
        failed = ticket_of(tickets)
        assert not failed.parked
        job = tickets.requeue(failed)


def test_a_costly_attempt_is_not_made_again_and_again_while_an_outage_ends_each(
    tickets, monkeypatch, redis
):
    def end(job: str, took_s: int, during: str = "") -> str | None:
        lease = tickets.start("spend", job)
        begun = tickets.now() - took_s * SECOND_US
        redis.hset("mlforge-work:shop:ticket:spend", "taken_at", begun)
        if during:
            requested(tickets, "spend", during, closed_at=begun)
        return tickets.failed(lease, "no room", transient=True)

    job = requested(tickets, "spend", "a came", closed_at=1).job
    for times, pause in enumerate((0, 100, 200, 300, 400, 500, 600, 600)):
        again = end(job, 100, during="b came")
        assert (again is None) == (times > 0), "only the first is made again at once"
        failed = ticket_of(tickets)
        waits_s = (failed.retry_at - failed.failed_at) // SECOND_US
        assert pause <= waits_s < pause + 100, "by what the attempt took, and the test's own steps"
        if times:
            assert requested(tickets, "spend", "c came", closed_at=2).job is None
            assert ticket_of(tickets).retry_at == failed.retry_at, "nor for a drop that came then"
        job = again or tickets.requeue(failed)
    end(job, 100)
    again = requested(tickets, "spend", "retry").job
    assert again is not None, "a person's word counts"
    for _ in range(4):
        end(again, 1)
        again = requested(tickets, "spend", "d came", closed_at=3).job
        assert again is not None, "a drop of which the refresh costs little is tried at once"


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("outage", [False, True])
def test_a_drop_has_a_parked_feature_tried_again_also_after_a_long_push(
    tickets, redis, deaths, outage
):
    job = requested(tickets, "spend", "a came", closed_at=1).job
    while not ticket_of(tickets).parked:
        lease = tickets.start("spend", job)
        if deaths:
            tickets.died("spend", job, "killed")
        else:
            tickets.failed(lease, "ValueError: no")
        job = tickets.requeue(ticket_of(tickets))
    lease = tickets.start("spend", job)
    began = tickets.now() - 100 * SECOND_US
    redis.hset("mlforge-work:shop:ticket:spend", "taken_at", began)
    if outage:
        tickets.failed(lease, "no server", transient=True)
    else:
        tickets.rested(lease, ticket_of(tickets))
    assert ticket_of(tickets).parked
    assert requested(tickets, "spend", "b came", closed_at=2).job is not None
    assert not ticket_of(tickets).parked


def test_a_job_that_was_lost_is_made_again_once(tickets):
    requested(tickets, "spend", "a came")
    seen = ticket_of(tickets)
    assert not overdue(seen, tickets.now(), lost=False)
    assert overdue(seen, tickets.now(), lost=True)
    assert tickets.requeue(seen) is not None
    assert tickets.requeue(seen) is None, "somebody else has seen to it"


def test_a_call_whose_answer_was_lost_is_answered_alike_when_it_is_repeated(tickets):
    """The client repeats a call that the server has carried out, without knowing."""

    class Twice:
        def __init__(self, script):
            self.script = script

        def __call__(self, keys, arguments):
            self.script(keys, arguments)
            return self.script(keys, arguments)

    for name in ("_request", "_requeue", "_start", "_done", "_failed"):
        setattr(tickets, name, Twice(getattr(tickets, name)))
    job = requested(tickets, "spend", "a came").job
    assert job is not None
    again = tickets.requeue(ticket_of(tickets))
    lease = tickets.start("spend", again)
    assert lease is not None
    requested(tickets, "spend", "b came")
    another = tickets.done(lease)
    assert another == ticket_of(tickets).queued
    lease = tickets.start("spend", another)
    requested(tickets, "spend", "c came")
    assert tickets.failed(lease, "boom") == ticket_of(tickets).queued


def test_a_job_that_came_twice_is_begun_once(tickets):
    job = requested(tickets, "spend", "a came").job
    assert tickets.start("spend", job) is not None
    assert tickets.start("spend", job) is None


def test_what_was_served_before_the_server_forgot_does_not_pass_for_what_is_wanted_since(
    tickets,
    redis,
):
    for number in range(5):
        requested(tickets, "spend", f"{number} came")
    lease = tickets.start("spend", ticket_of(tickets).queued)
    redis.flushall()
    again = requested(tickets, "spend", "5 came").job
    assert tickets.done(lease) is None
    assert ticket_of(tickets).behind
    assert tickets.start("spend", again) is not None


def test_a_ticket_at_rest_is_not_overdue():
    at_rest = Ticket("spend", wanted=3, served=3)
    assert not overdue(at_rest, 0, lost=True)
    assert overdue(replace(at_rest, wanted=4), 0, lost=False)
    assert not overdue(replace(at_rest, wanted=4, leased=True), 0, lost=False)


def test_the_journal_tells_what_came_after(redis):
    journal = EventLog(redis, "shop")
    journal.write("refreshed", "spend", version="1.0.0")
    since = journal.last_id()
    assert journal.read(since) == []
    journal.write("refreshed", "spend", version="1.0.1", quarantined={"bad.parquet": "damaged"})
    (entry,) = journal.read(since)
    assert (entry.kind, entry.feature) == ("refreshed", "spend")
    assert entry.details == {"version": "1.0.1", "quarantined": {"bad.parquet": "damaged"}}


def test_freshness_is_a_distribution(redis):
    journal = EventLog(redis, "shop")
    assert journal.freshness("spend") is None
    add_each(redis, *(journal.drop_time("spend", ms) for ms in range(1, 101)))
    assert journal.freshness("spend") == Distribution(100, 50.0, 95.0, 99.0)


def looked_at_all(tickets: WorkQueue) -> None:
    """A refresh that has looked at all of the source."""
    job = requested(tickets, "spend", "start").job or tickets.requeue(ticket_of(tickets))
    lease = tickets.start("spend", job)
    assert lease.paths is None
    tickets.done(lease, "all")


def named(tickets: WorkQueue, *paths: str) -> str | None:
    return requested(tickets, "spend", "came", paths=paths).job


def started(tickets: WorkQueue) -> Lease:
    lease = tickets.start("spend", tickets.requeue(ticket_of(tickets)))
    assert lease is not None
    return lease


def test_a_lease_tells_the_paths_that_its_requests_named_and_no_others(tickets):
    looked_at_all(tickets)
    named(tickets, "a.parquet")
    named(tickets, "deep/b c.parquet", "a.parquet")
    lease = started(tickets)
    assert lease.paths == {"a.parquet", "deep/b c.parquet"}
    named(tickets, "c.parquet")
    again = tickets.start("spend", tickets.done(lease, "named"))
    assert again.paths == {"c.parquet"}
    tickets.done(again, "named")
    named(tickets, "d.parquet")
    assert started(tickets).paths == {"d.parquet"}


def test_paths_that_were_named_before_a_kill_or_a_failure_are_named_again(tickets):
    looked_at_all(tickets)
    job = named(tickets, "a.parquet")
    tickets.start("spend", job)
    named(tickets, "b.parquet")
    tickets.died("spend", job, "killed")
    lease = started(tickets)
    assert lease.paths == {"a.parquet", "b.parquet"}
    tickets.failed(lease, "boom")
    named(tickets, "c.parquet")
    assert started(tickets).paths == {"a.parquet", "b.parquet", "c.parquet"}


@pytest.mark.parametrize("first", [True, False])
def test_a_request_that_names_nothing_is_about_all(tickets, first):
    looked_at_all(tickets)
    if first:
        named(tickets, "a.parquet")
    requested(tickets, "spend", "its rows must be renewed")
    if not first:
        named(tickets, "a.parquet")
    assert started(tickets).paths is None


def test_a_watcher_and_a_worker_of_an_earlier_release_name_nothing_and_forget_nothing(
    tickets, redis
):
    ticket = "mlforge-work:shop:ticket:spend"
    looked_at_all(tickets)
    redis.hincrby(ticket, "wanted", 1)
    named(tickets, "a.parquet")
    assert started(tickets).paths is None
    redis.hset(ticket, "served", ticket_of(tickets).wanted)  # by one that leaves the names there
    redis.delete(f"{ticket}:lease")
    redis.hincrby(ticket, "wanted", 1)
    assert started(tickets).paths is None


def test_paths_are_those_of_one_source_so_that_other_definitions_look_at_all(tickets, redis):
    looked_at_all(tickets)
    named(tickets, "a.parquet")
    edited = WorkQueue(redis, "shop", by="other definitions")
    assert started(edited).paths is None
    named(edited, "b.parquet")
    redis.delete("mlforge-work:shop:ticket:spend:lease")
    assert started(edited).paths is None, "the first of the two names a path of another source"


def test_after_a_while_all_is_looked_at_again_and_after_a_look_that_missed_something_at_once(
    tickets, monkeypatch
):
    looked_at_all(tickets)
    named(tickets, "a.parquet")
    lease = started(tickets)
    assert lease.paths == {"a.parquet"}
    tickets.done(lease, "unsure")
    named(tickets, "b.parquet")
    lease = started(tickets)
    assert lease.paths is None
    tickets.done(lease, "all")
    monkeypatch.setattr(module, "WHOLE_EVERY_S", 0)
    named(tickets, "c.parquet")
    assert started(tickets).paths is None


def test_a_look_that_lies_ahead_of_the_server_s_clock_is_no_recent_one(tickets, redis):
    looked_at_all(tickets)
    redis.hset("mlforge-work:shop:ticket:spend", "whole_at", tickets.now() + 10**12)
    named(tickets, "a.parquet")
    assert started(tickets).paths is None


@pytest.mark.parametrize(
    "paths", [[f"{n}.parquet" for n in range(1_000)], ["x" * 70_000], ["\udcff.parquet"], []]
)
def test_too_many_paths_and_names_that_are_no_text_are_about_all(tickets, paths):
    looked_at_all(tickets)
    named(tickets, *paths)
    named(tickets, "a.parquet")
    lease = started(tickets)
    assert lease.paths is None
    tickets.done(lease, "all")
    named(tickets, "a.parquet")
    assert started(tickets).paths == {"a.parquet"}


def test_a_ticket_does_not_grow_while_each_refresh_finds_another_request(tickets, redis):
    looked_at_all(tickets)
    named(tickets, "0.parquet")
    lease = started(tickets)
    for number in range(1, 20):
        named(tickets, f"{number}.parquet")
        lease = tickets.start("spend", tickets.done(lease, "named"))
        assert lease.paths == {f"{number}.parquet"}
    assert len(redis.hget("mlforge-work:shop:ticket:spend", "named")) < 100
