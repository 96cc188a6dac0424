"""What a source consists of: which files count, which are shown as ignored, which are passed over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlforge.errors import DefinitionError, SourceError
from mlforge.sources.source import Source
from mlforge.sources.source_file import FileStat


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(source: Source) -> list[str]:
    return [file.path for file in source.scan().files]


def reasons(source: Source) -> dict[str, str]:
    return {one.path: one.reason for one in source.scan().ignored}


@pytest.fixture
def readable_root() -> Iterator[Path]:
    """A folder that any user may enter, while the test runs without root's rights."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield root
        finally:
            os.seteuid(user)
            for path in [root, *root.rglob("*")]:
                path.chmod(0o777)


# What a text means.


def test_a_folder_is_read_recursively_in_the_order_of_its_paths(tmp_path):
    touch(tmp_path, "data/b.parquet", "data/a/z.pq", "data/a/b/c.parquet", "data/a.parquet")
    source = Source.of("data", tmp_path)
    assert found(source) == ["a.parquet", "a/b/c.parquet", "a/z.pq", "b.parquet"]
    assert source.root == tmp_path / "data"


def test_one_file_is_watched_through_its_folder(tmp_path):
    touch(tmp_path, "data/a.parquet", "data/b.parquet")
    source = Source.of("data/a.parquet", tmp_path)
    assert (source.root, found(source)) == (tmp_path / "data", ["a.parquet"])
    assert source.scan().files[0].absolute == tmp_path / "data/a.parquet"
    assert reasons(source) == {}


def test_a_folder_named_like_a_file_is_that_source(tmp_path):
    touch(tmp_path, *(f"events.parquet/{n}" for n in ("part-0.parquet", "part-1", "_SUCCESS")))
    touch(tmp_path, "other.parquet")
    source = Source.of("events.parquet", tmp_path)
    assert found(source) == ["events.parquet/part-0.parquet"]
    assert reasons(source).keys() == {"events.parquet/part-1"}
    assert found(Source.of("events.parquet/", tmp_path)) == ["part-0.parquet"]


GLOB_TREE = (
    "a.parquet",
    "b.pq",
    "x/a.parquet",
    "x/y/a.parquet",
    "x/y/z/b.parquet",
    "x/date=1/a.parquet",
    "x[1]/a.parquet",
)


@pytest.mark.parametrize(
    "glob",
    [
        "*.parquet",
        "?.p*",
        "*/a.parquet",
        "**/a.parquet",
        "x/**/*.parquet",
        "x/*/?.parquet",
        "**/y/**/*.parquet",
        "[ab].p*",
        "[!a].p*",
        "x[[]1]/*.parquet",
        "nothing/*.parquet",
        "**/**/b.parquet",
    ],
)
def test_a_glob_means_what_it_means_to_pathlib(tmp_path, glob):
    touch(tmp_path, *GLOB_TREE)
    expected = sorted(p.relative_to(tmp_path).as_posix() for p in set(tmp_path.glob(glob)))
    source = Source.of(glob, tmp_path)
    assert (
        sorted(f.absolute.relative_to(tmp_path).as_posix() for f in source.scan().files) == expected
    )
    named = [name for name in GLOB_TREE if source.matches(tmp_path / name)]
    assert sorted(named) == expected


def test_a_globs_root_is_the_folder_before_its_first_magic_part(tmp_path):
    source = Source.of("data/date=*/x/*.parquet", tmp_path)
    assert source.root == tmp_path / "data"
    assert found(source) == []


def test_a_glob_of_folders_takes_all_that_is_below_them(tmp_path):
    touch(tmp_path, "2024-01/a.parquet", "2024-01/x/b.parquet", "2023-12/a.parquet", "2024.parquet")
    expected = ["2024-01/a.parquet", "2024-01/x/b.parquet"]
    assert found(Source.of("2024*/", tmp_path)) == expected
    assert found(Source.of("2024*/**", tmp_path)) == expected


def test_an_absolute_path_needs_no_base_and_dots_are_resolved(tmp_path):
    assert Source.of(str(tmp_path / "a"), Path("/elsewhere")).root == tmp_path / "a"
    assert Source.of("../a", tmp_path / "b").root == tmp_path / "a"
    assert Source.of("~/a", tmp_path).root == Path.home() / "a"


