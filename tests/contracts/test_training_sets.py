"""Training sets in folders: the values of `get_training_data` in flat memory, what they were made from, what is kept for them."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from mlforge import Service, TrainingSet, get_training_data, training_set
from mlforge.cli.main import main
from mlforge.core.values import PRECISION
from mlforge.errors import (
    FeatureNotFound,
    IntegrityError,
    LockMismatch,
    MlforgeError,
    RetrievalError,
    VersionNotFound,
)
from mlforge.maintenance.operations import prune
from mlforge.maintenance.retention import Retention
from mlforge.metrics import Rolling
from mlforge.training_sets import writing
from mlforge.training_sets.slices import TimeHistogram
from mlforge.training_sets.spines import spine_of
from tests.support.projects import Project, at, rows

NEWEST = Retention(newest=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`spend`, built: nine users' events over 60 days in three files."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    draw = random.Random(7)
    for number in range(3):
        events = [(draw.randrange(9), draw.random() * 60, draw.random() * 1e3) for _ in range(300)]
        project.drop(f"f{number}", rows(*events))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


@pytest.fixture(scope="module")
def built_four(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with `hourly`, aligned, `profile` with a timestamp alone, and `users` without: all built."""
    project = built.copied(tmp_path_factory.mktemp("built") / "project")
    hourly = project.define(
        name="hourly", interval="1h", metrics=[Rolling(["1d"], {"amount": ["mean", "max"]})]
    )
    profile = project.define(name="profile", metrics=[])
    users = project.define(
        lambda df: df.group_by("user_id").agg(pl.col("amount").max()).sort("user_id"),
        name="users",
        metrics=[],
        timestamp=None,
    )
    project.definitions(hourly, profile, users).build()
    return project


