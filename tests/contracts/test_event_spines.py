"""Spines made of a feature's events, and training data as a store had it at an instant."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Feature, TrainingSet, ahead, events_of, feature, get_training_data, training_set
from mlforge.cli.main import main
from mlforge.core import clock
from mlforge.core.values import DAY_US, HOUR_US, Version, from_us, to_us
from mlforge.errors import DefinitionError, MlforgeError, RetrievalError, VersionNotFound
from mlforge.maintenance.operations import pin, prune
from mlforge.maintenance.retention import Retention
from mlforge.training_sets import event_spines
from tests.support.projects import SPEND, Project, at, identity, rows


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`spend`, built: events of five users over 20 days, several at one instant."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    draw = random.Random(5)
    for number in range(3):
        some = [
            (draw.randrange(5), draw.choice([float(draw.randrange(20)), draw.random() * 20]), 1.0)
            for _ in range(30)
        ]
        project.drop(f"f{number}", rows(*some))
    ends = ((hour * HOUR_US - 1) / DAY_US for hour in range(100, 110))
    project.drop("last", rows(*((1, end, 1.0) for end in ends)))  # instants of their hours
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def spend() -> Feature:
    return feature(**SPEND)(identity)


def made_of(project: Project, folder: Path, *args: Any, **options: Any) -> list[tuple[Any, Any]]:
    """The rows of the spine of a set."""
    made = training_set(events_of(*args, **options), ["spend"], project.store, folder)
    frame = made.read()
    assert frame.equals(get_training_data(frame.select("user_id", "at"), ["spend"], project.store))
    assert TrainingSet.open(made.path).document == made.document
    return list(frame.select("user_id", "at").rows())


def events(project: Project) -> list[tuple[Any, Any]]:
    files = sorted((project.root / "events").glob("*.parquet"))
    return [
        pair
        for file in files
        for pair in pl.read_parquet(file)
        .select("user_id", "at")
        .cast({"at": pl.Datetime("us", "UTC")})
        .rows()
    ]


@pytest.mark.parametrize("at_once", [7, 200_000])
@pytest.mark.parametrize(
    "between", [None, (at(3), at(9)), (None, at(4)), (at(15), None), (at(300), None)]
)
def test_a_row_for_each_entity_at_each_instant_of_its_events(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: Any, at_once: int
) -> None:
    monkeypatch.setattr(event_spines, "AT_ONCE", at_once)
    start, end = between or (None, None)
    expected = sorted(
        {
            (t, user)
            for user, t in events(project)
            if (start is None or t >= start) and (end is None or t < end)
        }
    )
    assert made_of(project, tmp_path / "set", "spend", between=between) == [
        (u, t) for t, u in expected
    ]


@pytest.mark.parametrize("at_once", [7, 200_000])
@pytest.mark.parametrize("between", [None, (at(-3), at(2.5)), (at(18.2), at(25))])
def test_a_row_for_each_entity_seen_by_then_at_each_tick(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: Any, at_once: int
) -> None:
    monkeypatch.setattr(event_spines, "AT_ONCE", at_once)
    pairs, step = events(project), 12 * 3_600_000_000
    times = [to_us(t) for _, t in pairs]
    start = min(times) if between is None else to_us(between[0])
    end = max(times) + 1 if between is None else to_us(between[1])
    expected = [
        (user, tick)
        for tick in range(-(-start // step) * step, end, step)
        for user in sorted({user for user, t in pairs if to_us(t) <= tick})
    ]
    answer = made_of(project, tmp_path / "set", "spend", every="12h", between=between)
    assert [(user, to_us(t)) for user, t in answer] == expected


def test_keys_have_the_names_of_the_service_and_the_set_says_what_its_rows_are(
    project: Project, tmp_path: Path
) -> None:
    buyer = project.define().as_("buyer", user_id="buyer_id")
    made = training_set(events_of(buyer, every="5d"), [buyer], project.store, tmp_path / "set")
    assert made.columns[:3] == ["buyer_id", "at", "buyer__amount__sum__2d"]
    assert made.document.spine_files == ()
    used = made.document.spine_events
    assert used is not None
    assert used.spine.every is not None
    assert (used.feature.reference.name, used.spine.every.text) == ("spend", "5d")
    assert made.blast_radius(project.store).spine is None
    project.drop("late", rows((77, 4, 1.0)))
    project.build()
    assert made.blast_radius(project.store).spine == ("1.0.0", "1.0.1")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: events_of("spend", every="1mo"), DefinitionError, "30d"),
        (
            lambda: events_of("spend", between=("2026-02-01", "2026-01-01")),
            RetrievalError,
            "earlier instant first",
        ),
        (lambda: events_of("spend", between="2026-02-01"), RetrievalError, "two instants"),
        (lambda: events_of("spend", between=("x", None)), RetrievalError, "ISO 8601"),
        (lambda: events_of(7), RetrievalError, "neither a feature"),
        (lambda: ahead("spend", "amount", "total", "1d"), DefinitionError, "total"),
        (lambda: ahead("spend", "amount", "sum", "all"), DefinitionError, "fixed duration"),
        (lambda: ahead("spend", "amount", "sum", "1mo"), DefinitionError, "30d"),
        (lambda: ahead("spend", 3, "sum", "1d"), DefinitionError, "column"),
        (
            lambda: ahead(spend()["amount__sum__2d"], "amount", "sum", "1d"),
            DefinitionError,
            "columns of windows",
        ),
        (
            lambda: ahead((spend()["amount__sum__2d"], "1.0.0"), "amount", "sum", "1d"),
            DefinitionError,
            "columns of windows",
        ),
        (lambda: ahead(None, "amount", "sum", "1d"), DefinitionError, "neither a feature"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Any, error: type[MlforgeError], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"next": ahead("spend", "amuont", "sum", "1d")}, "amount"),
        ({"user_id": ahead("spend", "amount", "sum", "1d")}, "user_id.*rename the label"),
        (
            {"spend__amount__sum__7d": ahead("spend", "amount", "sum", "1d")},
            "of spend is 'spend__amount__sum__7d', which is a label's name",
        ),
        ({"next": ahead("spnd", "amount", "sum", "1d")}, "spend"),
        ({"next": "amount"}, "ahead"),
        ({"a b": ahead("spend", "amount", "sum", "1d")}, "a b"),
        ([], "dict"),
    ],
)
def test_labels_that_do_not_fit_are_refused(project: Project, labels: Any, says: str) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [at(1)]})
    with pytest.raises(MlforgeError, match=says):
        get_training_data(spine, ["spend"], project.store, labels=labels)


def test_an_untimed_feature_has_neither_labels_nor_a_spine(
    project: Project, tmp_path: Path
) -> None:
    users = project.define(
        lambda df: df.group_by("user_id").agg(pl.col("amount").max()),
        name="users",
        metrics=[],
        timestamp=None,
    )
    project.definitions(users).build()
    spine = pl.DataFrame({"user_id": [1], "at": [at(1)]})
    with pytest.raises(RetrievalError, match="no timestamp"):
        get_training_data(
            spine, ["spend"], project.store, labels={"x": ahead("users", "amount", "max", "1d")}
        )
    with pytest.raises(RetrievalError, match="no timestamp"):
        training_set(events_of("users"), ["users"], project.store, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_version_that_was_rolled_back_from_and_pruned_is_missed_by_known_at(
    project: Project,
) -> None:
    definitions, store = project.definitions(), project.store
    for number in range(4):
        if number == 2:
            definitions.rollback("spend", "1.0.0")
        project.drop(f"late{number}", rows((77, 24 + number, 1.0)))
        project.build()
    marks = [store.resolve("spend", f"1.0.{number}").created_at for number in range(5)]
    spine = pl.DataFrame({"user_id": [77], "at": [at(30)]})

    def known(mark: int) -> Any:
        answer = get_training_data(spine, ["spend"], store, known_at=mark)
        return answer["spend__amount__count__7d"][0]

    counts = [0, 1, 2, 3, 4]
    assert [known(mark) for mark in marks] == counts
    assert store.resolve("spend", "1.0.3").parent == Version(1, 0, 0)
    pin(store, "spend", "1.0.0")
    prune(store, ["spend"], Retention(newest=2))
    assert [known(mark) for mark in marks[3:]] == counts[3:]
    for gone in marks[:3]:
        with pytest.raises(
            VersionNotFound, match=r"1\.0\.2, which came before 1\.0\.3.*was pruned"
        ):
            known(gone)


def test_known_at_is_the_store_as_it_was_then(project: Project, tmp_path: Path) -> None:
    spine, column = pl.DataFrame({"user_id": [77], "at": [at(25)]}), "spend__amount__sum__7d"
    label = {"often": ahead("spend", "amount", "count", "1d")}
    for number in range(3):
        project.drop(f"late{number}", rows((77, 24 + number, 1.0)))
        project.build()
    versions = [project.store.resolve("spend", f"1.0.{n}") for n in range(4)]
    marks = [version.created_at for version in versions]

    def known(mark: int | str) -> tuple[Any, Any]:
        frame = get_training_data(spine, ["spend"], project.store, known_at=mark, labels=label)
        return frame[column][0], frame["often"][0]

    assert [known(mark) for mark in marks] == [(None, None), (1.0, None), (2.0, None), (2.0, 1)]
    assert known(marks[1] - 1) == (None, None)
    made = training_set(spine, ["spend"], project.store, tmp_path / "set", known_at=marks[1])
    assert dict(made.versions) == {"spend": "1.0.1"}
    assert TrainingSet.open(made.path).document.known_at == marks[1]
    with pytest.raises(VersionNotFound, match="first build was at"):
        known(marks[0] - 1)
    with pytest.raises(VersionNotFound, match="after known_at"):
        get_training_data(spine, [("spend", "1.0.3")], project.store, known_at=marks[1])
    tomorrow = clock.now() + DAY_US
    with pytest.raises(RetrievalError, match="is ahead of now"):
        get_training_data(spine, ["spend"], project.store, known_at=tomorrow)
    with pytest.raises(RetrievalError, match="is ahead of now"):
        training_set(spine, ["spend"], project.store, tmp_path / "ahead", known_at=tomorrow)
    with pytest.raises(RetrievalError, match="known_at='x'"):
        known("x")
    prune(project.store, ["spend"], Retention(newest=1))
    assert known(marks[3]) == (2.0, 1)
    for gone in marks[:3]:
        with pytest.raises(VersionNotFound, match="was pruned"):
            known(gone)


# -- the command line


DEFINITIONS = """
import polars as pl
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events", timestamp="at", metrics=[Rolling(["7d"], {"amount": ["sum"]})])
def spend(df):
    return df

