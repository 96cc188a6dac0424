"""Trees of syntax are made by one thread at a time, also in the child of a fork that comes amid one."""

from __future__ import annotations

import ast
import os
import threading

import pytest

from mlforge.core.syntax import expression_tree, module_tree


def test_trees_are_those_of_python() -> None:
    assert ast.dump(module_tree("x = 1")) == ast.dump(ast.parse("x = 1"))  # noqa: TID251 - what it is held against
    assert ast.unparse(expression_tree("a + 1")) == "a + 1"
    with pytest.raises(SyntaxError):
        expression_tree("a +")


def test_no_thread_begins_a_tree_while_another_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, entered, another, together = ast.parse, threading.Event(), threading.Event(), []  # noqa: TID251 - what is watched

    def slow(*arguments: object, **options: object) -> object:
        together.append(entered.is_set() and not another.is_set())
        if entered.is_set():
            another.set()
        else:
            entered.set()
            another.wait(0.2)  # nobody comes
            another.set()
        return parse(*arguments, **options)

    monkeypatch.setattr(ast, "parse", slow)
    first = threading.Thread(target=module_tree, args=("x = 1",))
    first.start()
    assert entered.wait(30)
    second = threading.Thread(target=expression_tree, args=("x",))
    second.start()
    first.join()
    second.join()
    assert together == [False, False]


def test_a_process_that_is_forked_amid_a_tree_makes_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse, entered, done = ast.parse, threading.Event(), threading.Event()  # noqa: TID251 - what is watched

    def slow(*arguments: object, **options: object) -> object:
        entered.set()
        done.wait(0.2)
        return parse(*arguments, **options)

    monkeypatch.setattr(ast, "parse", slow)
    other = threading.Thread(target=module_tree, args=("x = 1",))
    other.start()
    assert entered.wait(30)
    monkeypatch.setattr(ast, "parse", parse)
    child = os.fork()
    if child == 0:
        module_tree("x = 1")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    other.join()
