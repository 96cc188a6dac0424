"""An audit finds what is wrong in the store, online or in an engine, and nothing where all is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from structlog.testing import capture_logs

import mlforge.validators as v
from mlforge import Definitions
from mlforge.cli import main
from mlforge.core import clock, plain_folds, reference
from mlforge.core.aggregations import AGGREGATIONS, aggregation
from mlforge.core.disk import hash_file
from mlforge.core.manifest import Manifest
from mlforge.core.values import to_us
from mlforge.engines import engine_named
from mlforge.errors import MlforgeError, StoreUnavailable
from mlforge.features.feature import Feature
from mlforge.frames.encoding import key_hash
from mlforge.maintenance.sampling import ALL, Sample, Share, entity_text
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge.store.local import io
from mlforge.store.manifest_json import to_json
from tests.support.projects import Project, at, rows

EVERYTHING = list(AGGREGATIONS)


@pytest.fixture(params=["polars", "duckdb"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """Three files of six users' events; now is a month later."""
    made = Project(tmp_path / "project", request.param)
    for number in range(3):
        events = [(user, number * 2 + user / 7, user * 1.1 + number) for user in range(6)]
        made.drop(f"f{number}", rows(*events, (1, number * 2.0, None), (None, 1.0, 5.0)))
    with clock.fixed(to_us(at(30))):
        yield made


def typed(df: pl.DataFrame) -> pl.DataFrame:
    amount = pl.col("amount")
    return df.select(
        "user_id",
        "at",
        "amount",
        whole=amount.cast(pl.Int32),
        exact=amount.cast(pl.Decimal(10, 2)),
        small=amount.cast(pl.Float32),
        odd=pl.when(amount > 3).then(amount / 0).otherwise(amount),
        flag=amount > 3,
        word=amount.cast(pl.String),
        day=pl.col("at").dt.date(),
        hour=pl.col("at").dt.time(),
        other=pl.col("at").dt.cast_time_unit("ns") + pl.duration(nanoseconds=999),
    )


def by_day(df: pl.DataFrame) -> pl.DataFrame:
    return df.select(pl.col("at").dt.date().alias("at"), key=pl.col("user_id") > 2, x="amount")


def totals(df: pl.DataFrame) -> pl.DataFrame:
    return df.drop_nulls("user_id").group_by("user_id", maintain_order=True).agg(pl.sum("amount"))


NUMBERS = dict.fromkeys(("amount", "whole", "exact", "small", "odd", "flag"), EVERYTHING)
COMPARED = [name for name in AGGREGATIONS if aggregation(name).kind.dtype("String")]
ORDERED = dict.fromkeys(("word", "day", "hour", "other"), COMPARED)
KINDS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "every type and aggregate": (typed, {"metrics": [Rolling(["2d", "6h"], NUMBERS | ORDERED)]}),
    **{
        f"closed {closed}, with an offset": (
            typed,
            {"metrics": [Rolling("2d", {"amount": EVERYTHING}, closed=closed, offset="12h")]},
        )
        for closed in ("both", "right", "left", "none")
    },
    "aligned": (typed, {"interval": "1d", "metrics": [Rolling(["1d", "3d"], NUMBERS)]}),
    "rows as they are": (typed, {"metrics": ()}),
    "days, booleans as keys": (
        by_day,
        {"keys": ["key"], "metrics": [Rolling("2d", {"x": EVERYTHING})]},
    ),
    "not row-wise": (
        lambda df: df.with_columns(pl.col("amount") - pl.col("amount").mean()).drop_nulls("at"),
        {},
    ),
    "untimed": (totals, {"timestamp": None, "metrics": ()}),
    "validators": (typed, {"validators": {"amount": v.less_than(6, on_fail="drop")}}),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow)
        if kind.startswith(("closed b", "closed r"))
        else kind
        for kind in KINDS
    ],
)
def test_an_honest_version_of_every_kind_is_proven(
    project: Project, redis_url: str, kind: str
) -> None:
    function, changes = KINDS[kind]
    made = project.define(function, **changes)
    store = RedisStore.from_url(redis_url)
    definitions = project.definitions(made, online_store=store)
    definitions.build(online=True)
    for share in (ALL, Share(2, seed=7)):
        found = definitions.audit("spend", share)
        assert found.first == ()
        assert (found.is_proof, found.skipped, found.gone, found.unproven) == (True, (), (), 0)
        assert found.entities == min(share.entities or 99, 2 if "key" in made.spec.keys else 6)
        assert found.values >= 3 * found.entities
    assert project.store.audit("spend") == found
    assert found.proven is not None
    assert (found.proven.version, found.proven.values) == ("1.0.0", found.values)