SCHEMES = (
    "s3://bucket/data",
    "s3a://bucket/*.parquet",
    "S3://bucket/data.parquet",
    "gs://bucket/data/",
    "hdfs://namenode:8020/data",
    "http://example.com/data.parquet",
    "file:///data",
    "delta:data",
    " s3://bucket/data",
    "iceberg:data",
    str(Path("s3://bucket/data")),
    str(Path("abfss://box@account/data")),
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a path"),
        *((text, "does not read") for text in SCHEMES),
        ("data/_drafts.parquet", "'_drafts.parquet' is passed over"),
        ("*/.cache/*.parquet", "'.cache' is passed over"),
    ],
)
def test_a_text_that_can_name_no_file_is_refused(tmp_path, text, says):
    with pytest.raises(DefinitionError, match=says):
        Source.of(text, tmp_path)


# Which files count.


def test_hidden_and_unfinished_names_are_passed_over_without_a_word(tmp_path):
    touch(
        tmp_path,
        "ok.parquet",
        ".hidden.parquet",
        "_temporary/0/a.parquet",
        ".git/a.parquet",
        "a.parquet.tmp",
        "b.part",
        "c.crdownload",
        "upload.tmp/a.parquet",
    )
    listing = Source.of(".", tmp_path).scan()
    assert ([file.path for file in listing.files], listing.ignored) == (["ok.parquet"], ())


def test_hidden_parts_above_the_root_do_not_matter(tmp_path):
    touch(tmp_path, ".cache/_data/a.parquet")
    source = Source.of(".cache/_data", tmp_path)
    assert found(source) == ["a.parquet"]
    assert source.matches(tmp_path / ".cache/_data/a.parquet")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/a.parquet", True),
        ("data/x/y/a.PARQUET", True),
        ("data/a.csv", False),
        ("data/_x/a.parquet", False),
        ("data/a.parquet.tmp", False),
        ("data/up.tmp/a.parquet", False),
        ("data", False),
        ("database/a.parquet", False),
        ("a.parquet", False),
    ],
)
def test_a_path_is_matched_by_its_name_alone(tmp_path, path, expected):
    assert Source.of("data", tmp_path).matches(tmp_path / path) is expected


def test_other_files_are_shown_with_what_to_do_about_them(tmp_path):
    touch(tmp_path, "a.csv", "b.json", "README.md", "x/c.feather", "ok.parquet")
    os.mkfifo(tmp_path / "pipe.parquet")
    told = reasons(Source.of(".", tmp_path))
    assert (
        told["a.csv"] == "not parquet; convert it: pl.read_csv('a.csv').write_parquet('a.parquet')"
    )
    assert "pl.read_json" in told["b.json"]
    assert "pl.read_ipc" in told["x/c.feather"]
    assert "if it is parquet, rename it, or name such files in source=" in told["README.md"]
    assert told["pipe.parquet"] == "neither a file nor a folder"
    assert list(told) == sorted(told)
    assert len(told) == 5


def test_a_glob_shows_only_the_other_files_that_it_matches(tmp_path):
    touch(tmp_path, "a.csv", "b.txt", "a.parquet")
    assert list(reasons(Source.of("a.*", tmp_path))) == ["a.csv"]


def test_the_stat_tells_a_rewritten_file(tmp_path):
    touch(tmp_path, "a.parquet")
    source = Source.of(".", tmp_path)
    before = source.scan().files[0]
    assert before.stat == FileStat.of((tmp_path / "a.parquet").stat())
    (tmp_path / "a.parquet").write_bytes(b"more")
    after = source.scan().files[0]
    assert after.stat != before.stat
    assert after.stat.size == 4


def test_columns_in_hive_paths_are_named(tmp_path):
    touch(tmp_path, "date=2024-01-01/country=DE/a.parquet", "b.parquet", "empty=1/notes.txt")
    assert Source.of(".", tmp_path).scan().hive == {"date", "country"}


# What is not there or may not be read.


def test_a_missing_root_is_no_error(tmp_path):
    for text in ("data", "data/a.parquet", "data/*.parquet"):
        listing = Source.of(text, tmp_path).scan()
        assert (listing.exists, listing.files, listing.root) == (False, (), tmp_path / "data")
    (tmp_path / "data").mkdir()
    assert Source.of("data/a.parquet", tmp_path).scan().exists


