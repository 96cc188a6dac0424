"""The store in a bucket on real servers: the shared contract on each, and servers that cannot hold a store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from mlforge import get_training_data
from mlforge.errors import StoreError, UnsupportedStore
from mlforge.metrics import Rolling
from mlforge.store import ObjectStore, Store
from mlforge.testing.store_contract import StoreContract
from mlforge.testing.store_values import FIRST, publish
from tests.support.gcp_emulator import gcp_storage_emulator
from tests.support.gcs_server import GoogleServer, google
from tests.support.npm_servers import AzureServer, azurite, s3rver
from tests.support.object_servers import BUCKET, Careless, Server, careless, crowded, moto, seaweed
from tests.support.projects import Project, at, rows


@pytest.fixture(scope="module")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="module")
def moto_server() -> Iterator[Server]:
    with moto() as server:
        yield server


@pytest.fixture(scope="module")
def google_server() -> Iterator[GoogleServer]:
    with google() as server:
        yield server


@pytest.fixture(scope="module")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    with azurite(tmp_path_factory.mktemp("azurite"), BUCKET) as server:
        yield server


class _OnAServer(StoreContract):
    """Each time that the store is opened again it is on another machine, whose cache is empty."""

    server: Server | GoogleServer | AzureServer
    scheme = "s3"

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        for name, value in self.server.environment.items():
            monkeypatch.setenv(name, value)  # as a tool finds it that reads a location
        self.folder, self.machines = tmp_path, 0
        self.url = f"{self.scheme}://{BUCKET}/{uuid.uuid4().hex}"
        return self.on(tmp_path / "first")

    def on(self, cache: Path) -> ObjectStore:
        return ObjectStore(self.url, cache, self.server.options, grace="1ms")

    def again(self, store: Store) -> Store:
        self.machines += 1
        return self.on(self.folder / str(self.machines))

    def beside(self, store: Store) -> Store:
        assert isinstance(store, ObjectStore)
        return self.on(store.cache.parent)

    def damage(self, file: str, hash_: str) -> None:
        pytest.skip("shown with a bucket in memory")


@pytest.mark.slow
class TestOnSeaweed(_OnAServer):
    @pytest.fixture(autouse=True)
    def of(self, seaweed_server: Server) -> None:
        self.server = seaweed_server


@pytest.mark.slow
class TestOnMoto(_OnAServer):
    @pytest.fixture(autouse=True)
    def of(self, moto_server: Server) -> None:
        self.server = moto_server


@pytest.mark.slow
class TestOnGoogle(_OnAServer):
    scheme = "gs"

    @pytest.fixture(autouse=True)
    def of(self, google_server: GoogleServer) -> None:
        self.server = google_server

    def read_location(self, location: str) -> pl.DataFrame:
        # Left to itself polars looks for credentials of Google's own tools.
        options = {**self.server.options, "allow_http": "true"}
        return pl.read_parquet(location, storage_options=options, credential_provider=None)


@pytest.mark.slow
class TestOnAzure(_OnAServer):
    scheme = "az"

    @pytest.fixture(autouse=True)
    def of(self, azure_server: AzureServer) -> None:
        self.server = azure_server


def test_a_server_that_ignores_conditions_is_refused_by_name(tmp_path):
    with careless() as server:
        store = ObjectStore(f"s3://{BUCKET}/shop", tmp_path, server.options)
        with pytest.raises(
            UnsupportedStore, match=r"s3://bucket/shop: its server ignores If-None-Match"
        ):
            publish(store, FIRST, 1)


@pytest.mark.slow
def test_a_machine_whose_cache_is_empty_asks_for_many_small_partials_at_once(
    moto_server: Server, tmp_path: Path
) -> None:
    url, many = f"s3://{BUCKET}/{uuid.uuid4().hex}", 40
    project = Project(tmp_path / "p")
    project.store = ObjectStore(url, tmp_path / "first", moto_server.options)
    for day in range(many):
        project.drop(f"{day:02}", rows((1, day, 1.0)))
    project.build(project.define(metrics=[Rolling("90d", {"amount": ["sum", "last_50"]})]))
    with crowded(moto_server, "/_partials/", least=24) as (server, crowd):
        cold = ObjectStore(url, tmp_path / "second", server.options)
        spine = pl.DataFrame({"user_id": [1], "at": [at(many)]})
        values = get_training_data(spine, ["spend"], cold)
    assert 24 <= crowd.most <= 32
    assert values.equals(get_training_data(spine, ["spend"], project.store))
    assert values["spend__amount__sum__90d"].to_list() == [float(many)]


@pytest.mark.slow
def test_s3rver_is_refused_by_name_as_it_ignores_conditions(tmp_path):
    with s3rver(tmp_path / "s3rver", BUCKET) as endpoint:
        options = {
            **Server(endpoint).options,
            "aws_access_key_id": "S3RVER",
            "aws_secret_access_key": "S3RVER",
        }
        store = ObjectStore(f"s3://{BUCKET}/shop", tmp_path / "cache", options)
        with pytest.raises(UnsupportedStore, match=r"s3://bucket/shop: its server ignores If-"):
            publish(store, FIRST, 1)
        assert store.features() == []


@pytest.mark.slow
def test_gcp_storage_emulator_is_refused_by_name_as_it_can_keep_to_no_condition(tmp_path):
    (tmp_path / "emulator").mkdir()
    with gcp_storage_emulator(tmp_path / "emulator", BUCKET) as endpoint:
        options = {"google_base_url": endpoint, "google_bearer_token": "token"}
        store = ObjectStore(f"gs://{BUCKET}/shop", tmp_path / "cache", options)
        with pytest.raises(UnsupportedStore, match="does not tell the state of what it writes"):
            publish(store, FIRST, 1)
        assert store.pointer("spend") is None


def test_credentials_of_aws_are_found_in_a_profile(tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text(
        "[shop]\naws_access_key_id = profile-key\naws_secret_access_key = x\n"
    )
    for name, value in (
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials")),
        ("AWS_PROFILE", "shop"),
    ):
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with careless() as server:
        options = {"aws_endpoint": server.endpoint, "aws_region": "us-east-1"}
        store = ObjectStore(f"s3://{BUCKET}/shop", tmp_path / "cache", options)
        assert store.pointer("spend") is None
        assert "Credential=profile-key/" in Careless.authorizations[-1]
        monkeypatch.setenv("AWS_PROFILE", "other")
        store = ObjectStore(f"s3://{BUCKET}/shop", tmp_path / "cache", options)
        with pytest.raises(StoreError, match=r"boto3 finds no credentials.*other"):
            store.pointer("spend")
