"""HTML from templates, each value escaped, with headers that let a page load nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mlforge.core.text import plural
from mlforge.serve.page import words

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: tuple[tuple[str, str], ...] = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""Headers of each page: no script, style or picture but the server's own, none within the page, and no frame around it."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "share": words.share,
        "duration": words.duration,
        "size": words.size,
        "second": words.second,
        "sentence": words.sentence,
        "ago": words.ago,
        "brief": words.brief,
        "listed": words.listed,
        "meaning": words.meaning,
        "segment": _segment,
    }
    environment.globals["plural"] = plural
    return environment


def _segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def render(template: str, **values: object) -> str:
    """A template's HTML with these values."""
    return _environment().get_template(template).render(**values)