def test_a_file_in_place_of_a_folder_is_an_error_that_tells_what_to_do(tmp_path):
    touch(tmp_path, "sales.csv")
    with pytest.raises(SourceError, match=r"pl\.read_csv\('sales\.csv'\)"):
        Source.of("sales.csv", tmp_path).scan()


def test_a_root_that_may_not_be_read_is_an_error(readable_root):
    (readable_root / "data").mkdir()
    (readable_root / "data").chmod(0)
    with pytest.raises(SourceError, match=r"cannot be listed \(Permission denied\)"):
        Source.of("data", readable_root).scan()


def test_a_folder_inside_that_may_not_be_read_is_shown(readable_root):
    touch(readable_root, "a.parquet", "secret/b.parquet", "listed/c.parquet")
    (readable_root / "secret").chmod(0)
    (readable_root / "listed").chmod(0o444)
    source = Source.of(".", readable_root)
    assert found(source) == ["a.parquet"]
    assert sorted(reasons(source)) == ["listed/c.parquet", "secret"]
    assert all("permission denied" in reason for reason in reasons(source).values())


def test_names_that_are_not_utf8_are_shown_in_text_that_can_be_stored(tmp_path):
    touch(tmp_path, "größe.parquet")
    (tmp_path / os.fsdecode(b"bad\xff")).mkdir()
    for name in (b"bad\xff.parquet", b"bad\xff/a.parquet"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    source = Source.of(".", tmp_path)
    assert found(source) == ["größe.parquet"]
    told = reasons(source)
    assert set(told) == {"bad\\xff", "bad\\xff.parquet"}
    assert all(path.encode() and "UTF-8" in reason for path, reason in told.items())


# Files that are named explicitly.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x/*.parq", ["a.parq"]),
        ("x/000000_0", ["000000_0"]),
        ("x/00000?_*", ["000000_0", "000001_0"]),
        ("x/part-*", ["part-1", "part-2.parquet.gz"]),
        ("x/*.parquet.gz", ["part-2.parquet.gz"]),
        ("x/a.parq", ["a.parq"]),
        ("x/*", ["b.parquet"]),
        ("x/", ["b.parquet"]),
        ("x/*.*", ["a.parq", "b.parquet", "part-2.parquet.gz"]),
    ],
)
def test_files_that_are_named_explicitly_are_believed_whatever_their_suffix(
    tmp_path, text, expected
):
    names = ("000000_0", "000001_0", "a.parq", "b.parquet", "c.csv", "part-1", "part-2.parquet.gz")
    touch(tmp_path, *(f"x/{name}" for name in names))
    source = Source.of(text, tmp_path)
    assert found(source) == expected
    assert [name for name in names if source.matches(tmp_path / "x" / name)] == expected


def test_a_name_without_suffix_is_what_the_disk_has_by_then(tmp_path):
    (tmp_path / "x").mkdir()
    before = Source.of("x/000000_0", tmp_path)
    assert not before.scan().exists
    touch(tmp_path, "x/000000_0")
    assert found(before.anew()) == ["000000_0"]
    assert before.anew().roots == (tmp_path / "x",)
    (tmp_path / "x/000000_0").unlink()
    touch(tmp_path, "x/000000_0/a.parquet")
    assert found(before.anew()) == ["a.parquet"]


# Tables that have a log.

TABLES = {
    "Delta": "_delta_log/00000000000000000000.json",
    "Iceberg": "metadata/00001-5d5a.metadata.json",
    "Hudi": ".hoodie/hoodie.properties",
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "text",
    [
        "table",
        "table/",
        "table/*.parquet",
        "table/a.parquet",
        "table/day=1/",
        "table/day=1/*.parquet",
        "table/day=1/a.parquet",
        "tab*/*.parquet",
        "**/*.parquet",
        ".",
    ],
)
def test_a_table_with_a_log_is_refused_by_name_however_it_is_reached(tmp_path, kind, text):
    touch(tmp_path, "table/a.parquet", "table/day=1/a.parquet", f"table/{TABLES[kind]}")
    with pytest.raises(SourceError, match=rf"{tmp_path}/table is a table in {kind} format"):
        Source.of(text, tmp_path).scan()


