"""The changelog as a page: its links begin at the repository's root, those of pages here."""

from __future__ import annotations

from pathlib import Path

PLACE = "<!-- CHANGELOG.md -->"
CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page; the changelog takes its place in the one that names it."""
    if PLACE not in markdown:
        return markdown
    return markdown.replace(PLACE, CHANGELOG.read_text().replace("](docs/", "]("))
