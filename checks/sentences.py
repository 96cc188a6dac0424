"""`python -m checks.sentences`: docstrings begin with a noun or a deed, and no comment hangs behind a bracket that closes.

Exit code 1 if some do not; each is printed with its place.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from checks.packages import ROOT, blocks, parsed

FOLDERS = ("mlforge", "worker")
FORBIDDEN = ("What", "Those", "One", "It", "These")
_BEGINS = re.compile(rf"\s*(?:{'|'.join(FORBIDDEN)})\b(?!-)")
_HANGS = re.compile(r"\s*[)\]}]+[:,]?  # (?!fmt|noqa|type|pragma)")


def offenders(root: Path = ROOT) -> Iterator[str]:
    """`file:line: text`, for each docstring that begins so, by its first line, and each comment that hangs."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            for line, text in docstrings(parsed(path)):
                if begins_badly(text):
                    yield f"{path.relative_to(root)}:{line}: {text.strip().splitlines()[0]}"
            for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if hangs(text):
                    yield f"{path.relative_to(root)}:{line}: {text.strip()}"


def begins_badly(text: str) -> bool:
    """Whether a docstring's first word is a forbidden one."""
    return _BEGINS.match(text) is not None


def hangs(line: str) -> bool:
    """Whether a line's comment follows a bracket that closes alone: the formatter has torn the statement apart for it."""
    return _HANGS.match(line) is not None


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring of a module, also of those that describe a name above them."""
    for node in blocks(tree):
        for statement in getattr(node, "body", ()):
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def main() -> int:
    """Print what begins wrongly; 1 if there is some."""
    lines = list(offenders())
    if lines:
        print("\n".join(lines))
        print(
            f"docstrings that begin with {', '.join(FORBIDDEN)}: begin with the noun returned or the deed; "
            "comments behind a bracket: put them above the statement"
        )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