@pytest.fixture
def four(built_four: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built_four.copied(tmp_path / "project")


def spine(height: int = 700) -> pl.DataFrame:
    """Entities and instants in no order, some null, some at one instant; a label and a column of texts beside."""
    draw = random.Random(height)
    some = [at(draw.random() * 90 - 10) for _ in range(height)]
    crowded = [at(30) if draw.random() < 0.3 else instant for instant in some]
    return pl.DataFrame(
        {
            "label": [draw.random() for _ in range(height)],
            "user_id": [
                None if draw.random() < 0.05 else draw.randrange(11) for _ in range(height)
            ],
            "at": [None if draw.random() < 0.05 else instant for instant in crowded],
            "kind": pl.Series(["a", "b"] * (height // 2), dtype=pl.Enum(["a", "b"])),
        }
    )


ALL = ["spend", "hourly", "profile", "users"]


def same(made: pl.DataFrame, whole: pl.DataFrame) -> None:
    """Equal in rows, order, names and types; floats up to the order in which they were added."""
    assert made.schema == whole.schema
    assert_frame_equal(made, whole, rel_tol=PRECISION, abs_tol=PRECISION)


# -- the same values, in order


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("part_rows", [97, 350, 10_000])
def test_a_set_has_the_rows_of_get_training_data_in_their_order(
    four: Project, tmp_path: Path, engine: str, part_rows: int
) -> None:
    table = spine()
    whole = get_training_data(table, ALL, four.store, engine=engine)
    made = training_set(
        table, ALL, four.store, tmp_path / "set", engine=engine, part_rows=part_rows
    )
    same(made.read(), whole)
    assert [part.rows for part in made.document.parts] == [
        min(part_rows, 700 - start) for start in range(0, 700, part_rows)
    ]
    assert made.columns == whole.columns
    assert repr(made).startswith(
        f"TrainingSet('{tmp_path}/set': 700 rows, {whole.width} columns of "
    )
    assert pa.Table.from_batches(made.batches(64)).num_rows == made.rows == 700


def test_every_kind_of_spine_gives_the_same_set(four: Project, tmp_path: Path) -> None:
    table = spine().drop("kind")
    whole = get_training_data(table, ALL, four.store)
    folder = tmp_path / "spine"
    folder.mkdir()
    for number, part in enumerate(table.iter_slices(200)):
        part.write_parquet(folder / f"{number}.parquet", row_group_size=60)
    spines: list[Any] = [
        table.lazy(),
        table.to_arrow(),
        folder,
        str(folder),
        sorted(folder.iterdir()),
        table.with_columns(pl.col("user_id").cast(pl.Float64)).to_pandas(),
    ]
    hashes = set()
    for number, given in enumerate(spines):
        made = training_set(given, ALL, four.store, tmp_path / f"set{number}", part_rows=150)
        got = made.read()
        if isinstance(given, pd.DataFrame):
            got = got.with_columns(
                pl.col("user_id").cast(pl.Int64), pl.col("at").cast(pl.Datetime("us", "UTC"))
            )
            same(got, whole)
            continue
        same(got, whole)
        hashes.add(made.document.spine_hash)
        files = sorted(map(str, folder.iterdir())) if number >= 2 else []
        assert list(made.document.spine_files) == files, "none of a plan, or of memory"
    assert len(hashes) == 1
    assert [*made.path.parent.glob(".*")] == []


def test_the_hash_of_a_spine_knows_the_order_of_its_rows(project: Project, tmp_path: Path) -> None:
    table = spine(40)
    one = training_set(table, ["spend"], project.store, tmp_path / "one", part_rows=7)
    two = training_set(table.reverse(), ["spend"], project.store, tmp_path / "two", part_rows=7)
    three = training_set(table, ["spend"], project.store, tmp_path / "three")
    assert one.document.spine_hash == three.document.spine_hash != two.document.spine_hash


@pytest.mark.parametrize("part_rows", [3, 100])
def test_a_service_and_columns_and_prefixes_are_as_in_get_training_data(
    four: Project, tmp_path: Path, part_rows: int
) -> None:
    spend = four.define()
    service = Service(
        "checkout",
        features=[spend.as_("buyer", user_id="buyer_id")["amount__sum__7d"], "users"],
        request={"label": pl.Float64, "opened": pl.Datetime},
        derive={"share": "label / buyer__amount__sum__7d", "age": "hours(t - opened)"},
        defaults={"amount__sum__7d": 1.0},
    )
    table = spine(20).with_columns(buyer_id=pl.col("user_id"), opened=at(-20))
    whole = get_training_data(table, service, four.store)
    made = training_set(table, service, four.store, tmp_path / "set", part_rows=part_rows)
    same(made.read(), whole)
    assert replace(made.lock, created_at=0) == replace(service.lock(four.store), created_at=0)
    assert made.lock.created_at == made.document.created_at


@pytest.mark.parametrize("given", ["empty frame", "no timed feature", "no keys"])
def test_spines_at_the_edge_are_taken(four: Project, tmp_path: Path, given: str) -> None:
    total = four.define(name="total", keys=[])
    four.build(total)
    names = {"no timed feature": ["users"], "no keys": ["total"]}.get(given, ALL)
    table = {"empty frame": spine().clear(), "no keys": spine().select("at")}.get(given, spine())
    whole = get_training_data(table, names, four.store)
    made = training_set(table, names, four.store, tmp_path / "set", part_rows=100)
    same(made.read(), whole)


def test_slices_are_short_in_time_and_in_rows() -> None:
    histogram = TimeHistogram(most=50)
    table = spine(5_000)
    instants = table["at"].dt.cast_time_unit("us").alias("__point")
    for part in instants.to_frame().iter_slices(500):
        histogram.add(part.to_series())
    assert histogram.counts.height <= 50
    slices = histogram.slices(400)
    numbers = pl.concat(
        slices.numbers(part.to_series()) for part in instants.to_frame().iter_slices(300)
    )
    sliced = pl.DataFrame({"number": numbers, "at": instants})
    sizes = sliced["number"].value_counts()
    assert numbers.null_count() == 0
    assert max(sizes["count"]) <= 400
    assert sizes.height <= slices.count <= 2 * 5_000 // 400 + 4
    spans = (
        sliced.drop_nulls()
        .group_by("number")
        .agg(first=pl.col("at").min(), last=pl.col("at").max())
        .sort("number")
    )
    assert (
        (spans["first"].shift(-1) >= spans["last"] - timedelta(microseconds=histogram.width))
        .drop_nulls()
        .all()
    )


# -- the same errors


WRONG: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "no key": (spine().drop("user_id"), ["spend"], {}),
    "no time": (spine().drop("at"), ["spend"], {}),
    "a time column that is not there": (spine(), ["spend"], {"timestamp": "when"}),
    "a key of another kind": (spine().with_columns(user_id=pl.col("kind")), ["spend"], {}),
    "a key with fractions": (spine().with_columns(user_id=pl.lit(0.5)), ["spend"], {}),
    "a name that is taken": (spine().with_columns(spend__amount__sum__2d=1), ["spend"], {}),
    "a feature that is not there": (spine(), ["spent"], {}),
    "a version that is not there": (spine(), [("spend", "9.0.0")], {}),
    "a feature twice": (spine(), ["spend", "spend"], {}),
    "no features": (spine(), [], {}),
    "no spine": (7, ["spend"], {}),
    "an unknown engine": (spine(), ["spend"], {"engine": "spark"}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_are_those_of_get_training_data_and_leave_nothing_behind(
    project: Project, tmp_path: Path, wrong: str
) -> None:
    table, features, options = WRONG[wrong]
    with pytest.raises(MlforgeError) as expected:
        get_training_data(table, features, project.store, **options)
    with pytest.raises(type(expected.value)) as error:
        training_set(table, features, project.store, tmp_path / "sets/a", part_rows=100, **options)
    assert str(error.value) == str(expected.value)
    assert [*(tmp_path / "sets").glob("**/*")] == []
    assert all(not project.store.books(name).sets for name in project.store.features())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": 7}, "out must be a folder's path, or an address .*, not 7"),
        ({"part_rows": 0}, "part_rows is 0; give a whole number from 1 to"),
        ({"spine": "nowhere.parquet"}, "nowhere.parquet does not exist; give a parquet file"),
        ({"spine": "."}, "has parquet files in folders below it, such as project/"),
        ({"spine": "empty"}, "has no parquet file"),
        ({"spine": "bad.parquet"}, "bad.parquet cannot be read .*give parquet files of one schema"),
        ({"store": "feature_store"}, "store must be of Store"),
        ({"spine": pl.LazyFrame({"a": [1]}).select("b")}, "the spine's plan fails"),
    ],
)
def test_wrong_calls_are_refused_in_words(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.parquet").write_bytes(b"PAR1 no parquet")
    Path("empty").mkdir()
    usual = {"spine": spine(), "features": ["spend"], "store": project.store, "out": "set"}
    with pytest.raises(RetrievalError, match=words):
        training_set(**{**usual, **options})


def test_a_folder_with_something_in_it_is_never_overwritten(
    project: Project, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    out.mkdir()
    training_set(spine(), ["spend"], project.store, out)
    with pytest.raises(RetrievalError, match="never overwritten; name another folder"):
        training_set(spine(), ["spend"], project.store, out)


def test_a_place_that_cannot_be_written_to_is_named(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "train"
    with pytest.raises(RetrievalError, match=rf"cannot write the training set {out}: Not a dir"):
        training_set(spine(10), ["spend"], store=project.store, out=out)


def test_hidden_files_of_a_folder_are_no_rows_of_a_spine(tmp_path: Path) -> None:
    for name in ("b", "a", ".a", "_left"):
        pl.DataFrame({"name": [name]}).write_parquet(tmp_path / f"{name}.parquet")
    [frame] = spine_of(tmp_path, tmp_path).batches(10)
    assert frame["name"].to_list() == ["a", "b"]


def test_no_file_of_a_folder_is_left_out_of_a_spine_in_silence(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.PARQUET", "c.pq", "notes.txt"):
        pl.DataFrame({"name": [name]}).write_parquet(tmp_path / name)
    [frame] = spine_of(tmp_path, tmp_path).batches(10)
    assert frame["name"].to_list() == ["a.parquet", "b.PARQUET", "c.pq"]
    (tmp_path / "day=1").mkdir()
    frame.write_parquet(tmp_path / "day=1" / "d.parquet")
    with pytest.raises(RetrievalError, match=r"in folders below it, such as day=1/d\.parquet"):
        spine_of(tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["__row", "__heap"])
def test_a_spine_with_a_column_of_a_name_that_sets_keep_is_refused(
    project: Project, tmp_path: Path, name: str
) -> None:
    table = spine().with_columns(pl.lit(1).alias(name))
    with pytest.raises(RetrievalError, match=f"a column '{name}', a name that training sets keep"):
        training_set(table, ["spend"], project.store, tmp_path / "set")


def test_a_spine_that_changes_while_it_is_read_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spine.parquet"
    spine().write_parquet(path)
    original = writing.hash_file

    def touched(part: Path) -> str:
        spine(20).write_parquet(path)
        return original(part)

    monkeypatch.setattr(writing, "hash_file", touched)
    with pytest.raises(RetrievalError, match="changed while it was read; make the set again"):
        training_set(path, ["spend"], project.store, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert not project.store.books("spend").sets
    opened = spine_of(path, tmp_path)
    os.utime(path, (1, 1))  # written anew with as many bytes
    with pytest.raises(RetrievalError, match="changed while it was read"):
        opened.check_unchanged()


# -- what it was made from, and what is kept for it


def test_a_set_is_opened_with_all_that_it_was_made_from(four: Project, tmp_path: Path) -> None:
    made = training_set(spine(), [("spend", "1.0.0"), "users"], four.store, tmp_path / "set")
    opened = TrainingSet.open(str(tmp_path / "set"))
    assert opened == made
    assert opened.versions == {"spend": "1.0.0", "users": "1.0.0"}
    spend, users = opened.document.features
    manifest = four.store.resolve("spend")
    assert (spend.content_hash, spend.rows_hash) == (manifest.content_hash, manifest.rows_hash)
    assert (spend.code_hash, spend.config_hash) == (manifest.code_hash, manifest.config_hash)
    assert dict(spend.files) == {source.path: source.hash for source in manifest.sources}
    assert (spend.reference.version, users.reference.version) == (manifest.version, None)
    assert opened.verify() == []
    lock = opened.lock
    assert (lock.service, lock.versions, lock.store) == (
        "",
        ("spend@1.0.0", "users@1.0.0"),
        opened.document.store,
    )
    assert [column.name for column in lock.columns] == opened.columns[4:]
    same(get_training_data(spine(), ["users", "spend"], four.store, lock=lock)[opened.columns], opened.read())  # fmt: skip
    with pytest.raises(LockMismatch, match=r"^the lock does not hold: spend__.*: it is gone"):
        get_training_data(spine(), ["users"], four.store, lock=lock)
    (made.path / "features.lock").unlink()  # a release before wrote none
    with pytest.raises(RetrievalError, match="cannot read the lock"):
        _ = TrainingSet.open(made.path).lock


def test_damage_is_told_file_by_file(project: Project, tmp_path: Path) -> None:
    made = training_set(spine(), ["spend"], project.store, tmp_path / "set", part_rows=300)
    one, two, _ = made.files
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    two.unlink()
    assert made.verify() == [
        "part-00000.parquet is not as it was written",
        "part-00001.parquet cannot be read (No such file or directory)",
    ]
    for reading in (made.read, lambda: [*made.batches()]):
        with pytest.raises(IntegrityError, match=r"verify\(\) says which"):
            reading()
    document = made.path / "training_set.json"
    for text, words in (("{", "is damaged"), (json.dumps({"format": 2}), "has format 2")):
        document.write_text(text)
        with pytest.raises(IntegrityError, match=words):
            TrainingSet.open(made.path)
    with pytest.raises(RetrievalError, match="no training set in"):
        TrainingSet.open(tmp_path)


def test_versions_of_a_set_are_kept_until_it_is_released(four: Project, tmp_path: Path) -> None:
    store = four.store
    first = training_set(spine(), ["spend"], store, tmp_path / "first")
    again = training_set(spine(), ["spend", "users"], store, tmp_path / "again")
    for day in (70, 71, 72):
        four.drop(f"more{day}", rows((1, day, 1.0)))
        four.build()
    for kept, released in ((True, None), (True, first), (False, again)):
        if released is not None:
            assert released.release(store) == (
                ("spend",) if released is first else ("spend", "users")
            )
        prune(store, ["spend"], NEWEST)
        assert ("1.0.0" in store.list_versions("spend")) == kept
    assert released.release(store) == ()
    assert "sets" not in store.books("spend").to_json()


def test_a_set_is_released_from_its_own_store_alone(project: Project, tmp_path: Path) -> None:
    made = training_set(spine(), ["spend"], project.store, tmp_path / "set")
    other = Project(tmp_path / "other")
    other.drop("a", rows((1, 1, 1.0)))
    other.build()
    with pytest.raises(RetrievalError, match="was made from another store"):
        made.release(other.store)


def test_all_slices_are_of_one_version_whatever_is_published_meanwhile(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = get_training_data(spine(), ["spend"], project.store)
    original, slices = writing.Joining.values, []

    def values(self: Any, part: pl.DataFrame) -> pl.DataFrame:
        slices.append(part)
        if len(slices) == 2:
            project.drop(
                "late", rows(*((user, day, 1e6) for user in range(9) for day in range(60)))
            )
            project.build()
            prune(project.store, ["spend"], NEWEST)
        return original(self, part)

    monkeypatch.setattr(writing.Joining, "values", values)
    made = training_set(spine(), ["spend"], project.store, tmp_path / "set", part_rows=100)
    assert len(slices) > 6
    same(made.read(), whole)
    assert project.store.list_versions("spend") == ["1.0.0", "1.0.1"]


def test_unknown_names_are_those_of_the_store(four: Project, tmp_path: Path) -> None:
    with pytest.raises(FeatureNotFound, match="there are: hourly, profile, spend, users"):
        training_set(spine(), ["x"], four.store, tmp_path / "set")
    with pytest.raises(VersionNotFound):
        training_set(spine(), [("spend", "1.2.3")], four.store, tmp_path / "set")


# -- the command line


DEFINITIONS = """
import polars as pl
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events", timestamp="at", metrics=[Rolling(["90d"], {"amount": ["sum"]})])
def spend(df):
    return df

checkout = Service("checkout", features=[spend], derive={"double": "spend__amount__sum__90d * 2"})
defs = Definitions(store=LocalStore("store"), features=[spend], services=[checkout])
"""


def test_commands_make_and_release_a_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    project.drop("a", rows((1, 0, 1.0), (1, 1, 2.0)))
    Path("definitions.py").write_text(DEFINITIONS)
    spine(100).write_parquet("spine.parquet")
    train = ("train", "checkout", "--spine", "spine.parquet", "--out")
    assert main(["build"]) == 0
    assert main([*train, "one"]) == 0
    assert main([*train, "two", "--json"]) == 0
    printed, document = capsys.readouterr().out.split("\n{", 1)
    assert "versions    spend 1.0.0" in printed
    assert (made := json.loads("{" + document)) | {
        "rows": 100,
        "versions": {"spend": "1.0.0"},
    } == made
    assert TrainingSet.open("two").read()["double"].null_count() < 100
    assert main(["train", "checkuot", "--spine", "spine.parquet", "--out", "three"]) == 1
    assert "no service 'checkuot'; did you mean 'checkout'?" in capsys.readouterr().err
    assert len(project.store.books("spend").sets) == 2
    assert main(["release", "one"]) == 0
    assert main(["release", "two", "--store", "store", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["features"] == ["spend"]
    assert not project.store.books("spend").sets


# -- memory


MEASURED = """
import re, sys
from pathlib import Path
from mlforge import training_set
from mlforge.store import LocalStore

root = Path(sys.argv[1])
made = training_set(root / "spine.parquet", ["spend", "hourly"], LocalStore(root / "store"), root / "set")
print(made.rows, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_two_million_rows_take_no_more_memory_than_a_part_of_them_does(tmp_path: Path) -> None:
    project = Project(tmp_path)
    second = pl.int_range(300_000).alias("n")
    events = pl.select(second).select(
        user_id=pl.col("n").hash(1) % 20_000,
        at=pl.lit(at(0)) + pl.duration(seconds=pl.col("n") * 60),
        amount=(pl.col("n") % 1_000).cast(pl.Float64),
    )
    project.drop("a", events.with_columns(pl.col("user_id").cast(pl.Int64)))
    hourly = project.define(
        name="hourly", interval="1h", metrics=[Rolling(["1d"], {"amount": ["mean"]})]
    )
    project.definitions(project.define(), hourly).build()
    rows_ = pl.select(pl.int_range(2_000_000).alias("n")).select(
        user_id=(pl.col("n").hash(2) % 20_000).cast(pl.Int64),
        at=pl.lit(at(0)) + pl.duration(seconds=pl.col("n").hash(3) % 18_000_000),
    )
    rows_.write_parquet(tmp_path / "spine.parquet")
    outcome = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        env={**os.environ, "POLARS_MAX_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    height, kilobytes = map(int, outcome.stdout.split()[-2:])
    assert height == 2_000_000
    assert kilobytes < 400_000, f"{kilobytes / 1000:.0f} MB"
