"""The page on a real store and a real server: what it tells, who may read and do what, and that no data becomes markup."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from redis import Redis

from mlforge import Definitions, Service
from mlforge.errors import StoreUnavailable
from mlforge.online import RedisStore
from mlforge.registry.live import live_of
from mlforge.serve.app import App
from tests.support.projects import Project, rows
from worker.project import scope_of
from worker.state.event_log import EventLog

BROWSER = {"accept": "text/html,application/xhtml+xml"}
HOSTILE = """"'><x-bad onclick=alert(1)>{{ 7*7 }}&lt;</script><script>alert(2)</script>"""
HERE = "http://here"
KEYS = """
[anna]
sha256 = "{}"
operates = true

[reader]
sha256 = "{}"

[checkout-app]
sha256 = "{}"
services = ["checkout"]
"""


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


class Browser:
    """Requests to an application as a browser makes them: with its cookies, and the origin of its forms."""

    def __init__(self, app: App) -> None:
        self.app, self.cookies = app, httpx.Cookies()

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url=HERE, cookies=self.cookies
            ) as client:
                answer = await client.request(method, path, **options)
                self.cookies = client.cookies
                return answer

        own = {**BROWSER, **({"origin": HERE} if method == "POST" else {})}
        options["headers"] = own | options.get("headers", {})
        return asyncio.run(ask())

    def page(self, path: str, status: int = 200) -> Page:
        answer = self("GET", path)
        assert (answer.status_code, answer.headers["content-type"]) == (
            status,
            "text/html; charset=utf-8",
        )
        return Page(answer.text)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("first", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)))
    project.drop("second", rows((1, 4, 4.0)))
    return project


@pytest.fixture
def definitions(project: Project, online: RedisStore) -> Iterator[Definitions]:
    spend = project.define(description="What users spend.", owner="risk", tags=["money"])
    checkout = Service("checkout", features=[spend["amount__sum__7d"]], description="A checkout.")
    defs = project.definitions(spend, online_store=online, services=[checkout])
    defs.build(online=True)
    yield defs
    defs.close()


@pytest.fixture
def log(definitions: Definitions, redis_url: str) -> Iterator[EventLog]:
    with Redis.from_url(redis_url) as client:
        yield EventLog(client, scope_of(definitions))


def browser(definitions: Definitions, redis_url: str | None = None, **options: Any) -> Browser:
    return Browser(App(definitions, live=live_of(definitions, redis_url), **options))


def keys_file(folder: Path) -> Path:
    hashes = [sha256(key).hexdigest() for key in (b"deeds", b"looks", b"asks")]
    file = folder / "keys.toml"
    file.write_text(KEYS.format(*hashes))
    return file


def test_the_first_page_tells_what_happens_and_what_there_is(
    definitions: Definitions, redis_url: str, log: EventLog
) -> None:
    log.write("refreshed", "spend", **REFRESHED)
    ask = browser(definitions, redis_url)
    page = ask.page("/")
    assert "1 feature and 1 service" in page.text
    assert "What users spend." in page.text
    assert "second.parquet came: 2 rows recomputed, 1 entity pushed." in page.text
    assert "Readable 87 ms after the file was closed: seen 7 ms, computed 80 ms." in page.text
    found = ask.page("/catalogue?q=amount__sum")
    assert re.search("columns [a-z0-9_, ]*amount__sum__2d", found.text)
    assert "Nothing holds “nix”" in ask.page("/?q=nix").text
    [seen] = [a["hx-get"] for _, a in page.tags if a.get("id") == "now"]
    assert ask("GET", str(seen)).status_code == 204
    log.write("held", "spend", reason="all files went")
    assert "All files went." in ask.page(str(seen)).text
    status = ask("GET", "/v1/status").json()
    assert [feature["feature"] for feature in status["features"]] == ["spend"]


SCRIPTS: list[dict[str, str | None]] = [
    {"src": f"/assets/{name}", "defer": None} for name in ("htmx.min.js", "follow.js")
]
REFRESHED: dict[str, Any] = {
    "version": "1.0.1",
    "bump": "patch",
    "reason": "data_refresh",
    "trigger": "second.parquet came",
    "changed": True,
    "rows_recomputed": 2,
    "entities_pushed": 1,
    "entities_deleted": 0,
    "freshness_ms": 87.0,
    "steps": {"event": 7.0, "build": 80.0},
    "quarantined": {},
}


