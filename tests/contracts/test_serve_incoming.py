"""Rows that are sent over HTTP: they become drops that a build reads, bad ones are named, and only keys of a source write to it."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from mlforge import Definitions, get_online_features
from mlforge.core import clock, failpoints
from mlforge.core.values import to_us
from mlforge.errors import DefinitionError
from mlforge.online import RedisStore
from mlforge.serve.access.keys_file import keys_in
from mlforge.serve.app import App
from mlforge.serve.incoming import gather
from mlforge.serve.incoming.rows import frame_of
from mlforge.serve.incoming.writing import clear, write_frame
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused
from mlforge.serve.values.read_request import ARROW
from tests.support.contents import as_parquet
from tests.support.projects import Project, at, rows

NDJSON, PARQUET = "application/x-ndjson", "application/vnd.apache.parquet"
EVENTS = "/v1/sources/events"
WRITER, OTHER = ({"authorization": f"Bearer {key}"} for key in ("writer", "other"))
LINE = b'{"user_id": 7, "at": "2026-01-02T00:00:00Z", "amount": 2.5}'


class Sender:
    """Requests to an application, all of them on one event loop."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, *bodies: bytes | None, **options: Any) -> list[httpx.Response]:
        """The answers to bodies that are sent at once; a GET for None."""
        headers = {"content-type": NDJSON, **WRITER, **options.pop("headers", {})}
        path = options.pop("path", EVENTS)

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                calls = [
                    client.request("GET" if b is None else "POST", path, content=b, headers=headers)
                    for b in bodies
                ]
                return list(await asyncio.gather(*calls))

        with clock.fixed(to_us(at(5))):
            return asyncio.run(ask())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (2, 1, 4.0)))
    return project


@pytest.fixture
def definitions(project: Project, online: RedisStore) -> Iterator[Definitions]:
    definitions = project.definitions(project.define(), online_store=online)
    definitions.root = project.root
    yield definitions
    definitions.close()


@pytest.fixture
def send(definitions: Definitions, tmp_path: Path) -> Sender:
    keys = tmp_path / "keys.toml"
    names = ("writer", "other", "reader")
    hashes = {name: sha256(name.encode()).hexdigest() for name in names}
    keys.write_text(
        f'[app]\nsha256 = "{hashes["writer"]}"\nservices = []\nsources = ["events"]\n'
        f'[other]\nsha256 = "{hashes["other"]}"\nsources = ["events"]\n'
        f'[dashboard]\nsha256 = "{hashes["reader"]}"\n'
    )
    return Sender(App(definitions, Limits(rows=5), keys))


def drops(definitions: Definitions) -> list[str]:
    return sorted(path.name for path in (definitions.root / "events").glob("*http-*"))


