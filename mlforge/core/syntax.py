"""Trees of Python's syntax, made by one thread at a time.

Up to Python 3.12.1 all threads count the depth of the trees that they make in one place, so that two of them at once now and then
fail with "AST constructor recursion depth mismatch". Source: https://github.com/python/cpython/issues/106905
"""

from __future__ import annotations

import ast
import os
import threading

_turn = threading.Lock()
# A process that is forked while another thread has its turn would wait for it for ever.
os.register_at_fork(
    before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release
)


def module_tree(source: str | bytes) -> ast.Module:
    """The tree of a module's source. Raises SyntaxError and ValueError as `ast.parse`."""
    with _turn:
        return ast.parse(source)  # noqa: TID251 - the one place


def expression_tree(source: str) -> ast.expr:
    """The tree of an expression. Raises SyntaxError and ValueError as `ast.parse`."""
    with _turn:
        return ast.parse(source, mode="eval").body  # noqa: TID251 - the one place
