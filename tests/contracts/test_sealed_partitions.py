"""Sealed partitions: folders whose time is long over are not listed again, and nothing is missed that was there by then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlforge.core import clock
from mlforge.definitions.source_check import check_source
from mlforge.errors import DefinitionError, StoreError
from mlforge.maintenance.operations import list_anew
from mlforge.sources.listing import Listing
from mlforge.sources.time_partitions import period_of
from tests.support.contents import as_parquet
from tests.support.objects import MemoryObjects, only_bucket
from tests.support.projects import Project, rows
from worker.watch.file_tracker import FileTracker
from worker.watch.polls import Polls

DROPS = "s3://shop/drops/"
DAY = timedelta(days=1)
START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryObjects:
    return only_bucket(monkeypatch, MemoryObjects())


class Days:
    """Drops in folders of days, and a feature that seals them."""

    def __init__(
        self, bucket: MemoryObjects, root: Path, folders: str = "date={:%Y-%m-%d}"
    ) -> None:
        self.bucket, self.folders, self.project = bucket, folders, Project(root)
        self.spend = self.project.define(source=DROPS, sealed_after="2d")
        self.users = 0

    def put(self, day: int, name: str = "a", written: float | None = None) -> str:
        """A further object with a further user in the folder of a day, written by its end, or then; returns its key."""
        self.users += 1
        data = as_parquet(rows((self.users, float(day), 1.0)))
        key = f"drops/{self.folders.format(START + day * DAY)}/{name}.parquet"
        tag = self.bucket.put(key, data)
        at = START + (day + 1 if written is None else written) * DAY
        modified = int(at.timestamp() * 1_000_000)
        self.bucket.stored[key] = data, int(tag.e_tag or 0), modified
        return key

    def build(self, day: float, **options: object):
        """Build as of some days after the start; returns the result and the folders that were listed."""
        self.bucket.requests.clear()
        with clock.fixed(int((START + day * DAY).timestamp() * 1_000_000)):
            result = self.project.build(self.spend, **options)
        listed = sorted(key for deed, key, *_ in self.bucket.requests if deed == "list")
        return result, listed

    def seal(self, *days: int) -> None:
        """Put an object into the folder of each day, and build long after, twice: all of them are sealed."""
        for day in days:
            self.put(day)
        for instant in (20, 20.1):
            self.build(instant)

    def tracker(self) -> FileTracker:
        """What a watcher sees of the source."""
        return FileTracker(self.project.definitions(self.spend).source("spend"), ("spend",))

    @property
    def counted(self) -> list[int]:
        return sorted(self.project.store.read("spend")["user_id"].to_list())


LAYOUTS = ["date={:%Y-%m-%d}", "{:%Y/%m/%d}", "{:%Y%m%d}", "country=de/year={:%Y/month=%m/day=%d}"]


@pytest.mark.parametrize("folders", LAYOUTS)
def test_folders_whose_time_is_long_over_are_not_listed_again(bucket, tmp_path, folders):
    days = Days(bucket, tmp_path, folders)
    for day in range(10):
        days.put(day)
    assert days.build(9.5)[1] == ["drops"]
    days.build(9.5)  # finds all as it was: what is over is sealed
    days.put(9, "b")
    result, listed = days.build(9.6)
    assert result.changed
    of_days = [folder for folder in listed if period_of(folder.split("/")[1:]) is not None]
    fine = [f for f in of_days if period_of(f.split("/")[1:]).unit == "day"]
    assert fine == [f"drops/{folders.format(START + day * DAY)}" for day in (7, 8, 9)]
    assert days.counted == list(range(1, 12))
    days.put(10)
    result, listed = days.build(10.5)
    assert result.changed
    assert days.counted == list(range(1, 13))
    assert not days.build(10.6)[0].changed


def test_a_folder_is_sealed_by_a_listing_after_its_time_and_not_by_an_earlier_one(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.put(0)
    days.build(0.5)
    days.put(0, "late but in time")
    result, _ = days.build(30)  # nobody has looked for a month
    assert result.changed
    assert days.counted == [1, 2]
    days.build(30.1)
    assert days.build(30.2)[1] == ["drops"]  # the names of folders alone
    assert days.counted == [1, 2]


def test_what_comes_into_a_sealed_folder_waits_for_a_full_build_which_tells(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(*range(4))
    late = days.put(1, "late").removeprefix("drops/")
    assert not days.build(20.2)[0].changed
    result, listed = days.build(20.3, full=True)
    assert listed == ["drops"]
    assert result.changed
    assert (
        f"1 object came, or changed, in partitions that were sealed, and count now: {late}"
        in result.warnings
    )
    assert days.counted == [1, 2, 3, 4, 5]
    assert not days.build(20.4, full=True)[0].warnings


def test_what_a_clock_that_was_ahead_has_sealed_is_listed_again(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(*range(4))
    days.put(3, "late", written=4.2)
    assert days.build(4.5)[0].changed
    assert days.counted == [1, 2, 3, 4, 5]


def test_a_folder_of_which_nothing_is_known_is_listed_however_old_its_time_is(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(5)
    days.put(2)
    assert days.build(20.2)[0].changed
    assert days.counted == [1, 2]


def test_a_folder_that_comes_late_is_sealed_once_a_listing_finds_it_as_it_was(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(5)
    for name in ("a", "b", "c"):  # as it is filled, object by object
        days.put(2, name)
        assert days.build(20.2)[0].changed
    assert days.counted == [1, 2, 3, 4]
    days.build(20.3)
    assert days.build(20.4)[1] == ["drops"]


def test_a_folder_that_is_filled_late_is_not_sealed_in_a_pause_of_less_than_a_day(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(5)
    days.put(2, "a", written=20.2)
    for instant in (20.21, 20.5, 21.1):
        days.build(instant)
    days.put(2, "b", written=21.15)
    assert days.build(21.16)[0].changed
    assert days.counted == [1, 2, 3]
    days.build(22.2)
    assert days.build(22.3)[1] == ["drops"]
    days.put(2, "c", written=22.4)
    assert not days.build(22.5)[0].changed


def test_a_shorter_time_seals_nothing_that_was_not_listed_since(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    for day in range(10):
        days.put(day)
    days.build(9.5)
    days.build(9.5)
    days.put(7, "in time")
    days.spend = days.project.define(source=DROPS, sealed_after="1h")
    days.build(9.6)
    assert days.counted == list(range(1, 12))


def test_a_hint_has_all_listed_once_more(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(1, 2)
    days.put(1, "late")
    list_anew(days.project.store, "spend")
    assert days.build(20.2)[0].changed
    days.build(20.3)
    assert days.build(20.4)[1] == ["drops"]


def test_lost_states_and_another_source_seal_nothing(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(*range(3))
    days.spend = days.project.define(source="s3://shop/drops/date=*/", sealed_after="2d")
    assert days.build(20.2)[1] == ["drops"]
    days.build(20.3)
    (tmp_path / "store" / "spend" / "_sources.json").unlink()
    days.project = days.project.on(type(days.project.store)(tmp_path / "store"))
    assert not days.build(20.4)[0].changed
    assert days.counted == [1, 2, 3]


def test_the_watcher_lists_no_sealed_folder_either_and_knows_what_a_hint_means(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    for day in range(6):
        days.put(day)
    tracker = days.tracker()
    now = int((START + 20 * DAY).timestamp() * 1_000_000)

    def look(after: int) -> tuple[object, int]:
        bucket.requests.clear()
        with clock.fixed(now + after):
            change = tracker.look(tracker.scan(), now + after, 0.0)
        return change, len(bucket.requests)

    look(0)
    look(1)
    assert look(2) == (None, 1)
    known, late = "date=2026-11-02/a.parquet", days.put(1, "late").removeprefix("drops/")
    assert look(3)[0] is None
    assert not tracker.is_changed_though_sealed(known)
    assert not tracker.is_changed_though_sealed("date=2026-11-20/a.parquet")
    assert tracker.is_changed_though_sealed(late)
    tracker.sealed_until = 0
    assert str(look(4)[0]) == f"{late} came"


def test_a_hint_of_what_came_while_nothing_ran_is_kept_until_all_is_listed(
    bucket, tmp_path, monkeypatch
):
    days = Days(bucket, tmp_path)
    days.seal(1)
    late = days.put(1, "late")
    tracker = days.tracker()
    scan, faults = FileTracker.scan, ["list", "unseal"]

    def faulty(deed: str) -> None:
        if deed in faults:
            faults.remove(deed)
            raise StoreError("no answer")

    def scanned(tracker: FileTracker) -> Listing:
        faulty("list")
        return scan(tracker)

    def unsealed(feature: str, path: str) -> None:
        faulty("unseal")
        assert f"drops/{path}" == late
        list_anew(days.project.store, feature)

    monkeypatch.setattr(FileTracker, "scan", scanned)
    polled = Polls([tracker], unseal=unsealed)  # of a process that has sealed nothing yet
    polled.hint([f"s3://shop/{late}"])
    with clock.fixed(START + 20.2 * DAY):
        for _ in range(3):
            polled._round(polled._polls[0])
    assert faults == []
    assert [str(change) for _, change in polled.taken()][-1].endswith("late.parquet came late")
    assert days.build(20.2)[0].changed
    assert days.counted == [1, 2]


def test_what_a_watcher_sees_in_a_partition_that_a_refresh_has_sealed_is_listed(bucket, tmp_path):
    days = Days(bucket, tmp_path)
    days.seal(1)
    tracker = days.tracker()
    unsealed = []
    polled = Polls([tracker], unseal=lambda *late: unsealed.append(late))
    with clock.fixed(START + 20.2 * DAY):
        polled._round(polled._polls[0])
        unsealed.clear()
        late = days.put(1, "late").removeprefix("drops/")
        polled._round(polled._polls[0])
        assert unsealed == [("spend", late)]
        polled._round(polled._polls[0])
    assert unsealed == [("spend", late)]


def test_a_source_without_times_says_that_nothing_is_sealed(bucket, tmp_path):
    days = Days(bucket, tmp_path, "shop-{:%j}")
    days.put(1)
    result, _ = days.build(20)
    assert any("nothing to seal" in warning for warning in result.warnings)
    check = check_source(days.project.definitions(days.spend), "spend")
    assert any("nothing to seal" in warning for warning in check.warnings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "events", "sealed_after": "2d"}, "sealed_after is of sources in buckets"),
        ({"source": DROPS, "sealed_after": "2 days"}, "spend: sealed_after"),
        ({"source": DROPS, "sealed_after": "0d"}, "spend: sealed_after"),
    ],
)
def test_what_cannot_be_sealed_is_refused(tmp_path, changes, says):
    project = Project(tmp_path)
    with pytest.raises(DefinitionError, match=says):
        project.definitions(project.define(**changes)).source("spend")


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("date=2026-11-01", "2026-11-02T00"),
        ("dt=20261101", "2026-11-02T00"),
        ("2026-11-01", "2026-11-02T00"),
        ("2026/11/01", "2026-11-02T00"),
        ("2026/11/01/05", "2026-11-01T06"),
        ("2026/12", "2027-01-01T00"),
        ("2026", "2027-01-01T00"),
        ("year=2026/month=2/day=28/hour=23", "2026-03-01T00"),
        ("country=de/year=2026/region=x/month=11", "2026-12-01T00"),
        ("date=2026-11-01/10", "2026-11-02T00"),
        ("date=2026-11-01/hour=10", "2026-11-01T11"),
        ("2026-11-01T10", "2026-11-01T11"),
        ("id=2026", None),
        ("event_date=20261101", "2026-11-02T00"),
        ("hour=2026110105", "2026-11-01T06"),
        ("EventDate=20261101", "2026-11-02T00"),
        ("customer_id=20231105", None),
        ("candidate=20240101", None),
        ("sentiment=20240101", None),
        ("update=20240101", None),
        ("customer_id=10231105/date=2026-11-01", "2026-11-02T00"),
        ("10231105", None),
        ("0042", None),
        ("date=2026-13-01", None),
        ("2026/13", None),
        ("country=de", None),
        ("", None),
    ],
)
def test_the_time_of_a_folder(path, end):
    period = period_of(path.split("/"))
    told = period and datetime.fromtimestamp(period.end / 1_000_000, UTC).strftime("%Y-%m-%dT%H")
    assert told == end
