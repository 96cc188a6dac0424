"""The picture of the page that the README shows, taken of the shop at work: `python -m checks.page_picture`.

Needs a Chromium, at CHROMIUM or on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
SHOP, PICTURE = ROOT / "examples" / "shop", ROOT / "docs" / "page.png"
WIDTH, HEIGHT = 1280, 800
PATIENCE_S = 60.0
_KEY = "the door of the shop"


def main() -> int:
    """Take the picture; exit code 1 where there is no browser."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no Chromium: name one in CHROMIUM")
        return 1
    with tempfile.TemporaryDirectory(prefix="mlforge-picture-") as name:
        folder = Path(name)
        shutil.copy(SHOP / "definitions.py", folder)
        data = folder / "data"
        generate = [sys.executable, str(SHOP / "generate.py"), "--out", str(data)]
        subprocess.run(generate, check=True, stdout=subprocess.DEVNULL)
        latest = max((data / "transactions").iterdir())
        later = latest.read_bytes()
        latest.unlink()
        with (folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlforge", "up", "--port", "0"],
                cwd=folder, stdout=log, stderr=log, env=_environment(folder),
            )  # fmt: skip
        try:
            url = _told(folder / "up.log", r"http://127\.0\.0\.1:\d+")
            for feature in ("product_embedding", "user_peaks", "merchant_daily"):
                _told(folder / "up.log", rf"{feature} +1\.0\.0")
            _shoot(chromium, url, latest, later)
        finally:
            process.terminate()
            process.wait()
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} KB")
    return 0


def _shoot(chromium: str, url: str, latest: Path, later: bytes) -> None:
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=alone)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        page.fill("#key", _KEY)
        page.click("form.key button")
        profiles = latest.parents[1] / "profiles"
        _drop(profiles / "torn.parquet", b"not parquet")
        _line(page, "torn.parquet is set aside")
        _drop(latest, later)
        _line(page, f"{latest.name} came")
        page.locator(".line.good", has_text="user_peaks").nth(1).wait_for()
        page.locator("#found tr", has_text="user_spend").locator("text=1.0.1").wait_for()
        page.wait_for_timeout(3_000)  # until what is new has faded
        page.screenshot(path=PICTURE)
        browser.close()


def _line(page: Page, text: str) -> None:
    page.locator(".line", has_text=text).first.wait_for(timeout=1000 * PATIENCE_S)


def _drop(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.rename(path)


def _told(log: Path, pattern: str) -> str:
    """The first match in a log; waits for it."""
    deadline = time.monotonic() + PATIENCE_S
    while (match := re.search(pattern, log.read_text())) is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"{pattern} is nowhere in:\n{log.read_text()}")
        time.sleep(0.05)
    return match[0]


def _environment(folder: Path) -> dict[str, str]:
    """The environment, with a file of keys that has one."""
    keys = folder / "keys.toml"
    hashed = sha256(_KEY.encode()).hexdigest()
    keys.write_text(f'[anna]\nsha256 = "{hashed}"\noperates = true\n')
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFORGE_", "REDIS_"))}
    return own | {"MLFORGE_KEYS": str(keys)}


if __name__ == "__main__":
    sys.exit(main())