def test_a_feature_shows_its_versions_columns_and_the_files_behind_a_number(
    definitions: Definitions, project: Project
) -> None:
    project.drop("third", rows((2, 4, 40.0), (None, 4, 1.0), (2, 4, float("nan"))))
    definitions.refresh("spend")
    ask = browser(definitions)
    page = ask.page("/features/spend?key.user_id=1&column=amount__sum__7d")
    assert "The 3 events behind amount__sum__7d, by file" in page.text
    assert "first.parquet 2 second.parquet 1" in page.text
    assert "data refresh" in page.text
    assert "Rows that do not count: 1 without a key. Taken as null: 1 value, NaN or" in page.text
    assert "def identity(df: pl.DataFrame)" in page.text
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert "/services/checkout" in links
    columns = ask.page("/features/spend/columns?against=1.0.0")
    assert "sum of amount over 7d" in columns.text
    assert any(tag == "path" for tag, _ in columns.tags)
    assert "unknown" in columns.text  # the verdict on so few rows
    why = ask.page("/features/spend/why?key.user_id=nobody")
    assert "nobody" in why.text
    assert "No version '9.9.9'" in ask.page("/features/spend?against=9.9.9", 404).text


def test_a_service_shows_columns_locks_and_what_a_change_reaches(
    definitions: Definitions, project: Project, online: RedisStore
) -> None:
    page = browser(definitions).page("/services/checkout")
    assert "amount__sum__7d of spend" in page.text
    assert "mlforge lock checkout --model" in page.text
    assert "source events 1 of 1" in page.text
    assert f"curl '{HERE}/v1/services/checkout?user_id=…'" in page.text
    assert "Version 1.0.0" in page.text
    spend = definitions.feature("spend")
    other = Service("checkout", features=[spend["amount__count__7d"]])
    edited = project.definitions(spend, online_store=online, services=[other])
    edited.build()
    text = browser(edited).page("/services/checkout").text
    assert "Version 2.0.0 ; kept besides: checkout@1.0.0" in text


def test_the_call_that_a_service_shows_names_the_path_that_the_server_is_mounted_at_and_a_key(
    definitions: Definitions, tmp_path: Path
) -> None:
    app = App(definitions, keys=keys_file(tmp_path))

    async def ask() -> str:
        transport = httpx.ASGITransport(app, root_path="/shop")
        async with httpx.AsyncClient(transport=transport, base_url=f"{HERE}/shop/") as client:
            asked = await client.get("services/checkout", headers={"authorization": "Bearer looks"})
            return Page(asked.text).text

    call = f"curl -H 'Authorization: Bearer KEY' '{HERE}/shop/v1/services/checkout?user_id=…'"
    assert call in asyncio.run(ask())


def test_below_a_path_of_a_proxy_every_link_form_and_cookie_stays_there(
    definitions: Definitions, tmp_path: Path
) -> None:
    app = App(definitions, keys=keys_file(tmp_path))

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, root_path="/shop")
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            headers = {**BROWSER, "origin": HERE}
            entered = await client.post("/shop/key", data={"key": "deeds"}, headers=headers)
            paths = (
                "/",
                "/key",
                "/features/spend?against=&user_id=1",
                "/services/checkout",
                "/nix",
            )
            return [entered, *[await client.get(f"/shop{path}", headers=BROWSER) for path in paths]]

    entered, *pages = asyncio.run(asked())
    assert entered.headers["location"] == "/shop/"
    assert "; Path=/shop/;" in entered.headers["set-cookie"]
    assert [page.status_code for page in pages] == [200, 200, 200, 200, 404]
    ways = ("href", "action", "src", "hx-get", "hx-post")
    for page in pages:
        leads = [a[way] or "" for _, a in Page(page.text).tags for way in ways if way in a]
        assert len(leads) > 5
        assert [to for to in leads if not to.startswith(("/shop/", "#"))] == []


def test_a_service_shows_defaults_and_what_reaches_the_columns_that_it_derives(
    project: Project, online: RedisStore
) -> None:
    own = {"amount__count__7d": 41, "amount__sum__7d": 1.5}
    spend = project.define(name="spend", defaults=own)
    checkout = Service(
        "checkout",
        features=[spend],
        request={"price": pl.Float64},
        derive={
            "share": "price / spend__amount__sum__7d",
            "is_large": "share > 1",
            "twice": "2 * price",
        },
        defaults={"amount__sum__7d": 1234.5},
    )
    defs = project.definitions(spend, online_store=online, services=[checkout])
    defs.build(online=True)
    try:
        text = browser(defs).page("/services/checkout").text
    finally:
        defs.close()
    assert "amount__sum__7d of spend 1,234.50" in text
    assert "amount__count__7d of spend 41" in text
    reach = re.search(r"feature spend (\d+) of (\d+)", text)
    assert reach
    assert int(reach[1]) == int(reach[2]) - 1, "what is derived of reached columns is reached, too"