CENTS = pl.Series([Decimal("1.10"), Decimal("2.20")], dtype=pl.Decimal(10, 2))
MIXED = {
    "numbers": (pl.Series([1, 2]), pl.Series([1.5, None])),
    "decimals": (CENTS, pl.Series([Decimal("1.1234"), None], dtype=pl.Decimal(12, 4))),
    "decimals and numbers": (CENTS, pl.Series([1, None])),
    "squares that no float holds": (pl.Series([-1.3e154] * 4), pl.Series([0.0] * 8)),
}


@pytest.mark.parametrize("what", MIXED)
@pytest.mark.parametrize("metrics", [[Rolling(["2d"], {"amount": EVERYTHING})], []])
def test_a_version_of_files_whose_numbers_are_of_several_types_is_proven(
    tmp_path: Path, what: str, metrics: list[Rolling]
) -> None:
    project = Project(tmp_path / "project")
    for name, values in zip("ab", MIXED[what], strict=True):
        events = rows(*((1 + number % 2, number / 10, None) for number in range(len(values))))
        project.drop(name, events.with_columns(amount=values))
    definitions = project.definitions(project.define(lambda df: df, metrics=metrics))
    definitions.build()
    found = definitions.audit("spend", ALL)
    assert (found.first, found.mismatches, found.is_proof) == ((), 0, True)


@pytest.mark.parametrize("odd", ["a zone of its own", "a further column"])
def test_a_version_of_a_function_that_sees_files_of_several_forms_as_one_is_proven(
    odd: str, project: Project
) -> None:
    """As the build took them together: no value is called wrong for what it made alike or left out."""

    def distinct(df: pl.DataFrame) -> pl.DataFrame:
        return df.unique().select("user_id", "at", "amount")

    for number in range(4):
        frame = rows(*[(user, number, float(user)) for user in (1, 1, 2, 3)])
        if number == 2 and odd == "a further column":
            frame = frame.with_row_index("row")
        elif number == 2:
            frame = frame.with_columns(pl.col("at").dt.convert_time_zone("Europe/Berlin"))
        project.drop(f"{number}", frame)
    feature = project.define(distinct)
    assert not project.build(feature).quarantined
    audit = project.definitions(feature).audit("spend")
    assert (audit.mismatches, audit.unproven) == (0, 0)
    assert audit.values


def served(project: Project, redis_url: str, *features: Feature) -> Definitions:
    definitions = project.definitions(*features, online_store=RedisStore.from_url(redis_url))
    definitions.build(online=True)
    return definitions