plain = Service("plain", features=[spend])
bought = Service("bought", features=[spend.as_("buyer", user_id="buyer_id")])
defs = Definitions(store=LocalStore("store"), features=[spend], services=[plain, bought])
"""


@pytest.fixture
def commands(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with definitions of two services, built from the command line."""
    monkeypatch.chdir(project.root)
    (project.root / "definitions.py").write_text(DEFINITIONS)
    assert main(["build"]) == 0
    return project


def test_train_makes_rows_of_events_with_labels_as_the_store_was(
    commands: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    store, until = commands.store, "2026-01-15"
    known = from_us(store.resolve("spend").created_at).isoformat()
    commands.drop("late", rows((3, 1, 1e6)))
    assert main(["build"]) == 0
    capsys.readouterr()
    options = ["--every", "1d", "--from", "2026-01-03", "--to", until, "--known-at", known]
    label = ["--label", "next=spend:amount:sum:5d", "--label", "many=spend:amount:count:36h"]
    assert (
        main(["train", "plain", "--events-of", "spend", *options, *label, "--out", "one", "--json"])
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    expected = training_set(
        events_of("spend", every="1d", between=("2026-01-03", until)),
        ["spend"],
        store,
        "two",
        labels={
            "next": ahead("spend", "amount", "sum", "5d"),
            "many": ahead("spend", "amount", "count", "36h"),
        },
        known_at=known,
    )
    assert document["rows"] == expected.rows > 0
    assert document["labels"] == {"next": 0, "many": 0}
    assert document["versions"] == dict(expected.versions)
    assert document["versions"] != {"spend": str(store.resolve("spend").version)}
    assert TrainingSet.open("one").read().equals(expected.read())
    bought = [
        "train",
        "bought",
        "--events-of",
        "buyer",
        "--label",
        "next=buyer:amount:sum:5d",
        "--out",
        "three",
    ]
    assert main(bought) == 0
    assert "unknown yet" in capsys.readouterr().out
    frame = TrainingSet.open("three").read()
    assert frame.columns == ["buyer_id", "at", "buyer__amount__sum__7d", "next"]
    assert frame["next"].null_count() > 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "one of the arguments --spine --events-of is required"),
        (["--spine", "x", "--events-of", "spend"], 2, "not allowed with argument"),
        (
            ["--spine", "x", "--every", "1d"],
            1,
            "--every says which rows are made of a feature's events",
        ),
        (["--spine", "x", "--to", "2026-01-03"], 1, "--to says which rows"),
        (["--events-of", "spand"], 1, "spand"),
        (["--events-of", "spend", "--every", "daily"], 1, "every"),
        (["--events-of", "spend", "--from", "soon"], 1, "'soon' is no instant"),
        (
            ["--events-of", "spend", "--from", "2026-02-01", "--to", "2026-01-01"],
            1,
            "before it begins",
        ),
        (["--events-of", "spend", "--known-at", "then"], 1, "known_at='then' is no instant"),
        (["--events-of", "spend", "--known-at", "2001-01-01"], 1, "first build was at"),
        (["--events-of", "spend", "--label", "spend:amount:sum:5d"], 2, "is no label; write NAME="),
        (["--events-of", "spend", "--label", "x=spend:amount:sum"], 2, "is no label; write NAME="),
        (
            ["--events-of", "spend", "--label", "x=spend:amount:smu:5d"],
            1,
            "unknown aggregation 'smu'",
        ),
        (["--events-of", "spend", "--label", "x=spend:amuont:sum:5d"], 1, "amount"),
        (
            ["--events-of", "spend", *["--label", "x=spend:amount:sum:5d"] * 2],
            1,
            "two labels are named 'x'",
        ),
        (
            ["--events-of", "spend", "--every", "1d", "--out", "events/set"],
            1,
            "events/set lies in the source of ",
        ),
    ],
)
def test_train_says_what_is_wrong_with_its_options(
    commands: Project, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    capsys.readouterr()
    try:
        outcome = main(["train", "plain", "--out", "set", *options])
    except SystemExit as ended:
        outcome = ended.code
    assert outcome == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("set").exists()
