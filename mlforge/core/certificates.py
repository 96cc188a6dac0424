"""Certificates of TLS: files in PEM that a process shows, and those of authorities that it trusts."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from mlforge.errors import DefinitionError

File: TypeAlias = str | Path


def show(context: ssl.SSLContext, certificate: File, key: File) -> None:
    """Let the context show a certificate, the first of its file, with those that vouch for it after it.

    Raises DefinitionError for files that cannot be read, or that are no certificate with its key.
    """
    for file in (certificate, key):
        _check_readable(file)

    def ask() -> str:
        raise DefinitionError(
            f"the key {key} is encrypted, and nobody is here to be asked: decrypt it with 'openssl pkey -in {key} -out FILE'"
        )

    try:
        context.load_cert_chain(certificate, key, ask)
    except (ssl.SSLError, ValueError) as error:
        raise DefinitionError(
            f"{certificate} and {key} are no certificate in PEM with the key that belongs to it: {_told(error)}"
        ) from None


def trust(context: ssl.SSLContext, authorities: File) -> None:
    """Let the context trust certificates that the authorities of a file vouch for; DefinitionError where it holds none."""
    _check_readable(authorities)
    try:
        context.load_verify_locations(cafile=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise DefinitionError(
            f"{authorities} holds no certificate of an authority in PEM: {_told(error)}"
        ) from None


def _check_readable(file: File) -> None:
    """Raise DefinitionError, with the file's name, which ssl leaves out."""
    try:
        Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DefinitionError(f"the certificate or key {file} cannot be read: {reason}") from None


def _told(error: Exception) -> str:
    """The reason in ssl's words, if it has any."""
    reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
    return (reason or "not PEM").lower().replace("_", " ")
