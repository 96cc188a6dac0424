"""Certificates for tests: an authority, and what it vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """An authority of its own, whose certificate lies in `file`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ca, self._folder, self.file = trustme.CA(), folder, folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str) -> Pair:
        """A certificate for hosts, or for a person's address."""
        issued = self._ca.issue_cert(*names)
        pair = Pair(self._folder / f"{names[0]}.pem", self._folder / f"{names[0]}.key")
        issued.cert_chain_pems[0].write_to_path(pair.certificate)
        issued.private_key_pem.write_to_path(pair.key)
        return pair
