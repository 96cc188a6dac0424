"""The example of fraud: its payments, the script that a newcomer runs, and the page that tells of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from examples.fraud.generate import END, OFFLINE, PAYMENTS, history, write
from mlforge import TrainingSet
from mlforge.definitions.loader import load
from tests.support.paths import ROOT

EXAMPLE, PAGE = ROOT / "examples" / "fraud", ROOT / "docs" / "zero-to-served.md"


def test_the_same_seed_gives_the_same_payments_of_which_the_late_ones_are_apart(
    tmp_path: Path,
) -> None:
    one, again, other = history(), history(), history(8)
    assert one.payments.equals(again.payments)
    assert not one.payments.equals(other.payments)
    assert one.payments["at"].is_sorted()
    assert one.payments["at"].max() <= END  # type: ignore[operator]
    assert one.late["card_id"].unique().to_list() == [OFFLINE]
    write(tmp_path, one)
    files = pl.read_parquet(tmp_path / "payments/*.parquet")
    assert files.schema == PAYMENTS
    assert files.sort("payment_id").equals(one.payments)
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert labels.height == one.payments.height + one.late.height
    assert 0.02 < labels["fraud"].mean() < 0.2  # type: ignore[operator]


def test_the_code_of_the_page_is_that_of_the_example() -> None:
    blocks = re.findall(r"``` {.python}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shown = [re.fullmatch(r'--8<-- "(\S+):(\w+)"\n', block) for block in blocks]
    assert len(shown) == 11
    for block in shown:
        assert block is not None
        text = (ROOT / block[1]).read_text(encoding="utf-8")
        for edge in ("start", "end"):
            assert text.count(f"# --8<-- [{edge}:{block[2]}]\n") == 1


def without_scores(text: str) -> str:
    """The text without risks, areas and errors: they depend a little on the library that fits."""
    return re.sub(r"\b\d\.\d{2,3}\b|(?<=missed by )\d+", "", text)


@pytest.mark.slow
def test_the_script_goes_from_payments_to_a_served_model_and_a_late_file_changes_its_answer(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "fraud"
    command = [sys.executable, str(EXAMPLE / "demo.py"), "--keep", str(folder)]
    environment = {name: value for name, value in os.environ.items() if "REDIS_URL" not in name}
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert (run.returncode, run.stderr) == (0, "")
    out = run.stdout
    score = re.search(r"area under the curve (\d\.\d+)", out)
    assert score is not None
    assert float(score[1]) > 0.9
    thief = re.search(r"which a thief has: risk (\d\.\d+)", out)
    risks = re.search(r"risk (\d\.\d+) -> (\d\.\d+)", out)
    assert thief is not None
    assert risks is not None
    before, after = float(risks[1]), float(risks[2])
    assert before < 0.5 < min(after, float(thief[1]))
    assert "training and online agree on" in out
    store = load(str(folder / "definitions.py"), here=folder).store
    assert [str(version) for version in store.versions("card_spend")] == ["1.0.0", "1.0.1"]
    made = TrainingSet.open(folder / "train/march")
    assert made.verify() == []
    assert store.locks()["fraud_v1"] == made.lock
    radius = made.blast_radius(store)
    assert radius.by_file == {"data/payments/late.parquet": radius.rows.height}
    assert f"6. Blast radius: {radius.rows.height} rows" in out
    weeks = TrainingSet.open(folder / "train/weeks")
    counted, summed = weeks.document.labels[1], weeks.read()["spend_ahead"]
    assert (counted.name, counted.unknown) == ("payments_ahead", 200 * 7)
    assert summed.null_count() >= counted.unknown
    error, as_before = map(int, re.findall(r"missed by (\d+) \(as last week: (\d+)\)", out)[0])
    assert error < as_before
    page = without_scores(PAGE.read_text(encoding="utf-8")).splitlines()
    told = without_scores(out.partition("\n\nAll of it lies")[0]).splitlines()
    assert [line for line in told if line not in page] == []
    again = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)
