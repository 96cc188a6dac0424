"""Commands that write where a person says write nothing that a source would take for a drop, and nothing into a store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlforge.cli.main import main
from mlforge.store import LocalStore
from tests.support.gcs_server import GoogleServer, Stored, google
from tests.support.projects import Project, rows

DEFINITIONS = """
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


@feature(keys=["user_id"], source="events/", timestamp="at", metrics=[Rolling("5d", {"amount": "sum"})])
def spend(df):
    return df


defs = Definitions(LocalStore("store"), [spend], services=[Service("checkout", [spend])])
"""
SOURCE, WITHIN = "lies in the source of spend", "lies within"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a training set, and another's store beside its own."""
    project = Project(tmp_path_factory.mktemp("shop") / "project")
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0)))
    (project.root / "definitions.py").write_text(DEFINITIONS)
    (project.root / "link").symlink_to("events")
    LocalStore(project.root / "theirs").establish()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        assert main(["build"]) == 0
        assert main(["train", "checkout", "--events-of", "spend", "--out", "set"]) == 0
    return project.root


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("export spend --delta events/table", SOURCE),
        ("export spend --iceberg link/table", SOURCE),
        ("export spend --delta events", SOURCE),
        ("export spend --iceberg .", "begins in ."),
        ("export spend --delta store/table", WITHIN),
        ("export spend --delta theirs", "theirs itself"),
        ("export spend --iceberg . --store store", "store lies within"),
        ("copy --from store --to events/copy", SOURCE),
        ("copy --from store --to events", SOURCE),
        ("copy --from store --to theirs/copy", WITHIN),
        ("train checkout --events-of spend --out events/set", SOURCE),
        ("train checkout --events-of spend --out store/set", WITHIN),
        ("blast set --rows events/rows.parquet", SOURCE),
        ("blast set --rows store/spend/1.0.0/data.parquet", WITHIN),
        ("blast set --rows set/part-00000.parquet --store store", "lies in the set itself"),
        ("lock checkout --out events/lock.parquet", SOURCE),
        ("lock checkout --out store/spend/_latest.json", WITHIN),
    ],
)
def test_no_byte_is_written_into_a_source_or_a_store(
    words: str,
    told: str,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def contents() -> dict[Path, bytes]:
        files = (
            path for path in shop.rglob("*") if path.is_file() and "__pycache__" not in str(path)
        )
        return {path: path.read_bytes() for path in files}

    before = contents()
    monkeypatch.chdir(shop)
    assert main(words.split()) == 1
    assert told in capsys.readouterr().err
    assert contents() == before


def test_a_copy_is_made_though_the_definitions_here_do_not_load(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("definitions.py").write_text("this is not python")
    words = ["copy", "--from", str(shop / "store"), "--to", "copy"]
    assert main([*words, "--definitions", "definitions.py"]) == 1
    assert main(words) == 0
    assert "their sources are not known" in capsys.readouterr().err


def test_a_place_beside_the_features_of_a_store_in_a_project_s_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0)))
    (project.root / "definitions.py").write_text(DEFINITIONS.replace('"store"', '"."'))
    monkeypatch.chdir(project.root)
    train = "train checkout --events-of spend --out"
    for words in (
        "build",
        "lock checkout",
        f"{train} set",
        "blast set --rows rows.parquet",
        "export spend --delta table",
        "copy --from . --to copy",
    ):
        assert main(words.split()) == 0, words
    capsys.readouterr()
    for words in ("lock checkout --out spend/x.lock", f"{train} spend/set", f"{train} _metadata/x"):
        assert main(words.split()) == 1
        assert WITHIN in capsys.readouterr().err


def test_what_is_written_is_what_was_checked_also_where_its_name_begins_with_a_tilde(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(shop))
    here = ("--definitions", str(shop / "definitions.py"))
    train = ("train", "checkout", "--events-of", "spend", *here, "--out")
    for place, told in (("~/events/set", SOURCE), ("~/store/set", WITHIN)):
        assert main([*train, place]) == 1
        assert told in capsys.readouterr().err
    assert main([*train, "~/another"]) == 0
    assert main(["blast", "~/another", *here, "--rows", "~/rows.parquet"]) == 0
    assert main(["lock", "checkout", *here, "--out", "~no.body.lock"]) == 0
    assert main(["copy", "--from", "~/store", "--to", "~no.body/copy"]) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["~no.body", "~no.body.lock"]
    assert {"another", "rows.parquet"} <= {each.name for each in shop.iterdir()}


@pytest.fixture(scope="module")
def their_bucket() -> Iterator[GoogleServer]:
    """A bucket with somebody's store in a folder of it."""
    with google() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.stored["ours/theirs/_metadata/store.json"] = Stored(b"{}", 1, datetime.now(UTC))
        yield server


@pytest.mark.parametrize(
    "words",
    [
        "export spend --delta gs://ours/theirs/table",
        "export spend --iceberg gs://ours/theirs",
        "copy --from store --to gs://ours/theirs/copy",
        "train checkout --events-of spend --out gs://ours/theirs/sets/1",
    ],
)
def test_no_object_is_written_into_a_store_in_a_bucket(
    words: str,
    shop: Path,
    their_bucket: GoogleServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shop)
    assert main(words.split()) == 1
    assert "gs://ours/theirs" in (told := capsys.readouterr().err)
    assert "nothing was written" in told
    assert [*their_bucket.stored] == ["ours/theirs/_metadata/store.json"]


def test_a_place_beside_a_store_in_a_bucket_is_written(
    shop: Path, their_bucket: GoogleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by credentials that may look at nothing above the place."""
    monkeypatch.chdir(shop)
    their_bucket.refuse = lambda method, path: (
        (403, "AccessDenied") if "ours/_metadata" in path else None
    )
    assert main(["export", "spend", "--iceberg", "gs://ours/table"]) == 0
    assert any(name.startswith("ours/table/metadata/") for name in their_bucket.stored)
