"""`mlforge.toml`: profiles of a project, and who gets which."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import polars as pl
import pytest

from mlforge.cli import main
from mlforge.definitions.loader import load, load_as_written
from mlforge.definitions.profiles import Profile, profile_in
from mlforge.errors import DefinitionError
from mlforge.online import RedisStore
from worker.project import Settings

SECRET = "s3cr3t-p4ss"
DEFINITIONS = """
from mlforge import Definitions, feature
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="users.parquet")
def profile(df):
    return df

defs = Definitions(
    LocalStore("store"), [profile], RedisStore(host="localhost", port=1, ttl=60, prefix="dev"), name="shop"
)
"""
TOML = """
[profiles.dev]

[profiles.staging]
store = "staging/store"
root = "${DATA}/in"

[profiles.prod]
store = "${PROD_STORE}"
online_store = "redis://:${PROD_PASSWORD}@prod:6379/0"

[profiles.other]
online_store = {url = "redis://other/0", ttl = 5, prefix = "${PREFIX}q", layout = "packed"}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("MLFORGE_DEFINITIONS", "MLFORGE_PROFILE", "REDIS_URL", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "mlforge.toml").write_text(TOML)
    pl.DataFrame({"user_id": [1]}).write_parquet(tmp_path / "users.parquet")
    return tmp_path


def refused(folder: Path, toml: str, name: str | None = None, **environment: str) -> str:
    (folder / "mlforge.toml").write_text(toml)
    with pytest.raises(DefinitionError) as caught:
        profile_in(folder, name, environment)
    return str(caught.value).replace(str(folder), "")


def test_without_a_file_or_a_choice_everything_is_as_written(folder: Path) -> None:
    assert profile_in(folder, None) is None
    with_file = load(None, here=folder)
    (folder / "mlforge.toml").unlink()
    without = load(None, here=folder)
    assert with_file.hash == without.hash == load_as_written(None, here=folder).hash
    assert str(with_file.store) == str(without.store) == f"LocalStore('{folder}/store')"
    with pytest.raises(DefinitionError, match=r"no profile 'prod': no mlforge\.toml lies beside"):
        load(None, here=folder, profile="prod")


