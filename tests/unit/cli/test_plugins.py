"""Entry points read without `importlib.metadata`: as it tells them."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from zipfile import ZipFile

import pytest

from mlforge.cli.plugins import Plugin, plugins

GROUPS = sorted(entry_points().groups)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_of_what_is_installed_here_is_told_as_by_the_standard_library(group: str) -> None:
    theirs = [
        (each.name, each.value.partition("[")[0].strip()) for each in entry_points(group=group)
    ]
    assert plugins(group) == sorted(theirs)


def declare(folder: Path, package: str, text: str) -> None:
    info = folder / f"{package}.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.partition('-')[0]}\n")


def test_of_a_package_that_is_installed_twice_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(tmp_path / "first", "some_thing-2.0", "[a]\nx = new:X\n")
    declare(tmp_path / "second", "Some.Thing-1.0", "[a]\nx = old:X\ny = old:Y\n")
    declare(
        tmp_path / "second",
        "other-1.0",
        "[b]\nx = other:X\n\n[a]\n# x = comment:X\nz=other:Z [extra]\n",
    )
    monkeypatch.setattr("sys.path", [str(tmp_path / name) for name in ("gone", "first", "second")])
    assert plugins("a") == [("x", "new:X"), ("z", "other:Z")]
    assert [(each.name, each.value) for each in sorted(entry_points(group="a"))] == [
        ("x", "new:X"),
        ("z", "other:Z [extra]"),
    ]


def test_packages_in_an_archive_are_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "packed.zip"
    with ZipFile(archive, "w") as packed:
        packed.writestr("packed-1.0.dist-info/entry_points.txt", "[a]\nx = packed:X\n")
        packed.writestr("packed-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: packed\n")
    monkeypatch.setattr("sys.path", [str(archive)])
    assert plugins("a") == [("x", "packed:X")]


def test_a_plugin_is_the_object_that_it_names() -> None:
    assert Plugin("x", "pathlib:Path.cwd").load() == Path.cwd
    assert Plugin("x", "pathlib").load().Path is Path