@pytest.mark.parametrize("text", [".", "moved", "**/*.parquet", "*/*/*/*.parquet"])
def test_a_store_that_lies_in_a_source_is_refused_by_name(tmp_path, text):
    touch(tmp_path, "a.parquet", "moved/spend/1.0.0/data.parquet", "moved/_metadata/store.json")
    with pytest.raises(SourceError, match=rf"{tmp_path}/moved is a store of mlforge: .*move it"):
        Source.of(text, tmp_path).scan()


@pytest.mark.parametrize("text", ["*.parquet", "drops/"])
def test_a_store_in_the_folder_of_a_project_does_not_matter_to_a_source_that_reaches_none_of_it(
    tmp_path, text
):
    touch(tmp_path, "a.parquet", "drops/b.parquet", "spend/1.0.0/data.parquet")
    touch(tmp_path, "_metadata/store.json")
    assert len(found(Source.of(text, tmp_path))) == 1


def test_a_folder_named_metadata_is_no_table_by_itself(tmp_path):
    touch(tmp_path, "data/metadata/a.parquet", "data/b.parquet", "data/metadata/notes.json")
    assert found(Source.of("data", tmp_path)) == ["b.parquet", "metadata/a.parquet"]


def test_a_table_beside_a_source_does_not_matter(tmp_path):
    touch(tmp_path, "table/_delta_log/0.json", "data/a.parquet")
    assert found(Source.of("data", tmp_path)) == ["a.parquet"]


# Several places.


def test_several_places_are_all_their_files_by_paths_that_tell_them_apart(tmp_path):
    touch(tmp_path, "a/x.parquet", "b/x.parquet", "b/c/y.parquet", "one.parquet", "z.parquet")
    source = Source.of(("a/", "b/", "one.parquet"), tmp_path)
    expected = ["a/x.parquet", "b/c/y.parquet", "b/x.parquet", "one.parquet"]
    assert found(source) == expected
    assert found(Source.of(("one.parquet", "b", "./a"), tmp_path)) == expected
    assert source.roots == (tmp_path / "a", tmp_path / "b", tmp_path)
    for file in source.scan().files:
        assert file.absolute == tmp_path / file.path == source.absolute(file.path)
        assert source.path_of(file.absolute) == file.path
        assert source.matches(file.absolute)
    assert not source.matches(tmp_path / "z.parquet")
    assert not source.matches(tmp_path / "c/x.parquet")


def test_one_place_in_a_list_is_that_place(tmp_path):
    touch(tmp_path, "a/x.parquet")
    assert found(Source.of(("a/",), tmp_path)) == found(Source.of("a/", tmp_path)) == ["x.parquet"]


def test_places_may_lie_anywhere(tmp_path):
    touch(tmp_path, "project/a/x.parquet", "beside/x.parquet", "far/x.parquet", "project/x.parquet")
    source = Source.of(("a", "../beside", str(tmp_path / "far"), "*.parquet"), tmp_path / "project")
    far = f"{tmp_path}/far/x.parquet"
    assert found(source) == ["../beside/x.parquet", far, "a/x.parquet", "x.parquet"]
    assert all(file.absolute.is_file() for file in source.scan().files)


def test_a_file_in_two_places_counts_once(tmp_path):
    touch(tmp_path, "a/b/x.parquet", "a/y.parquet", "far/z.parquet")
    texts = ("a", "a/b", "a/*.parquet", str(tmp_path / "a"), "./a")
    assert found(Source.of(texts, tmp_path)) == ["a/b/x.parquet", "a/y.parquet"]
    (tmp_path / "a/link").symlink_to(tmp_path / "far")
    assert len(found(Source.of(("a", "far"), tmp_path, follow=True))) == 3


def test_one_missing_place_of_several_is_a_missing_source(tmp_path):
    touch(tmp_path, "a/x.parquet")
    source = Source.of(("a", "b"), tmp_path)
    listing = source.scan()
    assert (listing.exists, listing.root, listing.files) == (False, tmp_path / "b", ())
    assert source.missing == (tmp_path / "b",)


