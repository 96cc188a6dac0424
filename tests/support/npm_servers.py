"""Servers that npm brings: azurite, which is Azure's, s3rver, which calls itself S3 and ignores conditions, and dynalite, a DynamoDB without transactions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.support.servers import await_listening, free_port

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that azurite has, and its key, which everybody knows."""


class AzureServer:
    """A running azurite, which has a container."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = f"{endpoint}/{ACCOUNT}"

    @property
    def options(self) -> dict[str, str]:
        """The configuration by which obstore finds it."""
        return {
            "azure_storage_account_name": ACCOUNT,
            "azure_storage_account_key": KEY,
            "azure_storage_endpoint": self.endpoint,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which obstore finds it."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }


@contextmanager
def azurite(folder: Path, container: str) -> Iterator[AzureServer]:
    """azurite with its data in a folder; the test is skipped where npm cannot install it."""
    port = free_port()
    words = ("azurite-blob", "--blobPort", str(port), "--location", str(folder / "data"))
    flags = ("--silent", "--disableTelemetry", "--skipApiVersionCheck")
    with _running(folder, "azurite@3", [*words, *flags], port):
        server = AzureServer(f"http://127.0.0.1:{port}")
        _make_container(server, container)
        yield server


@contextmanager
def s3rver(folder: Path, bucket: str) -> Iterator[str]:
    """The address of s3rver with its data in a folder; skipped as azurite."""
    port = free_port()
    words = ["s3rver", "--directory", str(folder / "data"), "--port", str(port), "--silent"]
    with _running(folder, "s3rver@3", [*words, "--configure-bucket", bucket], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def dynalite(folder: Path) -> Iterator[str]:
    """The address of dynalite, whose tables are in memory; skipped as azurite."""
    port = free_port()
    with _running(folder, "dynalite@4", ["dynalite", "--port", str(port)], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(folder: Path, package: str, command: Sequence[str], port: int) -> Iterator[None]:
    (folder / "data").mkdir(parents=True)
    if shutil.which("npm") is None:
        pytest.skip(f"there is no npm, which brings {package}")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), package]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install {package}: {installed.stderr[-300:]}")
    program = folder / "node_modules/.bin" / command[0]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), *command[1:]], stdout=log, stderr=log)
        try:
            await_listening(process, port, folder / "log")
            yield
        finally:
            process.kill()
            process.wait()


def _make_container(server: AzureServer, name: str) -> None:
    """A request of its own, as obstore makes no containers."""
    date = format_datetime(datetime.now(UTC), usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    signed = "".join(f"{key}:{value}\n" for key, value in headers.items())
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + signed + resource
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(
        f"{server.endpoint}/{name}?restype=container", method="PUT", headers=headers
    )
    urllib.request.urlopen(request)
