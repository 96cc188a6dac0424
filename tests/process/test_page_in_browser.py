"""The page in a real browser beside a running `mlforge up`: a drop shows at once, a hold is approved, a number is explained.

Needs a Chromium, at CHROMIUM or on the PATH, and Playwright with axe-core, which the extra `dev` brings.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.workers import eventually

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on this machine"),
]
PATIENCE_MS = 60_000
START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "open the door"
DEFINITIONS = '''
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


@feature(
    keys=["user_id"],
    source="purchases",
    timestamp="at",
    metrics=[Rolling("7d", {"amount": ["sum", "count"]})],
    tags=["money"],
)
def spend(df):
    """What a customer spends in a week."""
    return df


@feature(keys=["user_id"], source="visits", timestamp="at")
def visits(df):
    """When a customer was last here."""
    return df


defs = Definitions(
    name="shop",
    store=LocalStore("store"),
    features=[spend, visits],
    services=[Service("checkout", features=[spend])],
)
'''


def drop(folder: Path, name: str, amounts: list[float], day: float) -> None:
    """Put a file into the source in one step: a purchase of each user, after an early one that warms windows up."""
    frame = pl.DataFrame(
        {
            "user_id": [-1, *range(len(amounts))],
            "at": [START, *(START + timedelta(days=day, seconds=n) for n in range(len(amounts)))],
            "amount": [1.0, *amounts],
        }
    )
    part = folder / "purchases" / f".{name}.part"
    part.parent.mkdir(exist_ok=True)
    frame.write_parquet(part)
    part.rename(folder / "purchases" / f"{name}.parquet")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a running project that has a first version, and the address of its page."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "visits").mkdir()
    hashed = sha256(KEY.encode()).hexdigest()
    (folder / "keys.toml").write_text(f'[anna]\nsha256 = "{hashed}"\noperates = true\n')
    drop(folder, "first", [float(n % 50) for n in range(400)], day=10)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFORGE_", "REDIS_"))}
    environment["MLFORGE_KEYS"] = str(folder / "keys.toml")
    log = folder / "terminal.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlforge", "up", "--workers", "1", "--port", "0"],
            cwd=folder, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        eventually(lambda: re.search(r"spend +1\.0\.0", log.read_text()))
        url = eventually(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()))[0]
        yield folder, url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=alone)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, up: tuple[Path, str]) -> Iterator[Callable[..., Any]]:
    """Opens a window with a key entered; at its end nothing was said on its console, and nothing was asked of another host."""
    contexts, complaints = [], []

    def opened(width: int = 1440, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=up[1]
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: asked.url.startswith(up[1]) or complaints.append(asked.url)
        )
        page.goto("/key")
        page.fill("#key", KEY)
        page.click("form.key button")
        page.wait_for_url(f"{up[1]}/")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def test_a_drop_shows_within_seconds_and_its_number_leads_to_its_file(
    visit: Callable[..., Any], up: tuple[Path, str]
) -> None:
    page = visit()
    line = page.locator(".line", has_text="second.parquet came").first
    drop(up[0], "second", [1000.0 + n for n in range(300)], day=11)
    line.wait_for()
    assert "Readable" in line.inner_text()
    page.fill("#q", "amount__count")
    page.locator(".where", has_text="column amount__count__7d").wait_for()
    assert page.locator("#found tr", has_text="visits").count() == 0
    page.locator("#found a", has_text="spend").first.click()
    page.locator("svg.bars").first.wait_for()
    page.select_option("select[name=against]", "1.0.0")
    page.locator("tr", has_text="amount__sum__7d").locator(".state", has_text="drifted").wait_for()
    page.fill("input[name='key.user_id']", "7")
    page.click("text=Explain")
    page.locator("#why a", has_text="amount__sum__7d").click()
    page.locator("#behind", has_text="behind amount__sum__7d").wait_for()
    assert page.locator(".files .file").all_inner_texts() == ["first.parquet", "second.parquet"]
    assert "1,014" in page.locator("#why tr.here").inner_text()


def test_the_page_follows_a_stream_and_asks_again_and_again_only_without_one(
    visit: Callable[..., Any], browser: Any, up: tuple[Path, str]
) -> None:
    folder, url = up
    page, asked = visit(), []
    page.on("request", lambda request: asked.append(request.url.removeprefix(url)))
    with page.expect_response(lambda answer: "/news?after=" in answer.url) as opened:
        page.reload()
    assert opened.value.headers["content-type"].startswith("text/event-stream")
    with page.expect_response(lambda answer: "/now?seen=" in answer.url and answer.status == 200):
        drop(folder, "streamed", [3.0] * 5, day=12)
    page.locator(".line", has_text="streamed.parquet came").first.wait_for()
    context = browser.new_context(base_url=url)
    context.add_cookies(page.context.cookies())
    without = context.new_page()
    without.route("**/news*", lambda route: route.fulfill(status=503))
    polled: list[str] = []
    without.on("request", lambda request: polled.append(request.url.removeprefix(url)))
    asked.clear()
    without.goto("/")
    eventually(lambda: without.evaluate("1") and sum("/now?" in path for path in polled) > 6)
    assert sum("/now?" in path for path in asked) < sum("/now?" in path for path in polled) / 2
    context.close()


def test_a_person_rolls_back_and_approves_with_the_keyboard(
    visit: Callable[..., Any], up: tuple[Path, str]
) -> None:
    folder, _ = up
    page = visit()
    drop(folder, "third", [5.0] * 10, day=12)
    page.locator(".line", has_text="third.parquet came").first.wait_for()
    page.goto("/features/spend")
    older = page.locator(".versions tr", has_text="1.0.0")
    older.locator("summary").focus()
    page.keyboard.press("Enter")
    older.locator("button", has_text="Roll back to 1.0.0").press("Enter")
    page.locator("#said .good", has_text="1.0.0 is served").wait_for()
    page.goto("/")
    need = page.locator(".needs li", has_text="is held")
    need.wait_for()
    assert "Refreshes it from its source" in need.inner_text()
    need.locator("button").focus()
    page.keyboard.press("Enter")
    page.locator("#said .good", has_text="written online").wait_for()
    need.wait_for(state="detached")
    page.locator(".summary", has_text="Nothing needs you").wait_for()


def test_every_screen_is_accessible_at_both_widths_in_dark_and_light(
    visit: Callable[..., Any],
) -> None:
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    rich = ["/", "/features/spend?key.user_id=7&against=1.0.0"]
    all_screens = [*rich, "/?q=nix", "/features/visits", "/services/checkout", "/key"]
    looks = {(1440, "light"): all_screens, (390, "dark"): all_screens}
    looks |= {(1440, "dark"): rich, (390, "light"): rich}
    for (width, scheme), screens in looks.items():
        page = visit(width, scheme)
        for path in screens:
            page.goto(path)
            page.evaluate(axe)
            found = page.evaluate("axe.run().then(result => result.violations)")
            serious = [v for v in found if v["impact"] in ("serious", "critical")]
            told = [(v["id"], [node["html"][:160] for node in v["nodes"][:3]]) for v in serious]
            assert told == [], (path, width, scheme)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (path, width, wide)


def test_pages_work_where_no_script_runs(browser: Any, up: tuple[Path, str]) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=up[1])
    try:
        page = context.new_page()
        page.goto("/")
        page.fill("#key", KEY)
        page.click("form.key button")
        page.fill("#q", "amount__count")
        page.press("#q", "Enter")
        page.click("#found a:has-text('spend')")
        page.click("text=Read the distributions")
        assert page.locator("svg.bars").count() > 0
        page.fill("input[name='key.user_id']", "7")
        page.click("text=Explain")
        assert "first.parquet" in page.locator("#why .files").inner_text()
    finally:
        context.close()


def test_files_that_are_left_out_are_one_thing_that_stays_open_while_others_come(
    visit: Callable[..., Any], up: tuple[Path, str]
) -> None:
    folder, _ = up
    page = visit(390)
    for name in ("torn", "worn"):
        (folder / "visits" / f"{name}.parquet").write_text("no parquet")
    need = page.locator(".needs > li", has_text="left out 2 files")
    need.wait_for()
    need.locator("summary").press("Enter")
    assert "torn.parquet: is not parquet" in need.inner_text()
    drop(folder, "fourth", [7.0] * 10, day=13)
    page.locator(".line", has_text="fourth.parquet came").first.wait_for()
    button = need.locator("button[aria-label='Retry worn.parquet']")
    button.wait_for()
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("axe.run().then(result => result.violations)")
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in serious] == []
    button.press("Enter")
    page.locator("#said .good").wait_for()
