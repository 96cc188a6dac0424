"""Words and pictures of the page: pure functions from entries, profiles, states and graphs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from mlforge.core import clock
from mlforge.core.values import from_iso
from mlforge.profiles.measure import profile_column
from mlforge.registry.graph import FEATURE, SERVICE, SOURCE, Graph, Node
from mlforge.registry.live import Happening
from mlforge.serve.page.distribution import HEIGHT, WIDTH, distribution
from mlforge.serve.page.happenings import lines
from mlforge.serve.page.home import mark
from mlforge.serve.page.lineage_picture import BOX_WIDTH, picture
from mlforge.serve.page.needs import needs_of, needs_of_feature
from mlforge.serve.page.words import NONE, ago, brief, duration, listed, number, of, sentence, size

CALM: dict[str, Any] = {
    "feature": "spend",
    "state": "ready",
    "held": None,
    "held_now": None,
    "error": None,
    "quarantine": {},
    "audit": None,
    "unreadable": (),
}


def entry(kind: str, id: str = "1-0", **details: Any) -> Happening:
    return Happening(id, 0, kind, "spend", details)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, NONE),
        (True, "yes"),
        (1234567, "1,234,567"),
        (1907.92, "1,907.92"),
        (0.1234567, "0.1235"),
        (3.0, "3"),
        (float("nan"), "nan"),
        (1e300, "1e+300"),
        ("2026-11-28T07:28:29.000000Z", "2026-11-28 07:28:29"),
        ("2026-11-28T07:28:29.000001Z", "2026-11-28T07:28:29.000001Z"),
        ("<b>", "<b>"),
    ],
)
def test_a_value_is_written_for_people(value: object, text: str) -> None:
    assert number(value) == text


def test_a_long_hash_is_cut_and_all_else_stays() -> None:
    hashed = "9aa8cc25da5094a19073710e6fdf177703aa784ede24fe29d5f9b68e55f55837"
    assert brief(f"http-{hashed}.parquet came") == "http-9aa8cc25….parquet came"
    assert brief(f"a/{hashed} and {hashed}") == "a/9aa8cc25… and 9aa8cc25…"
    for text in ("2026-11-29.parquet", "1234567890123456789012", "deadbeef", f"x{hashed}y", ""):
        assert brief(text) == text


def test_times_sizes_and_lists_are_written_in_words() -> None:
    with clock.fixed(from_iso("2026-01-02T00:00:00Z") or 0):
        assert ago("2026-01-01T21:00:00.000000Z") == "3 hours ago"
        assert ago("2026-01-02T00:02:00.000000Z") == "in 2 minutes"
        assert ago("2026-01-02T00:00:00.000000Z") == "just now"
        assert ago(None) == NONE
    assert (duration(87.4), duration(3400), duration(125_000)) == ("87 ms", "3.4 s", "2 min 5 s")
    assert (size(999), size(12_300_000), size(None)) == ("999 B", "12.3 MB", NONE)
    assert (listed([]), listed(["a"]), listed("abc")) == ("", "a", "a, b and c")


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"version": None},
        {"version": 1, "bump": 2, "reason": 3, "trigger": 4, "changed": True, "rows_recomputed": "x"},
        {"reason": None, "error": None, "features": 7, "mismatches": "many", "first": []},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "kind",
    ["refreshed", "failed", "held", "mismatch", "definitions", "rolled_back", "approved", "nix"],
)
def test_an_entry_that_no_worker_wrote_is_told_and_not_raised(
    kind: str, details: dict[str, Any]
) -> None:
    [line] = lines([entry(kind, **details)])
    assert line.title


def test_steps_of_a_life_lie_within_their_bar_whatever_they_add_up_to() -> None:
    told = {"event": 10.0, "queue": 0.2, "build": 300.0, "push": float("inf"), "other": "x"}
    refreshed = {
        "version": "1.0.1", "bump": "patch", "reason": "data_refresh", "trigger": "a.parquet came",
        "changed": True, "rows_recomputed": 1, "entities_pushed": 0, "entities_deleted": 2,
        "freshness_ms": 100.0, "steps": told, "quarantined": {"b": "spend: b: is torn"},
    }  # fmt: skip
    new, old = lines([entry("refreshed", "7-1", **refreshed), entry("watching", "7-0")], "7-0")
    assert (new.is_new, old.is_new) == (True, False)
    assert new.sentence == (
        "a.parquet came: 1 row recomputed, 2 entities pushed. b is set aside: it is torn."
    )
    assert [step.word for step in new.steps] == ["seen", "computed"]
    assert sum(step.width for step in new.steps) <= 100
    assert new.tone == "warning"


COLUMNS = {
    "floats": [float(n) for n in range(1000)],
    "skewed": [0.0] * 990 + [1e9] * 10,
    "one value": [7.5] * 10,
    "zeros": [0.0, 0.0],
    "tiny": [5e-324, 1e-310, 0.0],
    "huge": [-1.7e308, 1.7e308],
    "near": [1e16, 1e16 + 2],
    "negative": [-3.5, -2.0, -1.0],
    "holes": [None, float("nan"), float("inf"), 1.0, 2.0],
    "integers": list(range(70)),
    "few integers": [1, 2, 2, 3],
    "great integers": [2**62, 2**62 + 1],
}


@pytest.mark.parametrize(
    ("values", "least", "greatest"),
    [
        ([5.0, 5.0], "5", "5"),
        ([date(9999, 12, 31)], "9999-12-31", "9999-12-31"),
        (
            [datetime(2026, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
            "2026-01-01",
            "9999-12-31",
        ),
    ],
)
def test_no_label_lies_beyond_the_values(values: list[Any], least: str, greatest: str) -> None:
    drawn = distribution(profile_column(pl.Series(values)))
    assert drawn is not None
    assert (drawn.least, drawn.greatest) == (least, greatest)
    assert drawn.words.startswith(f"Most values lie from {least} to ")


@pytest.mark.parametrize("name", COLUMNS)
def test_bars_lie_in_their_picture_and_hold_every_row(name: str) -> None:
    profile = profile_column(pl.Series(COLUMNS[name]))
    drawn = distribution(profile, profile)
    assert drawn is not None
    assert drawn.bars
    for bar in drawn.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
        assert 0 <= bar.top <= HEIGHT
        assert abs(bar.top + bar.height - HEIGHT) < 0.02
    assert max(bar.height for bar in drawn.bars) == HEIGHT
    assert re.fullmatch(r"M0 44(V[\d.]+H[\d.]+)+V44", drawn.outline)


def test_texts_are_ranked_and_a_side_of_another_kind_is_left_out() -> None:
    texts = profile_column(pl.Series(["a", "a", "b", "<i>"]))
    numbers = profile_column(pl.Series([1.0, 2.0]))
    drawn = distribution(texts, profile_column(pl.Series(["a", "c"])))
    assert drawn is not None
    first = drawn.ranked[0]
    assert (first.text, first.share, first.share_b) == ("a", "50.0 %", "50.0 %")
    beside = distribution(numbers, texts)
    assert beside is not None
    assert beside.outline == ""
    assert distribution(profile_column(pl.Series([None, None], dtype=pl.Float64))) is None
    flags = distribution(profile_column(pl.Series([True, False, False])))
    assert flags is not None
    assert [value.text for value in flags.ranked] == ["no", "yes"]


def test_needs_come_with_the_deed_that_helps_the_worst_first() -> None:
    held = CALM | {"state": "held", "held": "all files went", "held_now": "0 of 3 are there"}
    wrong = CALM | {
        "feature": "other",
        "state": "wrong",
        "version": "1.0.2",
        "audit": {"mismatches": 1, "version": "1.0.1", "first": ["a: 1 is 2"]},
    }
    torn = CALM | {"quarantine": {"a b.parquet": "spend: a b.parquet: is torn"}}
    status = {"warnings": ["no worker listens"], "features": [held, torn, wrong, CALM]}
    needs = needs_of(status)
    assert [need.is_bad for need in needs] == [True, True, False, False]
    assert needs[0].sentence == "No worker listens."
    by_title = {need.title: need for need in needs}
    assert by_title["is held"].sentence == "All files went."
    assert by_title["has wrong values"].deeds[0].parameters == {"from": "1.0.2"}
    assert [deed.deed for deed in by_title["is held"].deeds] == ["approve"]
    [retry] = by_title["left out a file"].deeds
    assert retry.parameters == {"path": "a b.parquet"}
    assert by_title["left out a file"].sentence == "a b.parquet: it is torn."
    assert [deed.deed for deed in by_title["has wrong values"].deeds] == ["rollback"]


def test_a_feature_tells_of_the_one_that_it_waits_for_on_its_own_page_alone() -> None:
    waits = CALM | {"upstream": "spend is parked: no luck; 1.0.0 of it is what is read"}
    [need] = needs_of_feature(waits)
    assert (need.feature, need.title, need.deeds) == ("spend", "gets nothing new", ())
    assert need.sentence == "Spend is parked: no luck; 1.0.0 of it is what is read."
    assert needs_of({"warnings": [], "features": [waits]}) == needs_of_feature(CALM) == []
    assert needs_of_feature(waits | {"state": "waiting"}) == []


def test_a_state_counts_the_files_that_were_left_out() -> None:
    torn = CALM | {"state": "quarantined", "quarantine": {"a.parquet": "is torn"}}
    assert mark(torn).word == "a file left out"
    two = torn | {"quarantine": {"a.parquet": "is torn", "b.parquet": "is torn"}}
    assert mark(two).word == "files left out"


def test_files_that_are_left_out_together_are_one_need_with_a_deed_for_each() -> None:
    why = ["is torn"] * 9 + ["is empty"] * 2 + [f"has no column {n}" for n in range(4)]
    files = {f"{n}.parquet": f"spend: {n}.parquet: {each}" for n, each in enumerate(why)}
    [need] = needs_of({"warnings": [], "features": [CALM | {"quarantine": files}]})
    assert need.title == "left out 15 files"
    assert need.sentence == (
        "9 files: each is torn. 2 files: each is empty. 1 file: it has no column 0. 3 files for other reasons."
    )
    assert need.deeds == ()
    assert [file.deed.parameters["path"] for file in need.files] == list(files)
    assert need.files[0].why == "is torn"
    refreshed = {
        "version": "1.0.1", "bump": None, "reason": "unchanged", "trigger": "0.parquet came", "changed": False,
        "rows_recomputed": 0, "entities_pushed": 0, "entities_deleted": 0, "freshness_ms": 0,
    }  # fmt: skip
    [line] = lines([entry("refreshed", **refreshed, quarantined=files)])
    assert line.sentence.endswith("1.parquet is set aside: it is torn. So are 13 more files.")


def test_a_graph_is_drawn_from_left_to_right_without_boxes_upon_each_other() -> None:
    source, a, b = Node(SOURCE, "data/" * 20), Node(FEATURE, "a"), Node(FEATURE, "b")
    users = [Node(SERVICE, f"s{number}") for number in range(100)]
    graph = Graph.of([a, b, source], [(source, a), (a, b), *((b, user) for user in users)])
    drawn = picture(graph, b, {"a": "1.0.0"})
    at = {box.name: box for box in drawn.boxes}
    assert at[source.name].x < at["a"].x < at["b"].x < at["s0"].x
    assert len({(box.x, box.y) for box in drawn.boxes}) == len(drawn.boxes)
    assert all(0 <= box.x <= box.x + BOX_WIDTH <= drawn.width for box in drawn.boxes)
    assert drawn.left_out == len(graph.nodes) - len(drawn.boxes) == 43
    assert (at["a"].href, at["b"].href, at[source.name].href) == ("/features/a", None, None)
    assert (at["a"].note, at["b"].note) == ("1.0.0", "not built")
    loop = Graph.of([a, b], [(a, b), (b, a)])
    assert len(picture(loop, a, {}).boxes) == 2


@pytest.mark.parametrize(
    ("trigger", "told"),
    [
        ("first look into the source", "The workers looked into the source for the first time"),
        ("start", "The workers started"),
        ("a.parquet came", "a.parquet came"),
        ("version 1.0.0 is not online", "Version 1.0.0 was not online"),
        (
            "rows are as of 2026-11-27T23:00:00.000000Z, due as of 2026-11-28T00:00:00.000000Z",
            "Rows were as of 2026-11-27 23:00:00 UTC, due as of 2026-11-28 00:00:00 UTC",
        ),
        (
            "the server may have lost rows of it: they are counted",
            "The server might have lost rows of it: they were counted",
        ),
        ("a push was not finished", "A push was not finished"),
    ],
)
def test_what_made_a_refresh_is_told_in_words(trigger: str, told: str) -> None:
    details = {
        "version": "1.0.0", "bump": None, "reason": "unchanged", "trigger": trigger, "changed": False,
        "entities_pushed": 0, "entities_deleted": 0, "quarantined": {}, "freshness_ms": None,
    }  # fmt: skip
    [line] = lines([entry("refreshed", **details)])
    assert line.sentence == f"{told}: nothing changed."


def test_reasons_are_sentences_with_instants_as_people_write_them() -> None:
    assert sentence("user_spend is as of 2026-11-27T23:16:49.000000Z") == (
        "user_spend is as of 2026-11-27 23:16:49 UTC."
    )
    assert of("it", "is not parquet") == "it is not parquet"
    assert of("it", "the reader says no") == "the reader says no"