def test_an_unknown_path_is_a_page_for_a_browser_and_a_problem_for_a_program(
    definitions: Definitions,
) -> None:
    ask = browser(definitions)
    assert "No feature 'spent'; did you mean 'spend'?" in ask.page("/features/spent", 404).text
    assert "There is no /nix" in ask.page("/nix", 404).text
    answer = ask("GET", "/features/spent", headers={"accept": "*/*"})
    assert answer.json()["reason"] == "unknown_feature"
    assert ask("GET", "/v1/features/spent").headers["content-type"] == "application/problem+json"
    assert ask("GET", "/assets/../routes.py").status_code == 404
    assert ask("GET", "/assets/..%2Froutes.py").status_code == 404


def test_no_data_becomes_markup(tmp_path: Path, online: RedisStore, redis_url: str) -> None:
    project = Project(tmp_path)
    frame = rows((1, 0, 1.0)).with_columns(user_id=pl.lit(HOSTILE), amount=pl.lit(HOSTILE))
    name = HOSTILE.replace("/", "")
    project.drop(name, frame)
    (project.events / f"torn {name}.parquet").write_text("no parquet")

    def hostile(df: pl.DataFrame) -> pl.DataFrame:
        """ "'><x-bad onclick=alert(1)></script><script>alert(2)</script>"""
        return df

    spend = project.define(
        hostile, description=HOSTILE, owner=HOSTILE, tags=[HOSTILE], metrics=[],
        columns={"amount": HOSTILE},
    )  # fmt: skip
    service = Service("checkout", features=[spend], description=HOSTILE, owner=HOSTILE)
    defs = project.definitions(spend, online_store=online, services=[service], name=HOSTILE)
    defs.build(online=True)
    try:
        with Redis.from_url(redis_url) as client:
            log = EventLog(client, scope_of(defs))
            log.write("failed", HOSTILE, error=HOSTILE)
            log.write(HOSTILE, HOSTILE)
            told = REFRESHED | {
                "trigger": HOSTILE,
                "version": HOSTILE,
                "quarantined": {HOSTILE: HOSTILE},
            }
            log.write("refreshed", HOSTILE, **told)
        ask = browser(defs, redis_url)
        asked = httpx.QueryParams({"key.user_id": HOSTILE, "at": "", "q": HOSTILE})
        for path, status in {
            f"/?{asked}": 200,
            f"/features/spend?{asked}": 200,
            f"/features/spend/why?{asked}": 200,
            "/features/spend/columns": 200,
            "/services/checkout": 200,
            f"/features/{httpx.QueryParams({'': HOSTILE})}": 404,
            f"/key?back={httpx.QueryParams({'': HOSTILE})}": 200,
        }.items():
            _is_inert(ask.page(path, status), path)
        assert "x-bad" in ask.page(f"/features/spend/why?{asked}").text
    finally:
        defs.close()


def _is_inert(page: Page, path: str) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("x-bad", "img", "iframe", "style", "base"), (path, tag)
        if tag == "script":
            assert attributes in SCRIPTS, path
        bad = [n for n in attributes if n.startswith(("on", "hx-on")) or n in ("style", "srcdoc")]
        assert not bad, (path, tag, attributes)
        for name in ("href", "src", "action", "hx-get", "hx-post"):
            assert str(attributes.get(name, "/")).startswith(("/", "#")), (path, attributes)
    assert not re.search(r"x-bad onclick=alert\(1\)>49", page.text), path


def test_pages_load_nothing_from_elsewhere_and_run_no_script_of_their_own(
    definitions: Definitions,
) -> None:
    ask = browser(definitions)
    for path in ("/", "/features/spend", "/services/checkout", "/nix", "/assets/page.css"):
        headers = ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    sheet = ask("GET", "/assets/page.css").text
    assert "url(" not in sheet
    assert "@import" not in sheet


