"""The files of TLS: those that serve, and in what words others are refused, at the server and at its clients."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mlforge.cli import main
from mlforge.client import AsyncClient, Client
from mlforge.errors import DefinitionError
from mlforge.serve.tls import Tls
from tests.support.certificates import Authority, Pair


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a certificate for `here`, one for `other`, and files that are neither."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "ca")
    authority.issue("here")
    key = load_pem_private_key(authority.issue("other").key.read_bytes(), None)
    secret = BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    (folder / "encrypted.key").write_bytes(encrypted)
    (folder / "text.pem").write_text("no certificate")
    (folder / "empty.pem").touch()
    (folder / "folder").mkdir()
    return folder


def test_callers_show_a_certificate_where_an_authority_is_named(files: Path) -> None:
    pair = Pair(files / "here.pem", files / "here.key")
    plain = Tls(pair.certificate, pair.key).context()
    assert plain.verify_mode is ssl.CERT_NONE
    assert plain.minimum_version is ssl.TLSVersion.TLSv1_2
    asking = Tls(pair.certificate, pair.key, files / "ca.pem").context()
    assert asking.verify_mode is ssl.CERT_REQUIRED
    assert len(asking.get_ca_certs()) == 1


PAIRS = [
    ("none.pem", "here.key", "none.pem cannot be read: No such file"),
    ("here.pem", "none.key", "none.key cannot be read: No such file"),
    ("folder", "here.key", "folder cannot be read: Is a directory"),
    ("a\0b", "here.key", "cannot be read"),
    ("here.pem", "other.key", "are no certificate in PEM with the key that belongs to it"),
    ("text.pem", "here.key", "are no certificate in PEM"),
    ("here.key", "here.pem", "are no certificate in PEM"),
    ("empty.pem", "empty.pem", "are no certificate in PEM"),
    ("other.pem", "encrypted.key", "encrypted.key is encrypted"),
]


@pytest.mark.parametrize(("certificate", "key", "said"), PAIRS)
def test_a_certificate_without_its_key_is_refused_in_words(
    files: Path, certificate: str, key: str, said: str
) -> None:
    with pytest.raises(DefinitionError) as at_server:
        Tls(files / certificate, files / key).context()
    for kind in (Client, AsyncClient):
        with pytest.raises(DefinitionError) as at_client:
            kind("https://here", cert=(files / certificate, str(files / key)))
        assert said in str(at_server.value)
        assert str(at_client.value) == str(at_server.value)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("none.pem", "none.pem cannot be read: No such file"),
        ("text.pem", "text.pem holds no certificate of an authority"),
        ("empty.pem", "empty.pem holds no certificate of an authority"),
        ("here.key", "here.key holds no certificate of an authority"),
    ],
)
def test_a_file_without_an_authority_is_refused_in_words(files: Path, file: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Tls(files / "here.pem", files / "here.key", files / file).context()
    with pytest.raises(DefinitionError, match=said):
        Client("https://here", verify=files / file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tls-cert", "here.pem"], "--tls-cert needs --tls-key beside it"),
        (["--tls-key", "here.key"], "--tls-key needs --tls-cert beside it"),
        (["--client-ca", "ca.pem"], "give --tls-cert and --tls-key, too"),
        (["--tls-cert", "here.pem", "--tls-key", "none.key"], "none.key cannot be read"),
        (["--tls-cert", "", "--tls-key", "here.key"], "is a variable of the command line unset?"),
    ],
)
def test_a_server_does_not_start_with_files_that_do_not_serve(
    files: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    assert main(["serve", *options]) != 0
    assert said in " ".join(capsys.readouterr().err.split())
