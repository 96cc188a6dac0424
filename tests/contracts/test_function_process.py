"""Functions that are not proven row-wise, run in processes of their own: as here, and bounded in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import polars as pl
import pytest

from mlforge.definitions.loader import load
from mlforge.errors import MlforgeError
from mlforge.ingest.calling import FunctionFaultError, ReadsFilesError, TooLargeError
from mlforge.ingest.function_process import FunctionProcess, NotThisCodeError, command
from tests.support.paths import ROOT
from tests.support.projects import Project, rows

MEGABYTE = 1 << 20
FUNCTIONS = """
    import os
    from pathlib import Path

    import polars as pl

    from mlforge import Definitions, feature
    from mlforge.metrics import Rolling
    from mlforge.store import LocalStore

    HERE = Path(__file__).parent


    def weighted(df, users=None):
        df = df.lazy().collect()
        print("at work")
        return df if users is None else df.join(users.lazy().collect(), on="user_id")


    def fails(df):
        return 1 / 0


    def gives_none(df):
        return None


    def mistypes(df):
        return df.lazy().collect().select("amuont")


    def reads_for_rows(df):
        for _ in df.lazy().collect().rows():
            (HERE / "definitions.py").read_bytes()
        return df


    def piles_up(df):
        df = df.lazy().collect()
        wide = df.with_columns(**{f"c{i}": pl.col("amount") * i for i in range(40)})
        return pl.concat([wide] * 500_000, rechunk=True) if df.height else wide


    def piles_up_in_python(df):
        df = df.lazy().collect()
        return df.with_columns(n=pl.lit(len(bytearray(3 << 30)))) if df.height else df


    def ends(df):
        if df.lazy().collect().height:
            os.abort()
        return df


    def defined(function, **options):
        return feature(
            keys=["user_id"], source="events", timestamp="at", name=function.__name__,
            metrics=[Rolling("7d", {"amount": "sum"})], **options,
        )(function)


    defs = Definitions(
        store=LocalStore("store"),
        features=[defined(each) for each in (
            weighted, fails, gives_none, mistypes, reads_for_rows, piles_up, piles_up_in_python, ends,
        )],
        max_file_memory=100 << 20,
    )
"""
EVENTS = rows((1, 0, 10.0), (2, 1, 1.0))
PEAK_OF_A_CHILD = """
import resource, sys
from pathlib import Path
from mlforge.ingest.calling import TooLargeError
from tests.contracts.test_function_process import Calls

try:
    Calls(Path(sys.argv[1]))("piles_up")  # 1,000,000 rows of 43 columns
except TooLargeError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("projects") / "p")
    project.drop("a", EVENTS)
    (project.root / "definitions.py").write_text(dedent(FUNCTIONS))
    return project.root


class Calls:
    """Calls of functions of one project in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.features = folder, load(None, here=folder).features
        self.processes: list[FunctionProcess] = []

    def __call__(self, name: str, code: str = "", **tables: pl.DataFrame) -> pl.DataFrame:
        process = FunctionProcess(command(None, self.folder, name), at_once=True)
        self.processes.append(process)
        code = code or self.features[name].code_hash
        return process.call(code, EVENTS, tables, 100 * MEGABYTE, "a.parquet")


@pytest.fixture
def call(folder: Path) -> Iterator[Calls]:
    calls = Calls(folder)
    yield calls
    for process in calls.processes:
        process.close()


def test_rows_come_back_as_the_function_made_them(call: Calls) -> None:
    kinds = pl.DataFrame(
        {"user_id": [1, 2], "kind": ["a", "b"], "at_all": [[1], []], "d": ["1.50", "2.25"]}
    ).with_columns(pl.col("kind").cast(pl.Enum(["a", "b"])), pl.col("d").cast(pl.Decimal(10, 2)))
    returned = call("weighted", users=kinds)
    assert returned.equals(EVENTS.join(kinds, on="user_id"))
    assert returned.schema == EVENTS.join(kinds, on="user_id").schema


FAULTS: list[tuple[str, type[Exception], str]] = [
    ("mistypes", pl.exceptions.ColumnNotFoundError, "amuont"),
    ("piles_up_in_python", TooLargeError, "takes more memory than the 104,857,600 bytes"),
    ("ends", TooLargeError, r"ended the process that ran it \(SIGABRT\)"),
    ("fails", FunctionFaultError, "failed on a.parquet: ZeroDivisionError: division by zero"),
    ("gives_none", FunctionFaultError, "returned None"),
    ("reads_for_rows", ReadsFilesError, "open"),
]


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [pytest.param(*f, id=f[0], marks=[pytest.mark.slow] * (n > 1)) for n, f in enumerate(FAULTS)],
)
def test_faults_of_a_function_come_back_as_they_are(
    call: Calls, name: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        call(name)


@pytest.mark.slow
def test_a_process_takes_no_more_than_about_what_it_may(folder: Path) -> None:
    """Asked by a process that has had no other child, as the system tells of the largest child alone."""
    run = subprocess.run(
        [sys.executable, "-c", PEAK_OF_A_CHILD, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    refusal, peak = run.stdout.splitlines()
    assert "allowed by max_file_memory" in refusal
    assert int(peak) * 1024 < 900 * MEGABYTE


def test_a_process_with_other_code_does_not_answer(call: Calls) -> None:
    with pytest.raises(NotThisCodeError):
        call("weighted", code="edited since")


@pytest.mark.parametrize("attended", [True, False])
def test_a_refresh_of_loaded_definitions_bounds_such_functions(
    folder: Path, attended: bool
) -> None:
    """Unattended it is called here at first: Python says where too much is asked for."""
    with pytest.raises(MlforgeError, match="its function takes more memory than the 104,857,600"):
        load(None, here=folder).refresh("piles_up_in_python", attended=attended)


@pytest.mark.parametrize("attended", [True, False])
def test_values_are_the_same_wherever_the_function_is_called(folder: Path, attended: bool) -> None:
    definitions: Any = load(None, here=folder)
    definitions.refresh("weighted", attended=attended)
    assert definitions.store.read("weighted")["amount__sum__7d"].to_list() == [10.0, 1.0]