def test_a_key_is_entered_once_and_its_scopes_hold_on_pages(
    definitions: Definitions, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path)
    ask = browser(definitions, keys=keys)
    assert "A key, please" in ask.page("/", 401).text
    assert ask("GET", "/news").status_code == 401
    assert ask("GET", "/assets/page.css").status_code == 200
    assert ask("POST", "/key", data={"key": "guessed"}).status_code == 401
    entered = ask("POST", "/key", data={"key": "looks", "back": "/features/spend"})
    cookie = entered.headers["set-cookie"]
    assert (entered.status_code, entered.headers["location"]) == (303, "/features/spend")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "looks" not in cookie
    assert "Secure" not in cookie
    over_tls, theirs = "https://here/key", {"origin": "https://here"}
    kept = browser(definitions, keys=keys)("POST", over_tls, data={"key": "looks"}, headers=theirs)
    assert kept.headers["set-cookie"].endswith("; Secure")
    assert "reader, reads" in ask.page("/").text
    assert ask("GET", "/news").status_code == 404  # there are no workers to follow
    assert ask("GET", "/v1/catalog").status_code == 401  # the cookie is for pages alone
    assert ask("POST", "/key", data={"forget": "yes"}).status_code == 303
    ask.page("/", 401)
    ask("POST", "/key", data={"key": "asks"})
    ask.page("/services/checkout")
    assert "does not allow /features/spend" in ask.page("/features/spend", 403).text
    for elsewhere in (
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "//[",
        "javascript:x",
    ):
        answer = ask("POST", "/key", data={"key": "looks", "back": elsewhere})
        assert answer.headers["location"] == "/", elsewhere
    for origin in ("http://[", "null", "http://evil.example"):
        refused = ask("POST", "/key", data={"key": "looks"}, headers={"origin": origin})
        assert (refused.status_code, "other origin" in refused.text) == (403, True), origin


def test_a_hold_is_approved_by_a_key_that_operates_and_by_no_other(
    definitions: Definitions, project: Project, tmp_path: Path, redis_url: str
) -> None:
    project.drop("third", rows((2, 4, 40.0)))
    definitions.refresh("spend")
    definitions.rollback("spend")
    assert definitions.store.books("spend").hold
    approve = "/features/spend/approve"
    open_to_all = browser(definitions, redis_url)
    assert "mlforge approve spend" in open_to_all.page("/").text
    assert open_to_all("POST", approve).status_code == 403
    ask = browser(definitions, redis_url, keys=keys_file(tmp_path))
    ask("POST", "/key", data={"key": "looks"})
    assert "may only read" in ask("POST", approve).text
    ask("POST", "/key", data={"key": "deeds"})
    seen = definitions.store.books("spend").hold or ""
    assert seen in {a.get("value") for _, a in ask.page("/").tags if a.get("name") == "hold"}
    assert "for another reason by now" in ask("POST", approve, data={"hold": "lost rows"}).text
    for origin in ("http://evil.example", "null", ""):
        refused = ask("POST", approve, headers={"origin": origin})
        assert refused.status_code == 403, origin
    assert definitions.store.books("spend").hold
    page = ask.page("/")
    assert "Refreshes it from its source" in page.text
    assert approve in {a.get("hx-post") for _, a in page.tags}
    assert "hold&#39; twice" in ask("POST", approve, data={"hold": ["a", seen]}).text
    said = ask("POST", approve, data={"hold": seen}, headers={"hx-request": "true"})
    assert "spend:" in said.text
    assert "written online" in said.text
    assert definitions.store.books("spend").hold is None
    assert "there is nothing to approve" in ask("POST", approve).text