def test_a_profile_moves_stores_and_root_and_leaves_what_it_does_not_give(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", "/srv")
    monkeypatch.setenv("PROD_STORE", "/srv/store")
    monkeypatch.setenv("PROD_PASSWORD", SECRET)
    monkeypatch.setenv("PREFIX", "p")
    written, dev, staging, prod, other = (
        load(None, here=folder, profile=name) for name in (None, "dev", "staging", "prod", "other")
    )
    assert dev.hash == written.hash
    assert (str(staging.store), staging.root) == (
        f"LocalStore('{folder}/staging/store')",
        Path("/srv/in"),
    )
    assert staging.source("profile").text == "users.parquet"
    assert staging.online_store is not None
    assert repr(staging.online_store) == repr(written.online_store)
    assert (str(prod.store), prod.root) == ("LocalStore('/srv/store')", folder)
    assert isinstance(prod.online_store, RedisStore)
    assert (prod.online_store.ttl, prod.online_store.prefix) == (60, "dev")
    assert SECRET not in f"{prod.online_store!r} {prod.online_store.described()}"
    assert isinstance(other.online_store, RedisStore)
    assert (other.online_store.ttl, other.online_store.prefix) == (5, "pq")
    assert (prod.online_store.layout, other.online_store.layout) == ("json", "packed")
    assert len({one.hash for one in (written, staging, prod, other)}) == 4


def test_a_profile_means_the_same_wherever_the_project_lies(folder: Path) -> None:
    hashes = set()
    for host in ("a", "b"):
        (folder / host).mkdir()
        (folder / host / "definitions.py").write_text(DEFINITIONS)
        (folder / host / "mlforge.toml").write_text('[profiles.x]\nstore = "other/store"\n')
        loaded = load(None, here=folder / host, profile="x")
        assert str(loaded.store) == f"LocalStore('{folder}/{host}/other/store')"
        hashes.add(loaded.hash)
    assert len(hashes) == 1


def test_a_file_may_have_a_default_and_a_choice_goes_before_it(folder: Path) -> None:
    (folder / "mlforge.toml").write_text(
        'default = "a"\n[profiles.a]\nstore = "a/store"\n[profiles.b]\nstore = "b/store"\n'
    )
    file = folder / "mlforge.toml"
    assert profile_in(folder, None, {}) == Profile("a", file, "a/store")
    assert profile_in(folder, "b", {}) == Profile("b", file, "b/store")
    (folder / "mlforge.toml").write_text('[profiles.c]\nstore = "$${A}${A}$$"\n')
    assert profile_in(folder, "c", {"A": "${A}"}) == Profile("c", file, "${A}${A}$")
    assert str(load_as_written(None, here=folder).store) == f"LocalStore('{folder}/store')"


def test_a_variable_that_is_not_set_is_named_and_no_value_ever_is(folder: Path) -> None:
    told = refused(folder, TOML, "prod", PROD_PASSWORD=SECRET)
    assert told == (
        "/mlforge.toml: profiles.prod: store: needs PROD_STORE, which the environment does not have; "
        "export it, or write the value itself"
    )
    assert "needs PROD_PASSWORD" in refused(folder, TOML, "prod", PROD_STORE="x", PROD_PASSWORD="")
    (folder / "mlforge.toml").write_text('[profiles.x]\nonline_store = "${URL}"\n')
    os.environ["URL"] = f"http://:{SECRET}@host"
    try:
        with pytest.raises(
            DefinitionError, match=r"profiles\.x: online_store: .*no URL of an online store"
        ) as caught:
            load(None, here=folder, profile="x")
    finally:
        del os.environ["URL"]
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("toml", "name", "said"),
    [
        ("[profiles.prod]", "prd", "there is no profile 'prd'; did you mean 'prod'?"),
        ('default = "dev"\n[profiles.prod]', None, "there is no profile 'dev'"),
        ("[profile.prod]", "prod", "unknown key 'profile'; did you mean 'profiles'?"),
        ('[profiles.a]\nonline = "x"', "a", "profiles.a: unknown key 'online'"),
        ("[profiles.a]\nstore = 1", "a", "profiles.a: store: must be a text, not a number"),
        ('[profiles.a]\nroot = ""', "a", "profiles.a: root: must be a text, not an empty one"),
        ("[profiles]\na = 1", "a", "profiles.a: must be a table, not a number"),
        ("profiles = 1", "a", "profiles: must be a table, not a number"),
        ("default = 1", None, "default: must be a text, not a number"),
        ("[profiles.a]\nonline_store = {ttl = 1}", "a", "online_store: has no url"),
        ('[profiles.a]\nonline_store = {url = "x", ttl = true}', "a", "ttl must be a number of seconds"),
        ('[profiles.a]\nonline_store = {url = "x", tls = 1}', "a", "unknown key 'tls'; did you mean 'ttl'?"),
        ('[profiles.a]\nstore = "$HOME/store"', "a", "a '$' begins neither ${NAME} nor $$"),
        ('[profiles.a]\nstore = "${HOME/store"', "a", "a '$' begins neither ${NAME} nor $$"),
        ("[profiles.a\n", "a", "cannot be read as TOML: "),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_refused_by_name(
    folder: Path, toml: str, name: str | None, said: str
) -> None:
    message = refused(folder, toml, name)
    assert message.startswith("/mlforge.toml: ")
    assert said in message


@pytest.mark.parametrize(
    "toml",
    [
        "online_store = ['URL']",
        "online_store = {url = ['URL']}",
        "online_store = {url = 'redis://host', ttl = 'URL'}",
        "online_store = {'URL' = 1}",
        "'URL' = 1",
        "store = ['URL']",
    ],
)
def test_no_message_about_a_wrong_shape_holds_a_password(folder: Path, toml: str) -> None:
    url = f"redis://:{SECRET}@host:6379/0"
    for text in (f"[profiles.a]\n{toml}", "[profiles]\na = 'URL'", "profiles = 'URL'"):
        assert SECRET not in refused(folder, text.replace("URL", url), "a")


def test_commands_take_a_profile_by_option_or_environment(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(folder))
    (folder / "in").symlink_to(folder)
    assert main(["build", "--profile", "staging"]) == 0
    assert (folder / "staging/store/profile/1.0.0").is_dir()
    assert not (folder / "store").exists()
    monkeypatch.setenv("MLFORGE_PROFILE", "staging")
    assert main(["versions", "profile"]) == 0
    assert main(["versions", "profile", "--profile", "dev"]) == 1
    capsys.readouterr()
    assert main(["versions", "profile", "--store", "staging/store", "--profile", "dev"]) == 1
    assert "give one of the two" in capsys.readouterr().err
    assert main(["versions", "profile", "--store", "staging/store"]) == 0
    environment = {"REDIS_URL": "redis://x", "MLFORGE_PROFILE": "staging"}
    assert Settings.read(environment).profile == "staging"
