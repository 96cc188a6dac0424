"""Sentences of `mlforge forget` on what is left to the person who asked."""

from __future__ import annotations

import pytest

from mlforge.cli.commands.forget import _notes
from mlforge.maintenance.forgetting import Scrubbed
from mlforge.registry.forgetting import Forgot


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("a.parquet",), "1 source file holds rows of forgotten entities, "),
        (("a.parquet", "b.parquet"), "2 source files hold rows of forgotten entities, "),
    ],
)
def test_source_files_are_named_in_their_number(files: tuple[str, ...], told: str) -> None:
    forgot = Forgot("spend", "1.0.1", 3, Scrubbed((), 0, (), (), ()), 1, "events/", files)
    [note] = _notes([forgot], online=True)
    assert note.startswith(told)
    assert note.endswith(", ".join(f"{path} of events/" for path in files))


def test_files_that_a_function_reads_together_may_hold_rows() -> None:
    scrubbed = Scrubbed((), 0, (), (), ())
    by_file = Forgot("spend", "1.0.1", 3, scrubbed, 1, "events/", ("b.parquet",))
    whole = Forgot(
        "best", "1.0.1", 3, scrubbed, 1, "events/", ("a.parquet", "b.parquet"), together=True
    )
    holds, may = _notes([whole, by_file], online=True)
    assert holds.startswith("1 source file holds rows of forgotten entities, ")
    assert may == (
        "1 source file may hold rows of forgotten entities, as the function of best reads its files together: a.parquet of events/"
    )


def test_tables_that_hold_rows_still_are_named_once() -> None:
    scrubbed = Scrubbed(("1.0.0",), 1, (), (), ("delta:/lake/spend",))
    forgot = [Forgot(name, "1.0.1", 3, scrubbed, 1, "events/", ()) for name in ("spend", "daily")]
    [note] = _notes(forgot, online=True)
    assert note.endswith("until you export again and then vacuum: delta:/lake/spend")
