"""What changes a function's hash, and what does not."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from polars.api import NameSpace

from mlforge.features.code_hash import code_hash

BASE = '''
import polars as pl

RATE = 3


def helper(df):
    return df.filter(pl.col("a") > RATE)


def f(df):
    """Doc."""
    x = 1  # a comment
    return helper(df).with_columns(b=pl.col("a") * x)
'''

Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Write files of Python and import one of them; each call has a folder of its own."""
    before, count = set(sys.modules), iter(range(1000))

    def load(text: str, others: dict[str, str] | None = None) -> ModuleType:
        folder = tmp_path / str(next(count))
        for name, content in {"defs": text, **(others or {})}.items():
            path = folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content))
        for name in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return importlib.import_module("defs")

    yield load
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def edit(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


SAME = {
    "comments": [("  # a comment", "\n    # another, on a line of its own")],
    "docstrings": [('    """Doc."""\n', "")],
    "blank lines": [("x = 1", "x    =  1\n\n")],
    "line numbers": [("RATE = 3", "\n\n\nRATE = 3")],
    "parentheses and quotes": [('return helper(df).with_columns(b=pl.col("a") * x)', "return (\n        helper(df)\n        .with_columns(b=(pl.col('a') * x),)\n    )")],
    "annotations": [("def f(df):", "def f(df: pl.DataFrame) -> pl.DataFrame:"), ("x = 1", "x: int = 1")],
    "its own name": [("def f(df)", "def g(df)"), ("x = 1  # a comment", "x = 1")],
    "decorators": [("def f(df)", "def same(f): return f\n\n@same\n@same\ndef f(df)")],
    "what it does not use": [("RATE = 3", "RATE = 3\nOTHER = 4\ndef unused(): return 5")],
    "pass": [("x = 1", "pass\n    x = 1")],
    "order of definitions": [("RATE = 3\n", ""), ("def f(df)", "RATE = 3\n\ndef f(df)")],
}  # fmt: skip
DIFFERENT = {
    "a literal": [("x = 1", "x = 2")],
    "the type of a literal": [("x = 1", "x = 1.0")],
    "an operator": [("* x", "+ x")],
    "a column": [('b=pl.col("a")', 'b=pl.col("z")')],
    "an argument": [("def f(df)", "def f(df, y=1)")],
    "a helper": [("> RATE", ">= RATE")],
    "a constant of a helper": [("RATE = 3", "RATE = 4")],
    "a library's function": [("* x", "* abs(x)")],
    "the order of statements": [("x = 1  # a comment", "x = 1; x = 2; x = 1")],
}


@pytest.mark.parametrize("what", SAME)
def test_what_does_not_count(what: str, load: Load) -> None:
    module = load(edit(BASE, *SAME[what]))
    changed = getattr(module, "f", None) or module.g
    assert code_hash(changed) == code_hash(load(BASE).f)


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_counts(what: str, load: Load) -> None:
    assert code_hash(load(edit(BASE, *DIFFERENT[what])).f) != code_hash(load(BASE).f)


CONSTANTS = {
    "text": ("'a'", "'b'"),
    "bytes": ("b'a'", "b'b'"),
    "none and false": ("None", "False"),
    "one and true": ("1", "True"),
    "tuple": ("(1, 2)", "(2, 1)"),
    "tuple and list": ("(1, 2)", "[1, 2]"),
    "list": ("['a', ['b']]", "[['a'], 'b']"),
    "dict": ("{'a': 1}", "{'a': 2}"),
    "set": ("{'a', 'b'}", "{'a', 'c'}"),
    "nested": ("{'k': [{'x', 'y'}, (1, 'z')]}", "{'k': [{'x', 'y'}, (1, 'Z')]}"),
    "float": ("0.1", "0.10000000000000002"),
    "date": ("date(2024, 1, 1)", "date(2024, 1, 2)"),
    "pattern": ("re.compile('a')", "re.compile('a', re.I)"),
    "expression": ("pl.col('a') > 1", "pl.col('a') > 2"),
    "expression of many": ("pl.col('a').is_in(list(range(99)))", "pl.col('a').is_in(list(range(100)))"),
    "selector": ("cs.numeric()", "cs.string()"),
    "dtype": ("pl.Int64", "pl.Int32"),
    "dtype with a zone": ("pl.Datetime('us', 'UTC')", "pl.Datetime('us')"),
    "frame": ("pl.DataFrame({'a': [1, 2]})", "pl.DataFrame({'a': [1, 3]})"),
    "frame of another name": ("pl.DataFrame({'a': [1, 2]})", "pl.DataFrame({'b': [1, 2]})"),
    "long frame": ("pl.DataFrame({'a': range(25_000)})", "pl.DataFrame({'a': [*range(24_999), 0]})"),
    "series": ("pl.Series([1, 2])", "pl.Series([1, 2], dtype=pl.Int8)"),
    "lazy frame": ("pl.LazyFrame({'a': [1]})", "pl.LazyFrame({'a': [2]})"),
    "pandas": ("pd.DataFrame({'a': range(999)})", "pd.DataFrame({'a': [*range(998), 0]})"),
    "series of pandas": ("pd.Series([1, 2], name='a')", "pd.Series([1, 3], name='a')"),
    "name of a series of pandas": ("pd.Series([1, 2], name='a')", "pd.Series([1, 2], name='b')"),
    "pandas of mixed values": ("pd.DataFrame({'a': [1, 'x']})", "pd.DataFrame({'a': [1, 'y']})"),
    "attributes of pandas": ("pd.Series([1])", "(lambda s: s.attrs.update(a=1) or s)(pd.Series([1]))"),
    "series of objects": ("pl.Series([Thing(1)], dtype=pl.Object)", "pl.Series([Thing(2)], dtype=pl.Object)"),
    "frame of objects": ("pl.Series([Thing(1)]).to_frame('a')", "pl.Series([Thing(2)]).to_frame('a')"),
    "queue with a bound": ("deque([1], 2)", "deque([1], 3)"),
    "data class that was made": ("make_dataclass('K', [('x', int, 1)])", "make_dataclass('K', [('x', int, 2)])"),
    "column of arrow": ("pa.chunked_array([[1, 2]])", "pa.chunked_array([[1, 3]])"),
    "array": ("np.arange(5000)", "np.arange(5000) % 4999"),
    "array of objects": ("np.array(['a', None], dtype=object)", "np.array(['b', None], dtype=object)"),
    "array of times": ("np.arange(2000).astype('M8[s]')", "(np.arange(2000) % 1999).astype('M8[s]')"),
    "partial": ("functools.partial(max, 1)", "functools.partial(max, 2)"),
    "lambda": ("lambda x: x + 1", "lambda x: x + 2"),
    "lambdas in a list": ("[lambda x: x, lambda x: 1]", "[lambda x: 1, lambda x: x]"),
    "cached function": ("functools.lru_cache(lambda x: 1)", "functools.lru_cache(lambda x: 2)"),
    "library's function": ("math.sin", "math.cos"),
    "bound method": ("'a'.join", "'a'.split"),
    "enum": ("Colour.RED", "Colour.BLUE"),
    "data class": ("Point(1, [2])", "Point(1, [3])"),
    "named tuple": ("Pair(1, 2)", "Pair(1, 3)"),
    "default dict": ("defaultdict(lambda: 1)", "defaultdict(lambda: 2)"),
    "path": ("Path('a')", "Path('b')"),
    "object": ("Thing(1)", "Thing(2)"),
    "object with slots": ("Slotted(1)", "Slotted(2)"),
}  # fmt: skip
ZOO = """
import enum, functools, math, re
from collections import defaultdict, deque, namedtuple
from dataclasses import dataclass, make_dataclass
from datetime import date
from pathlib import Path
import numpy as np, pandas as pd, polars as pl, polars.selectors as cs, pyarrow as pa

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

@dataclass
class Point:
    x: int
    y: list

class Thing:
    def __init__(self, x): self.x = x

class Slotted:
    __slots__ = ("x",)
    def __init__(self, x): self.x = x

Pair = namedtuple("Pair", "a b")
"""


@pytest.mark.parametrize("what", CONSTANTS)
def test_constants_count_by_value(what: str, load: Load) -> None:
    one, two = CONSTANTS[what]
    hashes = [
        code_hash(load(f"{ZOO}\nVALUE = {value}\n\ndef f(df):\n    return df.pipe(VALUE)\n").f)
        for value in (one, two, one)
    ]
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize(
    "body",
    [
        "def f(df, value=VALUE):\n    return value",
        "def f(df, *, value=VALUE):\n    return value",
        "def make(value):\n    return lambda df: value\nf = make(VALUE)",
        "def f(df):\n    def inner():\n        return VALUE\n    return inner()",
        "def f(df):\n    return [VALUE for _ in df]",
        "class K:\n    limit = VALUE\n\ndef f(df):\n    return K.limit",
        "class K:\n    def run(self):\n        return VALUE\n\ndef f(df):\n    return K().run()",
        "class K:\n    def __call__(self, df):\n        return VALUE\nf = K()",
        "class K:\n    def run(self, df):\n        return VALUE\nf = K().run",
        "class K:\n    @property\n    def p(self):\n        return VALUE\nk = K()\n\ndef f(df):\n    return k.p",
        "class B:\n    @classmethod\n    def m(cls):\n        return VALUE\nclass K(B): pass\n\ndef f(df):\n    return K.m()",
        "import functools\ndef g(df, v):\n    return v\nf = functools.partial(g, v=VALUE)",
        "import functools\ndef wrap(g):\n    @functools.wraps(g)\n    def inner(df):\n        return g(df)\n    return inner\n@wrap\ndef f(df):\n    return VALUE",
        "import contextlib\n@contextlib.contextmanager\ndef h():\n    yield VALUE\ndef f(df):\n    with h() as v:\n        return v",
        "import functools\n@functools.cache\ndef h():\n    return VALUE\ndef f(df):\n    return h()",
        "TABLE = {'k': lambda: VALUE}\n\ndef f(df):\n    return TABLE['k']()",
        "def a(n):\n    return b(n)\ndef b(n):\n    return a(n) if n else VALUE\ndef f(df):\n    return a(1)",
        "from dataclasses import dataclass\n@dataclass(slots=True)\nclass K:\n    x: int = VALUE\ndef f(df):\n    return K().x",
        "from dataclasses import dataclass, field\n@dataclass\nclass K:\n    x: list = field(default_factory=lambda: [VALUE])\ndef f(df):\n    return K().x",
        "from dataclasses import dataclass, field\n@dataclass\nclass K:\n    x: int = field(default=0, compare=VALUE > 1)\ndef f(df):\n    return K(1) == K(2)",
        "from dataclasses import dataclass\n@dataclass(order=VALUE > 1)\nclass K:\n    x: int\ndef f(df):\n    return max(K(1), K(2))",
        "import functools\nclass K:\n    @functools.cache\n    def __call__(self, df):\n        return VALUE\nf = K()",
        "class D:\n    def __init__(self, run): self.run = run\n    def __get__(self, k, of=None): return lambda df: self.run(k, df)\nclass K:\n    @D\n    def __call__(self, df):\n        return VALUE\nf = K()",
        "class M(type):\n    @property\n    def x(cls): return VALUE\nclass K(metaclass=M): pass\ndef f(df):\n    return K.x",
        "class K:\n    _x_ = VALUE\ndef f(df):\n    return K._x_",
        "import polars as pl\nrates = pl.DataFrame({'rate': [VALUE]})\ndef f(df):\n    return pl.sql('select * from df, rates')",
        "import polars as pl\nrates = pl.LazyFrame({'rate': [VALUE]})\nQUERY = 'select * from df, rates'\ndef f(df):\n    return pl.sql(QUERY)",
        "def f(df):\n    return df.to_pandas().query('a > @VALUE')",
        "exec('def f(df): return VALUE')",
        "f = eval('lambda df: VALUE')",
    ],
)  # fmt: skip
def test_a_constant_counts_wherever_it_is_used(body: str, load: Load) -> None:
    hashes = [code_hash(load(f"VALUE = {value}\n{body}\n").f) for value in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_methods_and_namespaces_that_were_put_onto_frames_count(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        def rated(df): return df * VALUE
        class Shop:
            def rate(self): return VALUE
        def f(df): return df.rated()
        def g(df): return df.with_columns(pl.col("a").shop.rate())
    """
    hashes = []
    for value in (1, 2, 1):
        module = load(f"import polars as pl\nVALUE = {value}\n{dedent(text)}")
        monkeypatch.setattr(pl.DataFrame, "rated", module.rated, raising=False)
        monkeypatch.setattr(pl.Expr, "shop", NameSpace("shop", module.Shop), raising=False)
        hashes.append((code_hash(module.f), code_hash(module.g)))
    assert hashes[0] == hashes[2]
    assert all(one != two for one, two in zip(hashes[0], hashes[1], strict=True))


@pytest.mark.parametrize(
    ("use", "where"),
    [
        ("import own_tools\ndef f(df):\n    return own_tools.clean(df)", "own_tools"),
        ("from own_tools import clean\ndef f(df):\n    return clean(df)", "own_tools"),
        ("def f(df):\n    from own_tools import clean\n    return clean(df)", "own_tools"),
        ("def f(df):\n    import own_tools\n    return own_tools.clean(df)", "own_tools"),
        ("import kit.own_tools\ndef f(df):\n    return kit.own_tools.clean(df)", "kit/own_tools"),
        (
            "def f(df):\n    from kit import own_tools\n    return own_tools.clean(df)",
            "kit/own_tools",
        ),
        ("def f(df):\n    import kit.own_tools as t\n    return t.clean(df)", "kit/own_tools"),
        ("def f(df):\n    import kit.more\n    return kit.clean(df)", "kit/__init__"),
    ],
)
def test_helpers_in_modules_beside_it_count(use: str, where: str, load: Load) -> None:
    clean = "def clean(df):\n    return df.filter({})\n"
    hashes = [
        code_hash(load(use, {"kit/__init__": "", "kit/more": "", where: clean.format(n)}).f)
        for n in (1, 2, 1)
    ]
    assert hashes[0] == hashes[2] != hashes[1]


def test_names_that_a_module_beside_it_makes_when_asked_count(load: Load) -> None:
    use = "import own_tools\ndef f(df):\n    return df * own_tools.RATE"
    made = "def __getattr__(name):\n    return {{'RATE': {}}}[name]\n"
    hashes = [code_hash(load(use, {"own_tools": made.format(n)}).f) for n in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_what_else_a_module_beside_it_holds_does_not_count(load: Load) -> None:
    use = "import own_tools\ndef f(df):\n    return own_tools.clean(df)"
    clean = "def clean(df):\n    return df\n"
    assert code_hash(load(use, {"own_tools": clean}).f) == code_hash(
        load(use, {"own_tools": f"{clean}\nX = 1\n"}).f
    )


def test_code_of_installed_packages_counts_by_name_alone(load: Load, tmp_path: Path) -> None:
    def using(body: str) -> str:
        folder = tmp_path / body[-1] / "site-packages"
        folder.mkdir(parents=True)
        (folder / "someones.py").write_text(f"def clean(df):\n    {body}\n")
        sys.path.insert(0, str(folder))
        try:
            return code_hash(load("from someones import clean\ndef f(df):\n    return clean(df)").f)
        finally:
            sys.path.remove(str(folder))
            del sys.modules["someones"]

    assert using("return 1") == using("return 2")


def test_two_lambdas_on_a_line_are_told_apart(load: Load) -> None:
    module = load("f, g = (lambda x: x + 1), (lambda x: x + 2)\nh = lambda x: x + 2\n")
    assert code_hash(module.f) != code_hash(module.g) == code_hash(module.h)


def test_a_lambda_within_a_lambda_is_told_apart(load: Load) -> None:
    module = load("f = lambda x: (lambda y: y + 1)\ng = lambda y: y + 1\n")
    assert code_hash(module.f(0)) == code_hash(module.g) != code_hash(module.f)


def test_an_edited_file_does_not_change_what_is_in_memory(load: Load) -> None:
    module = load(BASE)
    before = code_hash(module.f)
    Path(str(module.__file__)).write_text(edit(BASE, ("x = 1", "x = 22")))
    assert code_hash(module.f) == before


def test_source_that_was_edited_before_it_was_hashed_is_not_trusted(load: Load) -> None:
    module = load(BASE)
    Path(str(module.__file__)).write_text(edit(BASE, ("x = 1", "x = 22")))
    assert code_hash(module.f) != code_hash(load(edit(BASE, ("x = 1", "x = 22"))).f)


def test_a_function_without_source_is_hashed_by_its_bytecode() -> None:
    def made(text: str) -> Any:
        space: dict[str, Any] = {"K": 1}
        exec(text, space)
        return space["f"]

    one = code_hash(made("def f(df): return df + K"))
    assert one == code_hash(made("\n\ndef g(df): return df + K\nf = g"))
    assert one != code_hash(made("def f(df): return df - K"))
    assert one != code_hash(made("K = 2\ndef f(df): return df + K"))


def test_values_that_contain_themselves_are_hashed(load: Load) -> None:
    text = "LOOP = [1]\nLOOP.append(LOOP)\ndef f(df):\n    return LOOP, f\n"
    assert code_hash(load(text).f) == code_hash(load(text).f)


def test_builtins_and_methods_are_hashed_by_name() -> None:
    assert code_hash(len) != code_hash(max)
    assert code_hash("a".join) == code_hash("a".join)
    assert code_hash(functools.partial(len)) != code_hash(len)


def test_a_nested_class_keeps_its_annotations(load: Load) -> None:
    text = "from dataclasses import dataclass\ndef f(df):\n    @dataclass\n    class P:\n        x: int\n    return P(1)\n"
    assert code_hash(load(text).f) != code_hash(load(edit(text, ("x: int", "y: int"))).f)


def test_f_strings_count_by_their_parts(load: Load) -> None:
    text = "def f(df):\n    return f'a{df!r:>{9}}' 'b'\n"
    assert code_hash(load(text).f) == code_hash(load(edit(text, ("' 'b'", "b'"))).f)
    assert code_hash(load(text).f) != code_hash(load(edit(text, ("!r", "!s"))).f)


@pytest.mark.slow
def test_hashes_are_the_same_in_every_process(tmp_path: Path) -> None:
    names = ["text", "set", "nested", "expression of many", "frame", "lazy frame", "enum", "data class", "object", "lambda", "cached function", "array"]  # fmt: skip
    values = ", ".join(CONSTANTS[name][0] for name in names)
    (tmp_path / "defs.py").write_text(
        f"{ZOO}\nVALUES = [{values}, object(), Thing]\nSEEN = {{'a', 'b', 'c', 'd'}}\n"
        "class Node:\n    pass\n"
        "RING = [Node() for _ in range(5)]\n"
        "for number, node in enumerate(RING):\n    node.number, node.near = number, {RING[number - 1], RING[number - 2]}\n"
        "BY_NAME = {n: RING[ord(n) - 97] for n in SEEN}\n"
        "def g(df):\n    return df if df in {'x', 'y', 'z'} else VALUES, f\n"
        "def f(df):\n    return g(df), SEEN, RING, BY_NAME\n"
        'exec(\'def h(df): return df in {"p", "q", "r"}\')\n'
    )
    program = "import defs; from mlforge.features.code_hash import code_hash; print(code_hash(defs.f), code_hash(defs.h))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}",
            },
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_hash_of_a_known_function_is_what_it_was(load: Load) -> None:
    """It is stored: whatever changes it, a newer Python too, makes a version of every feature."""
    assert (
        code_hash(load(BASE).f)
        == "f8ebfaa028994291f6ecd776c664fe53affa6e1e65729828bad49513a860da3e"
    )
