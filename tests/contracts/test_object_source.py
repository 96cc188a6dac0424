"""Sources in buckets: which objects count, and what comes of them, as of files on a disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mlforge.build.result import BuildResult
from mlforge.errors import BuildError, DefinitionError, SourceError, StoreError
from mlforge.store.object_source import ObjectSource
from mlforge.store.objects import refusals
from mlforge.store.objects.objects import NotReadable
from tests.support.contents import as_parquet
from tests.support.objects import MemoryObjects, only_bucket
from tests.support.projects import Project, column, rows

DROPS = "s3://shop/drops/"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryObjects:
    return only_bucket(monkeypatch, MemoryObjects())


def put(bucket: MemoryObjects, key: str, frame: pl.DataFrame) -> None:
    bucket.put(key, as_parquet(frame))


def listed(*texts: str) -> list[str]:
    return sorted(ObjectSource.of(texts).scan().stats)


# What a text means


def test_a_text_means_the_objects_that_a_path_of_that_form_would_mean_as_files(bucket):
    for key in (
        "drops/a.parquet",
        "drops/date=2026-01-01/b.parquet",
        "drops/_temporary/c.parquet",
        "drops/.d.parquet",
        "drops/e.parquet.tmp",
        "drops/f.csv",
        "drops-of-others/g.parquet",
        "drops/x.parquet/part-0.parquet",
        "h.parquet",
    ):
        bucket.put(key, b"PAR1")
    below = ["a.parquet", "date=2026-01-01/b.parquet", "x.parquet/part-0.parquet"]
    assert listed("s3://shop/drops/") == listed("s3://shop/drops") == below
    assert listed("s3://shop/drops/*.parquet") == ["a.parquet"]
    assert listed("s3://shop/drops/date=*/") == ["date=2026-01-01/b.parquet"]
    assert listed("s3://shop/drops/a.parquet") == ["a.parquet"]
    assert listed("s3://shop/drops/x.parquet") == ["x.parquet/part-0.parquet"]
    assert listed("gs://shop/h.parquet", "gs://shop/drops/*.parquet") == [
        "gs://shop/drops/a.parquet",
        "gs://shop/h.parquet",
    ]
    assert len(listed("s3://shop")) == 5
    listing = ObjectSource.of([DROPS]).scan()
    assert [entry.path for entry in listing.ignored] == ["f.csv"]
    assert listing.hive == {"date"}
    assert not ObjectSource.of(["s3://shop/nothing/"]).scan().exists


def test_an_address_is_known_as_the_object_that_it_names(bucket):
    for source in (ObjectSource.of([DROPS]), ObjectSource.of([DROPS, "s3://shop/more/"])):
        address = Path("s3://shop/drops/date=2026-01-01/a.parquet")
        path = source.path_of(address)
        assert path is not None
        assert source.absolute(path) == address
        assert source.matches(address)
        assert not source.matches(Path("s3://shop/drops/_a.parquet"))
        assert source.path_of(Path("s3://other/drops/a.parquet")) is None
        assert source.path_of(Path("/shop/drops/a.parquet")) is None


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["s3:///drops/"], "not the address of objects"),
        (["s3://"], "not the address of objects"),
        (["s3://shop/drops/_drafts.parquet"], "'s3://shop/drops/_drafts.parquet'.*is passed over"),
        (["s3://shop/drops/", "events"], "of folders or of buckets"),
        (["s3a://shop/drops/"], "does not read"),
    ],
)
def test_a_text_that_can_name_no_object_is_refused(bucket, tmp_path, texts, says):
    project = Project(tmp_path)
    with pytest.raises(DefinitionError, match=says):
        project.definitions(project.define(source=texts))


@pytest.mark.parametrize(
    "key",
    ["drops/_delta_log/00.json", "drops/metadata/v1.metadata.json", "drops/date=1/.hoodie/x"],
)
def test_a_table_with_a_log_is_refused_by_its_objects(bucket, key):
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    bucket.put(key, b"{}")
    with pytest.raises(SourceError, match="belongs to a table in"):
        ObjectSource.of([DROPS]).scan()


def test_a_store_that_lies_in_a_source_is_refused_by_its_objects(bucket):
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    put(bucket, "drops/moved/spend/_parts/1.parquet", rows((1, 0.0, 1.0)))
    bucket.put("drops/moved/_metadata/store.json", b"{}")
    with pytest.raises(SourceError, match="drops/moved is a store of mlforge"):
        ObjectSource.of([DROPS]).scan()
    assert [*ObjectSource.of([f"{DROPS}*.parquet"]).scan().stats] == ["a.parquet"]


# What comes of it


def test_drops_make_the_versions_and_values_that_files_on_a_disk_make(bucket, tmp_path):
    local, remote = Project(tmp_path / "local"), Project(tmp_path / "remote")
    spend = remote.define(source=DROPS)
    drops = [
        ("b", rows((1, 0.0, 1.0), (2, 1.0, 5.0))),
        ("date=2026-01-03/a", rows((1, 2.0, 2.0))),
        ("b", rows((1, 0.5, 4.0))),  # written over
        ("c", pl.DataFrame({"other": [1]})),  # set aside
    ]
    for name, frame in drops:
        local.drop(name, frame)
        put(bucket, f"drops/{name}.parquet", frame)
        theirs, ours = local.build(), remote.build(spend)
        assert isinstance(ours, BuildResult)
        assert (ours.version, ours.reason) == (theirs.version, theirs.reason)
        assert remote.store.read("spend").equals(local.store.read("spend"))
    assert list(remote.store.books("spend").quarantine) == ["c.parquet"]
    definitions = remote.definitions(spend)
    assert not definitions.audit("spend").mismatches
    del bucket.stored["drops/date=2026-01-03/a.parquet"]
    (local.events / "date=2026-01-03" / "a.parquet").unlink()
    assert remote.build(spend).version == local.build().version
    assert remote.store.read("spend").equals(local.store.read("spend"))
    bucket.stored.clear()  # a prefix without objects is one that is missing
    assert remote.build(spend).reason == "source_missing"


def test_a_drop_costs_a_list_and_a_read_of_what_is_new(bucket, tmp_path):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    for number in range(50):
        put(bucket, f"drops/{number:02}.parquet", rows((number, 0.0, 1.0)))
    project.build(spend)
    put(bucket, "drops/new.parquet", rows((1, 3.0, 2.0)))
    bucket.requests.clear()
    assert project.build(spend).version == "1.0.1"
    assert [deed for deed, *_ in bucket.requests] == ["list", "read"]
    bucket.requests.clear()
    assert project.build(spend).reason == "unchanged"
    assert [deed for deed, *_ in bucket.requests] == ["list"]


def test_an_object_that_is_written_over_between_its_listing_and_its_reading_is_read_next_time(
    bucket, tmp_path
):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    project.build(spend)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 2.0)))
    left = [1]

    def write_over(deed: str, key: str) -> None:
        if deed == "read" and left:
            left.clear()
            put(bucket, "drops/a.parquet", rows((1, 0.0, 3.0)))

    bucket.before = write_over
    project.build(spend)
    project.build(spend)
    assert column(project.store.read("spend"), "amount__sum__7d", user_id=1) == [3.0]
    assert not project.store.books("spend").quarantine


def test_while_no_answer_comes_what_is_served_stays(bucket, tmp_path):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    project.build(spend)
    put(bucket, "drops/b.parquet", rows((1, 1.0, 2.0)))
    put(bucket, "drops/c.parquet", rows((1, 2.0, 3.0)))
    for failing in ("list", "read"):

        def fail(deed: str, key: str, failing: str = failing) -> None:
            if deed == failing and not key.endswith("b.parquet"):
                raise StoreError("s3://shop: no answer")

        bucket.before = fail
        with pytest.raises(BuildError, match="no answer"):
            project.build(spend)
        assert project.store.list_versions("spend") == ["1.0.0"]
        assert not project.store.books("spend").quarantine
    bucket.before = lambda deed, key: None
    assert project.build(spend).version == "1.0.1"
    assert project.store.read("spend").height == 3


def test_tables_may_lie_in_a_bucket_or_beside_one(bucket, tmp_path):
    project = Project(tmp_path)
    rates = pl.DataFrame({"user_id": [1], "rate": [2.0]})
    put(bucket, "rates.parquet", rates)
    rates.write_parquet(tmp_path / "rates.parquet")
    put(bucket, "drops/a.parquet", rows((1, 0.0, 3.0)))
    project.drop("a", rows((1, 0.0, 3.0)))

    def converted(df: pl.DataFrame, rates: pl.DataFrame) -> pl.DataFrame:
        joined = df.join(rates, on="user_id")
        return joined.select("user_id", "at", amount=pl.col("amount") * pl.col("rate"))

    for source, table in ((DROPS, "rates.parquet"), ("events", "s3://shop/rates.parquet")):
        project.build(project.define(converted, source=source, tables={"rates": table}))
        assert column(project.store.read("spend"), "amount__sum__7d", user_id=1) == [6.0]


# Objects that may not be read


def refuse(bucket: MemoryObjects, *keys: str, deeds: tuple[str, ...] = ("read", "look")) -> None:
    """Have the server list these objects, and refuse to read them."""

    def answer(deed: str, key: str) -> None:
        if deed in deeds and key in keys:
            raise NotReadable(f"s3://shop: cannot {deed} {key}: 403 Forbidden")

    bucket.before = answer


@pytest.mark.parametrize("whole", [False, True])
def test_an_object_that_may_not_be_read_is_set_aside_and_the_others_count(bucket, tmp_path, whole):
    project = Project(tmp_path)
    spend = project.define(source=DROPS, incremental=not whole)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    project.build(spend)
    put(bucket, "drops/b.parquet", rows((2, 1.0, 2.0)))
    put(bucket, "drops/c.parquet", rows((3, 2.0, 3.0)))
    refuse(bucket, "drops/b.parquet")
    assert [bad.path for bad in project.build(spend).quarantined] == ["b.parquet"]
    assert project.store.read("spend")["user_id"].to_list() == [1, 3]
    reason = project.store.books("spend").quarantine["b.parquet"].reason
    assert "b.parquet: its bucket lists it, and refuses to read it" in reason
    assert project.build(spend).reason == "unchanged"
    bucket.before = lambda deed, key: None
    assert project.build(spend).quarantined == ()  # it is tried again each time
    assert project.store.read("spend")["user_id"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(
    "source", [DROPS, ["s3://shop/drops/a.parquet", "s3://shop/drops/b.parquet"]]
)
def test_while_an_object_may_not_be_read_any_more_what_it_held_counts(bucket, tmp_path, source):
    project = Project(tmp_path)
    spend = project.define(source=source)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    put(bucket, "drops/b.parquet", rows((2, 1.0, 2.0)))
    project.build(spend)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 9.0)))
    put(bucket, "drops/b.parquet", rows((2, 1.0, 5.0)))
    refuse(bucket, "drops/a.parquet")
    for _ in range(3):
        [set_aside] = project.build(spend).quarantined
        assert set_aside.path.endswith("a.parquet")
        assert column(project.store.read("spend"), "amount__sum__7d") == [1.0, 5.0]
    assert project.definitions(spend).audit("spend").mismatches == 0
    bucket.before = lambda deed, key: None
    project.build(spend)
    assert column(project.store.read("spend"), "amount__sum__7d") == [9.0, 5.0]


def test_a_source_of_which_nothing_may_be_read_says_so(bucket, tmp_path):
    project = Project(tmp_path)
    put(bucket, "drops/a.parquet", rows((1, 0.0, 1.0)))
    refuse(bucket, "drops/a.parquet")
    with pytest.raises(
        BuildError, match=r"a\.parquet: its bucket lists it, and refuses to read it"
    ):
        project.build(project.define(source=DROPS))


@pytest.mark.parametrize(
    ("told", "is_of_object"),
    [
        ("status code: 403 Forbidden: <Error><Code>AccessDenied</Code></Error>", True),
        ("status code: 403 Forbidden: <Error><Code>InvalidObjectState</Code></Error>", True),
        ("status code: 400 Bad Request: <Error><Code>KMS.DisabledException</Code>", True),
        ("status code: 400 Bad Request: <Error><Code>InvalidRequest</Code></Error>", True),
        ("status code: 409 Conflict: <Error><Code>BlobArchived</Code></Error>", True),
        ("status code: 403 Forbidden", True),
        ("status code: 400 Bad Request", False),
        ("status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code></Error>", False),
        ("status code: 400 Bad Request: <Error><Code>ExpiredToken</Code></Error>", False),
        ("status code: 503 Slow Down: <Error><Code>SlowDown</Code></Error>", False),
        ("error sending request", False),
    ],
)
def test_a_refusal_is_of_an_object_only_where_that_is_sure(told, is_of_object):
    assert (
        refusals.is_of_object(f"Generic S3 error: Server returned non-2xx {told}") == is_of_object
    )


def test_a_refusal_is_told_in_the_servers_own_words():
    said = "Generic S3 error: GET http://here in 1ms - Server returned non-2xx status code: "
    xml = (
        "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message> Not you </Message></Error>"
    )
    assert refusals.brief(f"{said}403 Forbidden: {xml}") == "403 AccessDenied: Not you"
    assert refusals.brief(f"{said}403: <Code>AccessDenied</Code>") == "403 AccessDenied"
    assert refusals.brief("error sending request\nmore") == "error sending request"
    assert len(refusals.brief(f"{said}403 {xml}".replace("Not you", "x" * 999))) == 300