def tamper(project: Project, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change data.parquet and its manifest, so that all hashes fit."""
    manifest: Manifest = project.store.resolve("spend")
    assert manifest.version is not None
    folder = project.store.path / "spend" / str(manifest.version)
    [part] = manifest.parts
    path = folder / part.file
    table = change(pl.read_parquet(path))
    table.write_parquet(path)
    part = replace(part, rows=table.height, hash=hash_file(path))
    document = to_json(replace(manifest, parts=(part,)))
    (folder / ".meta.json").write_text(io.json_text(document))


def test_a_value_changed_in_the_table_is_found_and_stays_known(
    project: Project, redis_url: str
) -> None:
    definitions = served(project, redis_url)
    assert definitions.audit("spend", ALL).is_proof
    wrong = (pl.col("user_id") == 4) & (pl.col("at") == at(2 + 4 / 7))
    tamper(
        project,
        lambda table: table.with_columns(
            pl.when(wrong).then(1e6).otherwise("amount__sum__7d").alias("amount__sum__7d")
        ),
    )
    found = definitions.audit("spend", ALL)
    assert found.mismatches == 1
    assert "user_id=4: offline amount__sum__7d at 2026-01-03T" in found.first[0]
    assert "is 1000000.0, the files give 9.8" in found.first[0]
    for seed in range(8):  # whatever a later audit draws
        assert definitions.audit("spend", Share(1, seed)).mismatches == 1
    proven = definitions.audit("spend", Share(1)).proven
    assert proven is not None
    assert proven.version == "1.0.0"


def test_an_audit_whose_result_the_store_does_not_take_is_told_all_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.build()

    def refused(*_: Any) -> None:
        raise StoreUnavailable("the file system is read-only")

    monkeypatch.setattr(LocalStore, "write_audit", refused)
    with capture_logs() as logs:
        assert project.definitions().audit("spend", ALL).is_proof
    told = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in told] == ["the audit's result is not kept"]
    assert told[0]["error"] == "the file system is read-only"
    assert project.store.audit("spend") is None


def test_what_was_wrong_stays_an_alarm_while_it_cannot_be_looked_at(
    project: Project, redis_url: str
) -> None:
    definitions = served(project, redis_url)
    tamper(project, lambda table: table.with_columns(pl.col("amount__sum__7d") + 1))
    assert definitions.audit("spend", ALL).mismatches == 20
    contents = {path: path.read_bytes() for path in project.events.glob("*.parquet")}
    for path in contents:
        path.write_bytes(b"")
    found = definitions.audit("spend", ALL)
    assert (found.entities, found.unproven, found.mismatches) == (0, 6, 6)
    assert found.first[0].endswith("was wrong in the audit before, and cannot be proven now")
    for path, content in contents.items():
        path.write_bytes(content)
    tamper(project, lambda table: table.with_columns(pl.col("amount__sum__7d") - 1))
    assert definitions.audit("spend", Share(1)).is_proof


def test_a_stranger_online_stays_an_alarm_until_it_is_gone(
    project: Project, redis_url: str
) -> None:
    definitions = served(project, redis_url)
    stranger = f"mlforge:spend:{key_hash({'user_id': 12345})}"
    with redis.Redis.from_url(redis_url) as client:
        client.set(stranger, "{}")
        assert definitions.audit("spend", ALL).mismatches == 1
        assert definitions.audit("spend", Share(1)).mismatches == 1
        client.delete(stranger)
    assert definitions.audit("spend", Share(1)).is_proof


@pytest.mark.parametrize("change", ["gone", "twice", "a stranger's"])
def test_rows_too_few_and_too_many_are_found(project: Project, redis_url: str, change: str) -> None:
    definitions = served(project, redis_url)

    def changed(table: pl.DataFrame) -> pl.DataFrame:
        first = table.head(1)
        if change == "gone":
            return table.tail(-1)
        if change == "a stranger's":
            first = first.with_columns(pl.lit(77, dtype=pl.Int64).alias("user_id"))
        return pl.concat([first, table])

    tamper(project, changed)
    found = definitions.audit("spend", ALL)
    assert found.mismatches
    assert "rows are stored, the files give" in found.first[0]


def test_a_row_changed_online_is_found_and_so_are_a_lost_and_a_strange_one(
    project: Project, redis_url: str
) -> None:
    with clock.fixed(to_us(at(5))):
        definitions = served(project, redis_url)
    with redis.Redis.from_url(redis_url) as client:
        [one, two] = (f"mlforge:spend:{key_hash({'user_id': user})}" for user in (1, 2))
        row = json.loads(client.get(one))  # type: ignore[arg-type]
        client.set(one, json.dumps(row | {"amount__count__7d": 99}))
        client.delete(two)
        client.set(f"mlforge:spend:{key_hash({'user_id': 12345})}", json.dumps(row))
    found = definitions.audit("spend", ALL)
    told = "\n".join(found.first)
    assert found.mismatches == 3
    assert "user_id=1: online amount__count__7d at 2026-01-05" in told
    assert "is 99, the files give" in told
    assert "user_id=2: its row online is not there" in told
    assert "1 rows online are of entities that the files do not have" in told
    unseen = project.definitions().audit("spend", ALL)  # no online store is at hand
    assert unseen.mismatches == 3, "what was wrong is, until somebody has seen it right"


def test_a_broken_kernel_is_found_although_all_that_it_made_agrees(
    project: Project, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Build, training and push use the same kernel: only a second implementation can tell."""
    kernel = type(engine_named(project.engine))
    honest = kernel.values

    def broken(self: Any, events: Any, points: pl.DataFrame) -> pl.DataFrame:
        found = honest(self, events, points)
        return found.with_columns(pl.col("amount__sum__2d") * 2)

    monkeypatch.setattr(kernel, "values", broken)
    definitions = served(project, redis_url)
    found = definitions.audit("spend", ALL)
    assert found.mismatches
    assert any("training amount__sum__2d" in told for told in found.first)


def test_entities_of_a_file_whose_content_is_gone_are_not_called_proven(project: Project) -> None:
    project.drop("more", rows((6, 1.0, 5.0), (5, 1.0, 5.0)))
    definitions = project.definitions()
    definitions.build()
    project.drop("more", rows((6, 1.0, 6.0), (5, 1.0, 5.0)))
    found = definitions.audit("spend", ALL)
    assert (found.entities, found.unproven, found.gone) == (5, 2, ("more.parquet",))
    assert found.is_proof
    for number in range(3):
        (project.events / f"f{number}.parquet").unlink()
    found = definitions.audit("spend", ALL)
    assert (found.entities, found.unproven, found.is_proof) == (0, 7, False)
    assert definitions.refresh("spend", attended=False).reason == "held"
    found = definitions.audit("spend", ALL)
    assert (found.unproven, found.mismatches) == (7, 0), "what is there now was not published"


def test_an_empty_file_that_is_gone_leaves_nothing_unproven(project: Project) -> None:
    """Its stored events have no keys, as it had none."""
    gone = project.drop("f3", rows().drop("user_id"))
    definitions = project.definitions()
    definitions.build()
    gone.unlink()
    assert definitions.audit("spend", ALL).unproven == 0


def test_a_renamed_file_is_found_by_its_content(project: Project) -> None:
    definitions = project.definitions()
    definitions.build()
    (project.events / "f1.parquet").rename(project.events / "g1.parquet")
    assert not definitions.build()["spend"].changed
    found = definitions.audit("spend", ALL)
    assert (found.entities, found.unproven, found.gone) == (6, 0, ())


def test_files_written_anew_with_the_same_rows_prove_the_version_too(project: Project) -> None:
    definitions = project.definitions()
    definitions.build()
    kept = pl.concat(pl.read_parquet(path) for path in sorted(project.events.glob("*.parquet")))
    for number in range(3):
        (project.events / f"f{number}.parquet").unlink()
    project.drop("compacted", kept)
    assert definitions.audit("spend", ALL).unproven == 6
    assert not definitions.build()["spend"].changed
    found = definitions.audit("spend", ALL)
    assert (found.entities, found.unproven, found.gone, found.is_proof) == (6, 0, (), True)


def test_files_that_are_set_aside_or_unlike_in_a_column_that_nothing_reads_raise_no_alarm(
    project: Project,
) -> None:
    project.drop("f3", rows((1, 7.0, 3.0)).with_columns(note=pl.lit(1)))
    project.drop("f4", rows((1, 9.0, 0.5)).with_columns(note=pl.lit([0])))
    project.drop("f5", rows((7, 9.0, 1.0)).with_columns(pl.lit("many").alias("amount")))
    features = project.define(), project.define(lambda df: df.unique(), name="whole")
    definitions = project.definitions(*features)
    definitions.build()
    # All files are read then, as one was written anew with the rows that it had.
    project.drop("f0", pl.read_parquet(project.events / "f0.parquet").reverse())
    for each in features:
        assert not definitions.build(each.name)[each.name].changed
        found = definitions.audit(each.name, ALL)
        assert (found.first, found.is_proof) == ((), True)


def test_a_version_of_other_code_is_not_audited(project: Project) -> None:
    project.build()
    other = project.definitions(project.define(typed))
    with pytest.raises(MlforgeError, match="made by other code"):
        other.audit("spend")


def test_rows_of_a_push_under_way_are_not_compared(project: Project, redis_url: str) -> None:
    definitions = served(project, redis_url)
    online = definitions.online_store
    assert online is not None
    project.drop("more", rows((6, 9.0, 5.0)))
    definitions.build()
    skipped = ("online: another version, or none, is there just now",)
    found = definitions.audit("spend", ALL)
    assert (found.is_proof, found.skipped) == (True, skipped)
    definitions.push("spend")
    assert definitions.audit("spend", ALL).skipped == ()
    books = online.books("spend")
    assert books is not None
    assert books.target is not None
    online.begin("spend", replace(books.target, as_of=to_us(at(31))))
    assert definitions.audit("spend", ALL).skipped == skipped


def test_the_command_says_what_is_proven_and_fails_for_what_is_wrong(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    (project.root / "definitions.py").write_text(
        "from mlforge import Definitions, feature\n"
        "from mlforge.metrics import Rolling\n"
        "from mlforge.store import LocalStore\n"
        "@feature(keys='user_id', source='events', timestamp='at',\n"
        "         metrics=[Rolling('7d', {'amount': 'sum'})])\n"
        "def spend(df):\n    return df.select('user_id', 'at', 'amount')\n"
        "defs = Definitions(store=LocalStore('store'), features=[spend])\n"
    )
    target = ["--definitions", str(project.root / "definitions.py")]
    assert main(["audit", *target]) == 1
    assert "the store has no feature 'spend'" in capsys.readouterr().err
    assert main(["build", *target]) == 0
    capsys.readouterr()
    assert main(["audit", "spend", "--all", *target]) == 0
    assert "proven" in capsys.readouterr().out
    tamper(project, lambda table: table.with_columns(pl.col("amount__sum__7d") + 1))
    assert main(["audit", "spend", "--all", "--json", *target]) == 1
    output = capsys.readouterr()
    [document] = json.loads(output.out)["features"]
    assert (document["feature"], document["mismatches"]) == ("spend", 20)
    assert document["proven"]["version"] == "1.0.0"
    assert "the files give" in output.err


def test_the_plain_rule_needs_neither_engines_nor_stored_events() -> None:
    core = {"aggregations", "metrics", "feature_spec", "plain_folds", "values"}
    for module, allowed in ((reference, core), (plain_folds, set())):
        source = Path(module.__file__).read_text()
        imports = {line.split()[1] for line in source.splitlines() if "from mlforge" in line}
        assert imports == {f"mlforge.core.{name}" for name in allowed}


def test_a_suspect_is_looked_at_whatever_its_keys_and_the_draw() -> None:
    entities = pl.DataFrame(
        {
            "flag": [True, False],
            "day": [date(2026, 1, 2)] * 2,
            "user_id": [-7, 8],
            "word": ["a", "b"],
        }
    )
    for entity in entities.iter_rows():
        sample = Sample(tuple(entities.columns), 0, 0, (entity_text(entity),))
        assert sample.of_frame(entities).rows() == [entity]
