"""The benchmarks run, and both sides of each measure compute the same; seconds are not looked at."""

from __future__ import annotations

import polars as pl
import pytest

from benchmarks import data
from benchmarks.__main__ import main, measures
from benchmarks.data import SIZES
from benchmarks.harness import Bench, Row, Target, WrongResult, check_same

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with Bench(TINY, tmp_path_factory.mktemp("benchmarks"), repeat=1) as made:
        yield made


QUICK = ("1", "8", "10")


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in measures()],
)
def test_a_measure_runs_and_its_two_sides_agree(bench, number):
    measure = measures()[number]
    rows = measure.run(bench)
    bench.clear()
    assert rows
    for row in rows:
        assert row.number == number
        assert row.cells[-1] in ("ok", "no") or row.target is None


def test_a_run_prints_a_table(tmp_path, capsys):
    assert main(["--size", "tiny", "--only", "10", "--repeat", "1", "--dir", str(tmp_path)]) == 0
    head, line = (text.split() for text in capsys.readouterr().out.splitlines()[2:4])
    assert head[:4] == ["#", "what", "ours", "reference"]
    assert line[:3] == ["10", "import", "mlforge"]
    assert not list(tmp_path.glob("run-*")), "a run leaves its generated data alone behind"


def test_a_measure_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["--only", "1,99", "--dir", str(tmp_path)]) == 2
    assert "no measure 99" in capsys.readouterr().err


def test_the_stream_of_events_is_the_same_however_it_is_cut():
    whole = data.events(TINY, 0, 1_000)
    assert whole.equals(pl.concat([data.events(TINY, 0, 300), data.events(TINY, 300, 1_000)]))
    assert whole["event_time"].is_sorted()
    assert whole["user_id"].n_unique() > 500


def test_the_stream_of_events_is_the_same_on_every_machine():
    first = data.events(TINY, 0, 1).row(0)
    assert (first[0], str(first[1]), first[2]) == (851, "2022-01-01 00:00:43.098535+00:00", 761.77)


def test_a_drop_follows_the_history_with_an_event_an_entity():
    drop = data.drop(TINY, 0)
    history = data.events(TINY, TINY.events - 1, TINY.events)
    assert drop["event_time"].min() > history["event_time"].max()
    assert drop["user_id"].n_unique() == TINY.drop == drop.height


def test_a_tenth_of_a_late_drop_is_late():
    on_time, late = data.drop(TINY, 3), data.drop(TINY, 3, late=True)
    moved = late.join(on_time, on=["user_id", "event_time"], how="anti")
    assert moved.height == TINY.drop // 10
    assert moved["event_time"].max() < on_time["event_time"].max()


def test_two_sides_that_differ_are_told():
    with pytest.raises(WrongResult, match="amount is 1"):
        check_same({"amount": 1.0}, {"amount": 1.1}, "a test")


def test_the_median_is_held_against_the_target():
    row = Row("1", "what", "ours", "reference", [1.0, 1.4, 9.0], Target(1.5))
    assert row.cells[4:] == ["1.40x", "1.00x - 9.00x", "<= 1.50x", "ok"]
    assert not Target(0.6, at_least=True).is_met(0.5)
