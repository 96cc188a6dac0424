"""TLS of the server: the certificate that it shows, and the authority of those that its callers have to show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from mlforge.core.certificates import show, trust
from mlforge.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. clients: the authorities that vouch for callers' certificates; None takes callers without one."""

    certificate: Path
    key: Path
    clients: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The context of a server, TLS 1.2 at least; DefinitionError for files that do not serve."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        show(context, self.certificate, self.key)
        if self.clients is not None:
            trust(context, self.clients)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def tls_of(certificate: str | None, key: str | None, clients: str | None) -> Tls | None:
    """TLS as the command line names its files; None for none. DefinitionError for some that are of no use alone."""
    if certificate is None and key is None:
        if clients is not None:
            raise DefinitionError(
                "--client-ca asks callers for certificates, which plain HTTP has none of: give --tls-cert and --tls-key, too"
            )
        return None
    if certificate is None or key is None:
        missing, other = ("cert", "key") if certificate is None else ("key", "cert")
        raise DefinitionError(f"--tls-{other} needs --tls-{missing} beside it, a file in PEM")
    return Tls(Path(certificate), Path(key), None if clients is None else Path(clients))