def test_deeds_are_in_the_api_too(
    definitions: Definitions, project: Project, tmp_path: Path, redis_url: str
) -> None:
    project.drop("third", rows((2, 4, 40.0)))
    definitions.refresh("spend")
    ask = browser(definitions, redis_url, keys=keys_file(tmp_path))
    deeds = {"authorization": "Bearer deeds"}
    spend = "/v1/features/spend"
    refused = ask("POST", f"{spend}/rollback", headers={"authorization": "Bearer looks"})
    assert (refused.status_code, refused.json()["reason"]) == (403, "not_allowed")
    answer = ask("POST", f"{spend}/rollback?from=1.0.1", headers=deeds).json()
    assert answer == {"feature": "spend", "from": "1.0.1", "version": "1.0.0", "online": True}
    for twice in ("from=1.0.1", "version=1.0.0"):
        again = ask("POST", f"{spend}/rollback?{twice}", headers=deeds)
        assert (again.status_code, again.json()["reason"]) == (409, "version_conflict")
    assert str(definitions.store.read_metadata("spend").version) == "1.0.0"
    assert ask("POST", f"{spend}/rollback?version=one", headers=deeds).status_code == 422
    misspelt = ask("POST", f"{spend}/rollback?verison=1.0.0", headers=deeds)
    assert (misspelt.status_code, misspelt.json()["reason"]) == (422, "unknown_field")
    others = f"mlforge-work:{scope_of(definitions)}:definitions"
    with Redis.from_url(redis_url) as client:
        client.set(others, "others 1")
        elsewhere = ask("POST", f"{spend}/approve", headers=deeds)
        assert (elsewhere.status_code, elsewhere.json()["reason"]) == (409, "other_definitions")
        client.delete(others)
    assert ask("POST", f"{spend}/approve", headers=deeds).json()["changed"]
    ask("POST", "/key", data={"key": "looks"})
    page = ask.page("/").text
    assert "1.0.0 is served in place of 1.0.1" in page
    assert "1.0.2 was published." in page
    assert ask("POST", f"{spend}/approve", headers=deeds).json()["reason"] == "not_held"
    nothing = ask("POST", f"{spend}/retry?path=nix.parquet", headers=deeds)
    assert (nothing.status_code, nothing.json()["reason"]) == (409, "not_in_quarantine")
    assert ask("POST", f"{spend}/retry", headers=deeds).json() == {"feature": "spend", "path": None}
    assert ask("POST", "/v1/features/nix/retry", headers=deeds).status_code == 404


@pytest.mark.slow
def test_the_first_page_of_300_features_costs_little_more_a_feature_than_one_of_three(
    project: Project, online: RedisStore, redis_url: str
) -> None:
    spent: dict[int, float] = {}
    sizes: dict[int, int] = {}
    for count in (3, 300):
        features = [project.define(name=f"spend_{number}") for number in range(count)]
        defs = project.definitions(*features, online_store=online, name=f"shop{count}")
        defs.build(online=True)
        ask = browser(defs, redis_url)
        ask("GET", "/key")  # templates are read once
        began = time.process_time()
        answer = ask("GET", "/")
        spent[count] = time.process_time() - began
        sizes[count] = len(answer.content)
        assert answer.text.count("up to date") == count
        defs.close()
    assert (sizes[300] - sizes[3]) / 297 < 1_000
    assert spent[300] < 60 * spent[3], spent


def test_empty_states_say_what_to_do(tmp_path: Path, online: RedisStore, redis_url: str) -> None:
    project = Project(tmp_path)
    defs = project.definitions(online_store=online)
    try:
        page = browser(defs, redis_url).page("/features/spend")
        assert str(project.events) in page.text
        home = browser(defs, redis_url).page("/").text
        assert "No feature has a version yet. Drop parquet files into this folder" in home
        assert str(project.events) in home
        assert "No feature has a version yet" not in browser(defs).page("/?q=spend").text
        assert "mlforge up" in browser(defs).page("/").text
        away = browser(defs, "redis://127.0.0.1:1/0").page("/")
        assert "cannot be read: no Redis answers" in away.text
    finally:
        defs.close()


def test_while_the_store_cannot_be_read_the_page_shows_the_rest_and_says_why(
    definitions: Definitions, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "s3://shop: cannot read it: there is no such bucket, or it is gone: make it"

    def refuse(*arguments: object) -> None:
        raise StoreUnavailable(why)

    for reading in ("pointer", "books", "manifest", "audit", "renames", "features", "latest"):
        monkeypatch.setattr(type(definitions.store), reading, refuse)
    asked = browser(definitions, redis_url)
    for path in ("/", "/catalogue"):
        home = asked.page(path).text
        assert "The store cannot be read" in home
        assert why in home
        assert "spend What users spend. unreadable 1.0.0 2" in home
        assert "checkout A checkout. answers" in home
    assert why in asked.page("/now").text
    assert "checkout" not in asked.page("/catalogue?q=what users").text
    feature, service = asked.page("/features/spend").text, asked.page("/services/checkout").text
    assert why in feature
    assert "Online 1.0.0 , 2 entities" in feature
    assert why in service
    assert asked.page("/features/none", 503).text.count(why) == 1
    assert "spend What users spend." in browser(definitions).page("/").text, "without workers, too"