def test_rows_of_each_form_become_drops_that_are_readable_in_the_end(
    send: Sender, definitions: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [LINE.replace(b"7", b"%d" % user) for user in (5, 6)]
    with monkeypatch.context() as patch:
        patch.setattr(gather, "GATHER_S", 0.5)  # a busy machine takes its time between the two
        together = send(*lines)
    assert [answer.status_code for answer in together] == [202, 202]
    urls = {answer.headers["location"] for answer in together}
    assert len(urls) == 1, "small requests that come at once are one drop"
    assert len(drops(definitions)) == 1
    frame = rows((8, 1, 3.0))
    arrow = io.BytesIO()
    frame.write_ipc_stream(arrow, compat_level=pl.CompatLevel.oldest())
    listed = json.dumps([{"user_id": 9, "at": "2026-01-01", "amount": 1, "shop": "x"}]).encode()
    for body, kind in (
        (arrow.getvalue(), ARROW),
        (as_parquet(frame), PARQUET),
        (listed, "application/json"),
    ):
        [answer] = send(body, headers={"content-type": kind})
        assert answer.status_code == 202, answer.text
        urls.add(answer.headers["location"])
    [url] = [url for url in urls if url == together[0].headers["location"]]
    [before] = send(None, path=url)
    assert before.json()["features"] == {"spend": {"state": "waiting"}}
    assert before.json()["done"] is False
    with clock.fixed(to_us(at(5))):
        definitions.build()
        assert send(None, path=url)[0].json()["features"]["spend"]["state"] == "built"
        definitions.build(online=True)
        for each in urls:
            [after] = send(None, path=f"{each}?wait=30")
            assert after.json()["features"] == {"spend": {"state": "readable", "version": "1.0.0"}}
        values = get_online_features(
            [definitions.features["spend"]],
            [{"user_id": user} for user in (5, 6, 8, 9)],
            definitions.online_store,  # type: ignore[arg-type]
        )
    assert [row["spend__amount__sum__7d"] for row in values] == [2.5, 2.5, 6.0, 1.0]


def test_the_same_request_again_is_the_same_drop(send: Sender, definitions: Definitions) -> None:
    once = {"idempotency-key": "order 17"}
    first, second = (send(LINE, headers=once)[0] for _ in range(2))
    both = send(LINE, LINE, headers={"idempotency-key": "order 18"})
    assert first.json()["url"] == second.json()["url"]
    assert {answer.status_code for answer in (first, second, *both)} == {202}
    assert len(drops(definitions)) == 2
    [answer] = send(LINE, headers={"idempotency-key": "x" * 201})
    assert answer.status_code == 422
    theirs = send(LINE, LINE.replace(b"7", b"8"), headers={**once, **OTHER})
    assert sorted(answer.status_code for answer in theirs) == [202, 409]
    assert len(drops(definitions)) == 3, "a key is its sender's own"


def test_other_rows_under_a_key_that_was_used_are_refused_and_never_swallowed(
    send: Sender, definitions: Definitions
) -> None:
    other = LINE.replace(b"7", b"8")
    answers = send(LINE, other, headers={"idempotency-key": "order 19"})
    assert sorted(answer.status_code for answer in answers) == [202, 409], "also at once"
    [refused] = [answer for answer in answers if answer.status_code == 409]
    assert refused.json()["reason"] == "key_reused"
    taken = 7 if answers[0].status_code == 202 else 8
    [drop] = drops(definitions)
    assert pl.read_parquet(definitions.root / "events" / drop)["user_id"].to_list() == [taken]
    files = [as_parquet(rows((number, 1, 3.0))) for number in range(2)]
    whole = {"idempotency-key": "order 20", "content-type": PARQUET}
    bodies = [files[0], files[0], files[1]]
    statuses = [send(body, headers=whole)[0].status_code for body in bodies]
    assert statuses == [202, 202, 409]


def test_rows_of_two_senders_share_no_drop(send: Sender, definitions: Definitions) -> None:
    async def ask() -> list[str]:
        transport = httpx.ASGITransport(send.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            calls = [
                client.post(
                    EVENTS,
                    content=LINE,
                    headers={"content-type": NDJSON, **sender},
                )
                for sender in (WRITER, OTHER)
            ]
            return [answer.json()["drop"] for answer in await asyncio.gather(*calls)]

    first, other = asyncio.run(ask())
    assert first != other, "a bad row of one would leave out those of the other"
    assert len(drops(definitions)) == 2


def test_a_file_in_quarantine_decides_no_dtypes(send: Sender, definitions: Definitions) -> None:
    body = as_parquet(rows((1, 2, 3.0)).with_columns(amount=pl.lit("much")))
    assert send(body, headers={"content-type": PARQUET})[0].status_code == 202
    with clock.fixed(to_us(at(5))):
        definitions.build()
    assert definitions.store.books("spend").quarantine
    [answer] = send(LINE)
    assert answer.status_code == 202, answer.text


def test_a_column_of_which_rows_say_nothing_is_there_as_files_have_it(
    send: Sender, definitions: Definitions
) -> None:
    """Else the feature's function would ask for a column that is not there, or find it with another dtype."""
    folder = definitions.root / "events"
    [answer] = send(LINE.replace(b', "amount": 2.5', b""))
    assert answer.status_code == 202, (
        "the files all have the column: a row that leaves it out says null"
    )
    lacking = rows((1, 2, 3.0)).drop("amount")
    lacking.write_parquet(folder / "newest.parquet")
    for said in (b'"amount": null', b'"amount": 5'):
        [answer] = send(LINE.replace(b'"amount": 2.5', said))
        assert answer.status_code == 202, answer.text
    assert {pl.read_parquet_schema(folder / drop)["amount"] for drop in drops(definitions)} == {
        pl.Float64
    }
    [refused] = send(b'{"amount": null}')
    assert "row 1: user_id is missing" in refused.text


def test_a_key_that_the_function_makes_is_not_asked_for_and_a_column_of_nulls_decides_no_dtype(
    project: Project, online: RedisStore
) -> None:
    def numbered(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("at", "amount", user_id=pl.col("name").str.len_chars())

    made = rows((1, 0, 1.0)).select("at", "amount", name=pl.lit("a"), note=pl.lit(None))
    project.drop("a", made)
    definitions = project.definitions(project.define(numbered), online_store=online)
    definitions.root = project.root
    body = b'{"at": "2026-01-02", "amount": 1, "name": "ab", "note": "new"}'
    [answer] = Sender(App(definitions, at_loopback=True))(body, headers={"host": "localhost"})
    assert answer.status_code == 202, answer.text
    [drop] = drops(definitions)
    assert pl.read_parquet_schema(project.events / drop)["note"] == pl.String


def test_rows_of_an_interval_that_is_not_over_tell_from_when_they_count(
    project: Project, online: RedisStore
) -> None:
    definitions = project.definitions(project.define(interval="1d"), online_store=online)
    definitions.root = project.root
    send, local = Sender(App(definitions, at_loopback=True)), {"host": "localhost"}
    [answer] = send(b"\n".join([LINE, LINE.replace(b"01-02T00", b"01-06T00")]), headers=local)
    with clock.fixed(to_us(at(5))):
        definitions.build(online=True)
    [arrived] = send(None, path=answer.headers["location"], headers=local)
    state = {"state": "readable", "version": "1.0.0", "counts_from": "2026-01-07T00:00:00.000000Z"}
    assert arrived.json()["features"] == {"spend": state}


def test_rows_for_a_table_arrive_with_the_version_that_was_made_with_them(
    project: Project, online: RedisStore
) -> None:
    def beside(df: pl.LazyFrame, shops: pl.LazyFrame) -> pl.LazyFrame:
        return df.join(shops, on="user_id", how="left").select("user_id", "at", "amount")

    (project.root / "shops").mkdir()
    pl.DataFrame({"user_id": [1], "shop": ["a"]}).write_parquet(project.root / "shops/a.parquet")
    definitions = project.definitions(
        project.define(beside, tables={"shops": "shops"}), online_store=online
    )
    definitions.root = project.root
    send, local = Sender(App(definitions, at_loopback=True)), {"host": "localhost"}
    body = b'{"user_id": 2, "shop": "b"}'
    [answer] = send(body, path="/v1/sources/shops", headers=local)
    with clock.fixed(to_us(at(5))):
        definitions.build(online=True)
    [arrived] = send(None, path=answer.headers["location"], headers=local)
    assert arrived.json()["features"] == {"spend": {"state": "readable", "version": "1.0.0"}}


def test_without_keys_this_machine_alone_sends_rows_to_a_server_at_loopback(
    definitions: Definitions,
) -> None:
    here, anywhere = Sender(App(definitions, at_loopback=True)), Sender(App(definitions))
    local = {"host": "localhost:8750"}
    [taken] = here(LINE, headers=local)
    assert taken.status_code == 202, taken.text
    followed = here(None, path=taken.headers["location"], headers=local)[0].json()
    assert followed["features"] == {"spend": {"state": "waiting"}}
    here.app.end()
    waiting = here(None, path=f"{taken.headers['location']}?wait=60", headers=local)[0].json()
    assert waiting == followed, "a server that is to end keeps nobody waiting"
    own = here(LINE, headers={**local, "origin": "http://localhost:8750"})
    assert own[0].status_code == 202
    [misnamed] = here(LINE, headers={"host": "evil.example"})
    assert (misnamed.status_code, misnamed.json()["reason"]) == (421, "other_host")
    for sender, headers in (
        (anywhere, local),
        (here, {**local, "origin": "http://evil.example"}),
        (here, {**local, "x-forwarded-for": "10.0.0.1"}),
    ):
        [refused] = sender(LINE, headers=headers)
        assert refused.status_code == 403, headers
        assert "no file of keys (--keys), so nobody may send rows" in refused.text
    approved = here(b"", path="/v1/features/spend/approve", headers=local)
    assert approved[0].status_code == 403
    assert len(drops(definitions)) == 2


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (LINE + b'\n{"user_id": "x", "at": "2026-01-02", "amount": 1}', NDJSON, 422, "row 2: user_id is 'x', not Int64"),
        (b'{"user_id": 1, "at": "soon", "amount": 1}', NDJSON, 422, "row 1: at is 'soon', not an instant in ISO 8601"),
        (b'{"user_id": 1, "amount": 1}', NDJSON, 422, "row 1: at is missing"),
        (b'{"user_id": true, "at": "2026-01-02", "amount": 1}', NDJSON, 422, "row 1: user_id is True"),
        (b'{"user_id": 99999999999999999999, "at": "2026-01-02"}', NDJSON, 422, "row 1: user_id is"),
        (b'{"user_id": 1, "at": "2026-01-02", "amount": NaN}', NDJSON, 400, "line 1 is not JSON"),
        (b'[{"user_id": 1, "at": "2026-01-02", "at": null}]', "application/json", 400, "an object says 'at' twice"),
        (b'{"user_id": 1, "at": "2026-01-02", "amount": 1, "tag": [1, "x"]}', NDJSON, 422, "tag"),
        (LINE + b'\n[1]', NDJSON, 422, "line 2 is [1]"),
        (b'\n\n', NDJSON, 422, "no row"),
        (b'[]', "application/json", 422, "no row"),
        (b'[1]', "application/json", 422, "row 1 is 1"),
        (b'{}', "application/json", 422, "missing"),
        (b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b"\n".join([LINE] * 6), NDJSON, 422, "a request has at most 5 rows of JSON"),
        (b"no arrow", ARROW, 400, "no stream of Arrow"),
        (b"PAR1 no PAR1", PARQUET, 400, "no whole parquet file"),
        (b"PARX" + as_parquet(rows((1, 0, 1.0)))[4:], PARQUET, 400, "no whole parquet file"),
        (LINE, "text/plain", 415, NDJSON),
        (LINE, "", 415, NDJSON),
    ],
)  # fmt: skip
def test_rows_that_are_bad_are_named_and_nothing_is_written(
    send: Sender, definitions: Definitions, body: bytes, kind: str, status: int, said: str
) -> None:
    [answer] = send(body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"], answer.text
    assert drops(definitions) == []


def test_arrow_with_rows_that_lack_what_a_feature_needs_is_refused(send: Sender) -> None:
    for frame, said in (
        (rows((1, 0, 1.0), (None, 1, 1.0)), "row 2: user_id is missing"),
        (rows((1, 0, 1.0)).drop("at"), "there is no column at"),
    ):
        stream = io.BytesIO()
        frame.write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())
        [answer] = send(stream.getvalue(), headers={"content-type": ARROW})
        assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_only_a_key_that_names_a_source_writes_to_it(
    send: Sender, definitions: Definitions, tmp_path: Path
) -> None:
    reader = {"authorization": "Bearer reader"}
    assert send(LINE, headers=reader)[0].json()["reason"] == "not_allowed"
    assert send(LINE, path="/v1/sources/store")[0].status_code == 403
    assert send(None, path="/v1/drops/other/http-0123456789ab")[0].status_code == 403
    assert send(None, path="/v1/sources")[0].status_code == 403, "this key reads nothing"
    [listed] = send(None, path="/v1/sources", headers=reader)
    assert listed.json() == {"sources": [{"name": "events", "features": ["spend"]}]}
    assert Sender(App(definitions))(LINE)[0].status_code == 403
    for drop in ("http-0123456789ab?wait=60", "a", "..%2Fdefinitions"):
        [answer] = send(None, path=f"/v1/drops/events/{drop}")
        assert answer.status_code in (403, 404), answer.text
    assert send(None, path="/v1/drops/events/http-0123456789ab?wait=1e9")[0].status_code == 422
    assert drops(definitions) == []
    bad = tmp_path / "bad.toml"
    bad.write_text(f'[app]\nsha256 = "{sha256(b"x").hexdigest()}"\nsources = "events"\n')
    with pytest.raises(DefinitionError, match="sources is 'events'; write a list of names"):
        keys_in(bad, {})


def test_a_disk_that_takes_no_file_is_a_503_and_leaves_nothing(
    send: Sender, definitions: Definitions
) -> None:
    folder = definitions.root / "events"
    assert send(LINE)[0].status_code == 202
    folder.rename(definitions.root / "elsewhere")
    [gone] = send(LINE)
    assert (gone.status_code, gone.json()["reason"]) == (503, "source_unavailable")
    (definitions.root / "elsewhere").rename(folder)

    def full() -> None:
        raise OSError(28, "No space left on device")

    failpoints.arm("drop.written", full)
    try:
        [refused] = send(LINE)
    finally:
        failpoints.disarm()
    assert (refused.status_code, "No space left" in refused.text) == (503, True)
    assert len(list(folder.iterdir())) == 2, "the first file, and the drop of before"


def test_a_folder_that_is_not_flushed_loses_no_rows_and_doubles_none(
    send: Sender, definitions: Definitions
) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    once = {"idempotency-key": "order 21"}
    body = as_parquet(rows((8, 1, 3.0)))
    whole = {"content-type": PARQUET}
    failpoints.arm("drop.renamed", fail)
    try:
        refused = [
            *send(LINE),
            *send(body, headers=whole),
            *send(LINE, headers=once),
        ]
    finally:
        failpoints.disarm()
    assert {answer.status_code for answer in refused} == {503}
    assert all("Input/output error" in answer.text for answer in refused)
    left = drops(definitions)
    assert len(left) == 1, "rows without a key come again under another name"
    [again] = send(LINE, headers=once)
    assert (again.status_code, f"{again.json()['drop']}.parquet") == (202, left[0])
    assert drops(definitions) == left
    assert not list((definitions.root / "events").glob(".http-*"))


def test_bodies_in_hand_have_a_bound_together_and_each_is_let_go(
    definitions: Definitions,
) -> None:
    app = App(definitions, Limits(uploads_bytes=len(LINE) + 10), at_loopback=True)
    send, local = Sender(app), {"host": "localhost"}
    answers = send(LINE, LINE, LINE, headers=local)
    assert sorted(answer.status_code for answer in answers) == [202, 503, 503]
    refused = max(answers, key=lambda answer: answer.status_code)
    assert refused.json()["reason"] == "too_many_uploads"
    assert refused.headers["retry-after"] == "1"
    assert send(b"[1]", headers={**local, "content-type": "application/json"})[0].status_code == 422
    assert send(LINE, headers=local)[0].status_code == 202, "answers and refusals leave nothing"


class Killed(BaseException):
    """The end of a process, which nothing in it handles."""


def test_a_server_that_is_killed_before_it_answers_leaves_no_file_under_a_name_that_is_read(
    definitions: Definitions,
) -> None:
    def kill() -> None:
        raise Killed

    failpoints.arm("drop.written", kill)
    try:
        with pytest.raises(Killed):
            write_frame(
                definitions.root / "events" / "http-0123456789ab.parquet", rows((1, 0, 1.0))
            )
    finally:
        failpoints.disarm()
    folder = definitions.root / "events"
    [left] = [path for path in folder.iterdir() if path.name.startswith(".http-")]
    assert definitions.source("spend").scan().stats.keys() == {"a.parquet"}
    clear(folder)
    assert left.exists(), "it may be another server's, at work"
    old = left.stat().st_mtime - timedelta(hours=2).total_seconds()
    os.utime(left, (old, old))
    clear(folder)
    assert not left.exists()


def test_values_are_taken_by_the_dtypes_of_the_files() -> None:
    dtypes = {
        "day": pl.Date(), "price": pl.Decimal(10, 2), "at": pl.Datetime("ms"), "n": pl.Int8(),
        "tags": pl.List(pl.String), "f": pl.Float32(), "nothing": pl.Duration("us"),
        "who": pl.Struct({"id": pl.Int64}), "exact": pl.Decimal(38, 2),
    }  # fmt: skip
    row = {
        "exact": "-123456789012345678901234567890123456.78", "nothing": None,
        "day": "2026-01-02", "price": "1.50", "at": "2026-01-02T01:00:00+01:00", "n": 3,
        "tags": ["x", None], "f": 1, "who": {"id": 1}, "new": "text", "void": None,
    }  # fmt: skip
    frame = frame_of([row, {"n": None}], dtypes, [])
    assert dict(frame.schema) == {**dtypes, "new": pl.String()}
    assert str(frame["exact"][0]) == row["exact"]
    assert frame["at"].dt.hour()[0] == 0
    finer = frame_of([row, {"at": "2026-01-02T00:00:00.123456Z"}], dtypes, [])["at"]
    assert finer.dt.microsecond().to_list() == [0, 123456], (
        "milliseconds would put it before its time"
    )
    for name, value in (
        ("price", "1.505"),
        ("n", 300),
        ("day", 5),
        ("f", "x"),
        ("tags", "x"),
        ("who", {"b": 1}),
        ("who", 5),
    ):
        with pytest.raises(Refused, match=f"row 2: {name} is"):
            frame_of([row, {name: value}], dtypes, [])
    with pytest.raises(Refused, match="long is Duration"):
        frame_of([{"long": 5}], {"long": pl.Duration("us")}, [])
