"""Training sets as torch, Hugging Face datasets and xgboost take them: each row once, columns as they are, errors in words.

Tests that import one of these libraries are slow by that import.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from structlog.testing import capture_logs

from mlforge import TrainingSet, ahead, training_set
from mlforge.errors import IntegrityError, MissingExtra, RetrievalError
from mlforge.training_sets.loaders.arrow_types import converted, tensor_type
from tests.support.projects import Project, at, rows

HEIGHT, PART = 90, 20
UNKNOWN = 21
"""Rows within three days of the newest event, at a row each seventh of a day."""
SUMS = ["spend__amount__sum__2d", "spend__amount__count__7d"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """A set in five files, with columns of many kinds and two labels: events ahead, and a number that follows from `kind`."""
    project = Project(tmp_path_factory.mktemp("loaders") / "project")
    project.drop(
        "a", rows(*((user, day / 2, float(day)) for user in range(4) for day in range(26)))
    )
    project.build()
    kinds = ["c", "a", "b", None]
    spine = pl.DataFrame(
        {
            "user_id": [row % 4 for row in range(HEIGHT)],
            "at": [at(12.5 - (HEIGHT - 1 - row) / 7) for row in range(HEIGHT)],
            "kind": [kinds[row * row % 4] for row in range(HEIGHT)],
            "choice": pl.Series(
                [kinds[row % 3] for row in range(HEIGHT)], dtype=pl.Enum(["b", "c", "a"])
            ),
            "said": pl.Series([None] * HEIGHT, dtype=pl.String),
            "price": pl.Series(range(HEIGHT), dtype=pl.Decimal(12, 2)),
            "flag": [None if row == 70 else row % 2 == 0 for row in range(HEIGHT)],
            "small": pl.Series(range(HEIGHT), dtype=pl.UInt32),
            "number": range(HEIGHT),
            "target": [
                None if row == 3 else float("nan") if row == 4 else float(row * row % 4)
                for row in range(HEIGHT)
            ],
            "path": [[1, row] for row in range(HEIGHT)],
        },
        strict=False,
    )
    labels = {"ahead": ahead("spend", "amount", "sum", "3d")}
    return training_set(
        spine, ["spend"], project.store, project.root / "set [1]", labels=labels, part_rows=PART
    )


def test_shares_of_batches_have_each_row_once_and_the_columns_in_their_order(
    made: TrainingSet,
) -> None:
    for shares in (1, 2, 3, 7):
        seen = []
        for share in range(shares):
            for batch in made.batches(7, ["number", "kind"], (share, shares)):
                assert batch.schema.names == ["number", "kind"]
                assert batch.num_rows <= 7
                seen += batch["number"].to_pylist()
        assert sorted(seen) == list(range(HEIGHT))
    with pytest.raises(RetrievalError, match="rows is 0"):
        next(made.batches(0))
    with pytest.raises(RetrievalError, match="share is"):
        next(made.batches(share=(2, 2)))
    with pytest.raises(RetrievalError, match="no column 'kin'; did you mean 'kind'"):
        next(made.batches(columns=["kin"]))


@pytest.mark.parametrize(
    ("library", "extra"), [("torch", "torch"), ("datasets", "hf"), ("xgboost", "xgboost")]
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    made: TrainingSet, monkeypatch: pytest.MonkeyPatch, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"TrainingSet.to_{extra} needs the extra '{extra}'"):
        getattr(made, f"to_{extra}")(**{"label": "target"} if extra == "xgboost" else {})


# -- xgboost


@pytest.fixture
def xgboost() -> Any:
    return pytest.importorskip("xgboost", reason="xgboost is not installed")


@pytest.mark.slow
def test_xgboost_takes_the_rows_that_have_a_label_and_all_columns_but_labels(
    xgboost: Any, made: TrainingSet
) -> None:
    with capture_logs() as logs:
        matrix = made.to_xgboost("ahead", rows=7)
    assert [(e["rows"], e["of"]) for e in logs if "without a label" in e["event"]] == [
        (UNKNOWN, HEIGHT)
    ]
    assert matrix.feature_names == [c for c in made.columns if c.startswith("spend__")]
    assert matrix.get_label().tolist() == made.read()["ahead"].drop_nulls().to_list()
    assert made.to_xgboost().get_label().tolist() == matrix.get_label().tolist()
    whole = made.to_xgboost("number", SUMS, rows=11, max_bin=16)
    assert (whole.num_row(), whole.num_col(), whole.feature_names) == (HEIGHT, 2, SUMS)


@pytest.mark.slow
def test_a_category_has_one_code_in_all_batches(xgboost: Any, made: TrainingSet) -> None:
    columns = ["kind", "choice", "said", "price", "flag", "small"]
    matrix = made.to_xgboost("target", columns, rows=3)
    assert matrix.feature_types == ["c", "c", "float", "float", "i", "int"]
    assert matrix.num_row() == HEIGHT - 2
    known = made.read().filter(pl.col("target").is_not_nan())
    assert matrix.get_label().tolist() == known["target"].to_list()
    # The target follows from the text alone: a tree that is told the texts apart in each batch finds it.
    alone = made.to_xgboost("target", ["kind"], rows=3)
    options = {"learning_rate": 1.0, "reg_lambda": 0.0, "min_child_weight": 0, "nthread": 1}
    model = xgboost.train(options, alone, 20)
    assert model.predict(alone).tolist() == pytest.approx(known["target"].to_list(), abs=1e-3)
    validated = made.to_xgboost("target", ["kind"], rows=50, ref=alone)
    assert model.predict(validated).tolist() == model.predict(alone).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "columns", "said"),
    [
        (
            "target",
            ["path"],
            r"'path' is List\(Int64\), and xgboost takes numbers, booleans and texts",
        ),
        ("target", ["at"], "'at' is Datetime"),
        ("target", ["target"], "'target' is the label"),
        ("target", ["kindd"], "no column 'kindd'; did you mean 'kind'"),
        ("target", ["kind", "kind"], "has 'kind' twice"),
        ("target", "kind", "columns is 'kind'; give a list of names"),
        ("target", [], "no column is left"),
        ("targit", None, "no column 'targit'; did you mean 'target'"),
        ("kind", None, "the label 'kind' is String"),
        ("path", None, r"the label 'path' is List\(Int64\)"),
    ],
)
def test_what_xgboost_does_not_take_is_told_by_its_name(
    xgboost: Any, made: TrainingSet, label: str, columns: Any, said: str
) -> None:
    with pytest.raises(RetrievalError, match=said):
        made.to_xgboost(label, columns)


@pytest.mark.slow
def test_a_label_of_no_row_an_infinity_and_a_damaged_file_are_told(
    xgboost: Any, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows(*((1, day, 1.0) for day in range(9))))
    project.build()
    spine = rows(*((1, day, None) for day in range(9))).with_columns(
        pl.col("amount").alias("empty"), endless=float("inf")
    )
    made = training_set(spine, ["spend"], project.store, tmp_path / "set", part_rows=4)
    with pytest.raises(RetrievalError, match=r"say which column .*'spend__\w+'\).* labels: none"):
        made.to_xgboost()
    with pytest.raises(RetrievalError, match=r"none of the 9 rows of .* has a value of 'empty'"):
        made.to_xgboost("empty")
    sums = "spend__amount__sum__2d"
    for label, column in ((sums, "endless"), ("endless", sums)):
        with pytest.raises(RetrievalError, match=r"xgboost does not take the rows of .* valid: "):
            made.to_xgboost(label, [column])
    made.files[1].unlink()
    with pytest.raises(IntegrityError, match="verify"):
        made.to_xgboost("spend__amount__sum__2d", SUMS[1:])


# -- Hugging Face datasets


@pytest.fixture
def hf(tmp_path: Path) -> dict[str, str]:
    pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    return {"cache_dir": str(tmp_path / "cache")}


@pytest.mark.slow
def test_datasets_has_the_rows_of_the_set_in_its_order(
    hf: dict[str, str], made: TrainingSet
) -> None:
    whole = made.read()
    dataset = made.to_hf(**hf)
    assert dataset.column_names == made.columns
    expected = whole.with_columns(pl.col("target").fill_nan(-1.0)).to_dicts()
    got = [
        row | {"target": -1.0 if row["target"] != row["target"] else row["target"]}
        for row in dataset
    ]
    assert got == expected
    few = made.to_hf(["ahead", "choice"], **hf)
    assert few.to_list() == whole.select("ahead", "choice").to_dicts()
    streamed = made.to_hf(["ahead", "choice"], streaming=True)
    assert list(streamed) == few.to_list()
    with pytest.raises(RetrievalError, match="no column 'chioce'; did you mean 'choice'"):
        made.to_hf(["chioce"], **hf)


@pytest.mark.slow
def test_a_set_that_is_made_again_in_its_place_is_read_again(
    hf: dict[str, str], tmp_path: Path
) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    spine = rows((1, 0, None)).drop("amount")
    for number in range(2):
        again = training_set(
            spine.with_columns(number=number), ["spend"], project.store, tmp_path / "set"
        )
        os.utime(again.files[0], (1e9, 1e9))  # as a disk that counts seconds may have it
        assert again.to_hf(["number"], **hf).to_list() == [{"number": number}]
        again.path.rename(tmp_path / f"old{number}")


@pytest.mark.slow
def test_a_set_without_rows_gives_none(hf: dict[str, str], tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    empty = training_set(rows().drop("amount"), ["spend"], project.store, tmp_path / "set")
    assert list(empty.batches()) == []
    for streaming in (False, True):
        dataset = empty.to_hf(["at", SUMS[0]], streaming=streaming, **hf)
        assert (list(dataset), dataset.column_names) == ([], ["at", SUMS[0]])


# -- torch


def test_integers_beside_nulls_that_no_float_holds_are_refused_and_never_rounded() -> None:
    exact = 2**53
    for dtype in (pl.Int64(), pl.UInt64()):
        held, beyond = (pl.Series([n, None, 3], dtype=dtype).to_arrow() for n in (exact, exact + 1))
        floats = tensor_type(dtype, has_null=True)
        assert converted("n", held, floats).to_pylist() == [float(exact), None, 3.0]
        with pytest.raises(RetrievalError, match="'n' holds numbers that no float holds exactly"):
            converted("n", beyond, floats)
    whole = pl.Series([exact + 1, -exact - 1]).to_arrow()
    assert converted("n", whole, tensor_type(pl.Int64(), has_null=False)).equals(whole)
    too_large = pl.Series([2**63], dtype=pl.UInt64).to_arrow()
    with pytest.raises(RetrievalError, match="torch has no integers for; make floats"):
        converted("n", too_large, tensor_type(pl.UInt64(), has_null=False))
    for values, kept in (
        (pl.Series([True, None]), [1.0, None]),
        (pl.Series(["1.25", None]).cast(pl.Decimal(12, 2)), [1.25, None]),
        (pl.Series([None, None]), [None, None]),
    ):
        type_ = tensor_type(values.dtype, has_null=True)
        assert converted("v", values.to_arrow(), type_).to_pylist() == kept


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_torch_gets_each_row_once_whatever_the_workers(made: TrainingSet, workers: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    loader = torch.utils.data.DataLoader(
        made.to_torch(["number", "ahead", "flag"], rows=7), batch_size=None, num_workers=workers
    )
    batches = list(loader)
    assert max(len(batch["number"]) for batch in batches) == 7
    numbers = torch.cat([batch["number"] for batch in batches])
    ahead_ = torch.cat([batch["ahead"] for batch in batches])
    order = numbers.argsort()
    assert numbers[order].tolist() == list(range(HEIGHT))
    expected = made.read()["ahead"].fill_null(-1.0).to_list()
    assert torch.nan_to_num(ahead_[order], nan=-1.0).tolist() == expected
    assert (numbers.tolist() == sorted(numbers.tolist())) or workers


@pytest.mark.slow
def test_ranks_and_their_workers_share_out_the_rows(made: TrainingSet) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    seen = []
    for rank in range(2):
        mine = made.to_torch(["number"], rows=7, share=(rank, 2))
        for batch in torch.utils.data.DataLoader(mine, batch_size=None, num_workers=2):
            seen += batch["number"].tolist()
    assert sorted(seen) == list(range(HEIGHT))
    with pytest.raises(RetrievalError, match="share is"):
        made.to_torch(share=(2, 2))


@pytest.mark.slow
def test_torch_keeps_numbers_as_they_are_and_nulls_as_nan(made: TrainingSet) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    columns = ["number", "small", "price", "flag", *SUMS]
    kept = pickle.loads(pickle.dumps(made.to_torch(columns)))
    [first, *_] = kept
    assert {name: tensor.dtype for name, tensor in first.items()} == {
        "number": torch.int64,
        "small": torch.int64,
        "price": torch.float64,
        "flag": torch.float64,
        SUMS[0]: torch.float64,
        SUMS[1]: made_of(torch, made, SUMS[1]),
    }
    assert list(next(iter(made.to_torch()))) == [c.name for c in made.document.columns]
    with pytest.raises(
        RetrievalError, match="'kind' is String, and torch takes numbers and booleans"
    ):
        made.to_torch(["kind"])
    with pytest.raises(RetrievalError, match=r"'path' is List\(Int64\)"):
        made.to_torch(["path"])


def made_of(torch: Any, made: TrainingSet, name: str) -> Any:
    """The dtype of a column of counts: integers unless one is null."""
    return torch.float64 if made.read()[name].null_count() else torch.int64