def test_stats_of_several_places_are_the_very_same_while_they_stay(tmp_path):
    touch(tmp_path, "a/x.parquet", "b/x.parquet")
    source = Source.of(("a", "b"), tmp_path)
    before = source.scan().stats
    (tmp_path / "b/x.parquet").write_bytes(b"longer")
    now = source.scan(before).stats
    assert {path for path, stat in now.items() if before[path] is stat} == {"a/x.parquet"}


# Links.


def test_links_do_not_lead_out_of_the_root_nor_count_a_file_twice(tmp_path):
    root = tmp_path / "data"
    touch(tmp_path, "outside/a.parquet", "data/x/b.parquet", "data/_archive/c.parquet")
    (root / "out.parquet").symlink_to(tmp_path / "outside/a.parquet")
    (root / "outdir").symlink_to(tmp_path / "outside")
    (root / "latest.parquet").symlink_to("x/b.parquet")
    (root / "again").symlink_to("x")
    (root / "loop").symlink_to(root)
    (root / "broken.parquet").symlink_to("gone.parquet")
    (root / "self.parquet").symlink_to("self.parquet")
    (root / "archived.parquet").symlink_to("_archive/c.parquet")
    source = Source.of("data", tmp_path)
    assert found(source) == ["archived.parquet", "x/b.parquet"]
    told = reasons(source)
    assert "a link out of the source" in told["out.parquet"]
    assert "a link out of the source" in told["outdir"]
    assert "which counts already" in told["latest.parquet"]
    assert "not followed" in told["again"]
    assert "not followed" in told["loop"]
    assert "leads nowhere" in told["broken.parquet"]
    assert "leads nowhere" in told["self.parquet"]


def test_a_root_behind_a_link_is_a_root_like_any_other(tmp_path):
    touch(tmp_path, "disk/a.parquet")
    (tmp_path / "disk/b.parquet").symlink_to("a.parquet")
    (tmp_path / "data").symlink_to("disk")
    source = Source.of("data", tmp_path)
    assert found(source) == ["a.parquet"]
    assert "counts already" in reasons(source)["b.parquet"]


def test_a_source_that_names_a_link_follows_it(tmp_path):
    touch(tmp_path, "outside/2024.parquet", "parts/p.parquet")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/now.parquet").symlink_to(tmp_path / "outside/2024.parquet")
    (tmp_path / "data/all.parquet").symlink_to(tmp_path / "parts")
    assert found(Source.of("data/now.parquet", tmp_path)) == ["now.parquet"]
    assert found(Source.of("data/all.parquet", tmp_path)) == ["all.parquet/p.parquet"]


def test_links_may_lead_out_of_the_root_where_the_definitions_say_so(tmp_path):
    """Each file counts once, whatever leads to it; a link back into itself is not walked for ever."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    root.mkdir()
    for name in ("a", "deep/b", "deep/c"):
        (outside / f"{name}.parquet").write_bytes(b"PAR1")
    (tmp_path / "beside.parquet").write_bytes(b"PAR1")
    (root / "a.parquet").symlink_to(outside / "a.parquet")
    (root / "again.parquet").symlink_to(outside / "a.parquet")
    (root / "folder").symlink_to(outside)
    (outside / "deep/loop").symlink_to(outside)
    (outside / "deep/up").symlink_to(tmp_path)
    assert Source.of("root", tmp_path).scan().files == ()
    found = Source.of("root", tmp_path, follow=True).scan()
    assert [file.path for file in found.files] == [
        "a.parquet",
        "folder/deep/b.parquet",
        "folder/deep/c.parquet",
    ]


def test_stats_that_are_as_they_were_are_the_very_same(tmp_path):
    for place in ("a.parquet", "deep/b.parquet", "c.parquet"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / place).write_bytes(b"PAR1")
    source = Source.of("in/", tmp_path)
    before = source.scan().stats
    (tmp_path / "in" / "a.parquet").write_bytes(b"longer")
    (tmp_path / "in" / "c.parquet").rename(tmp_path / "in" / "d.parquet")
    now = source.scan(before).stats
    assert now == source.scan().stats
    assert now.keys() == {"a.parquet", "deep/b.parquet", "d.parquet"}
    assert {path for path, stat in now.items() if before.get(path) is stat} == {"deep/b.parquet"}
