"""Addresses of buckets: where a text means a store in a bucket, and what is said where it cannot be."""

from __future__ import annotations

import sys

import pytest

from mlforge import Definitions
from mlforge.cli import main
from mlforge.errors import DefinitionError, MissingExtra
from mlforge.store import GCSStore, LocalStore, ObjectStore, S3Store
from mlforge.store.opening import store_at


@pytest.mark.parametrize("url", ["s3://bucket/store", "gs://bucket/a/b", "az://container"])
def test_an_address_means_a_store_in_a_bucket_wherever_a_store_is_named(url):
    for store in (Definitions(store=url, features=[]).store, store_at(url)):
        assert isinstance(store, ObjectStore)
        assert repr(store) == f"ObjectStore({url!r})"
    for kind in (S3Store, GCSStore):
        assert kind(url).url == url
    assert isinstance(store_at("folder"), LocalStore)


def test_a_store_at_another_address_keeps_cache_and_options(tmp_path):
    before = ObjectStore("s3://dev/store", "cache", {"aws_region": "eu-west-1"}, cache_bytes=7)
    after = store_at("s3://prod/store", before)
    assert isinstance(after, ObjectStore)
    assert (after.url, after._options) == ("s3://prod/store", {"aws_region": "eu-west-1"})
    assert after.cache != before.cache
    located = after.located_at(tmp_path)
    assert located.cache.parent == tmp_path / "cache"
    assert located._cache_bytes == 7


def test_another_text_is_no_store():
    with pytest.raises(DefinitionError, match="or the address of a bucket such as 's3://bucket"):
        Definitions(store="feature_store", features=[])


def test_the_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra, match="needs the extra 'cloud'"):
        ObjectStore("s3://bucket/store", tmp_path).features()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["versions", "spend", "--store", "s3://bucket/store"]) == 1
