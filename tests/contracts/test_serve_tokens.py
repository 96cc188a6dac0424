"""Tokens of an OpenID issuer in place of keys: an issuer of this machine signs them, and a server of TLS tells its keys."""

from __future__ import annotations

import asyncio
import hmac
import json
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import trustme
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from mlforge.errors import DefinitionError
from mlforge.serve.access import keys, oidc
from mlforge.serve.access.keys import Admission, ApiKey
from mlforge.serve.access.keys_file import keys_in
from mlforge.serve.problems import Refused

PATH = "/v1/services/checkout"
SERVICES = {"checkout": None, "refunds": None}


class LocalIssuer:
    """An issuer: its configuration and its keys over TLS, and tokens that it signs."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "first"})]
        self.asked: list[str] = []
        self.is_away = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("location", "/keys")
                    self.end_headers()
                    return
                documents = {
                    "/.well-known/openid-configuration": {
                        "issuer": issuer.url,
                        "jwks_uri": f"{issuer.url}/keys",
                    },
                    "/keys": {"keys": [key.as_dict(private=False) for key in issuer.keys]},
                }
                self.send_response(503 if issuer.is_away else 200)
                self.end_headers()
                self.wfile.write(json.dumps(documents.get(self.path)).encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def token(self, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token for ann, of the group risk; a claim that is None is left out."""
        key = key or self.keys[0]
        known = {"iss": self.url, "aud": "features", "sub": "ann", "exp": time.time() + 300}
        every = {**known, "groups": ["risk", "staff"], **claims}
        told = {name: value for name, value in every.items() if value is not None}
        alg = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519", "oct": "HS256"}[key.key_type]
        head = {"alg": alg, **({"kid": key.kid} if key.kid else {}), **(header or {})}
        return jwt.encode(head, told, key, algorithms=[alg])


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIssuer]:
    local = LocalIssuer(tmp_path_factory.mktemp("issuer"))
    yield local
    local.server.shutdown()
    local.server.server_close()


def admission_of(folder: Path, issuer: LocalIssuer, further: str = "") -> Admission:
    file = folder / "keys.toml"
    file.write_text(
        f'[risk]\nissuer = "{issuer.url}"\naudience = "features"\nca = "{issuer.ca}"\nper_second = 3\n'
        f'services = ["checkout"]\nclaims = {{ groups = "risk" }}\n{further}'
    )
    return Admission(keys_in(file, SERVICES))


def encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).decode().rstrip("=")


def holder(admission: Admission, token: str, path: str = PATH) -> ApiKey:
    """The holder that a request is let in for."""
    scope = {"path": path, "headers": [(b"authorization", f"Bearer {token}".encode())]}
    asyncio.run(admission.check(scope))
    return scope["mlforge.key"]  # type: ignore[return-value]


def asked(admission: Admission, token: str, path: str = PATH) -> str:
    """The name of the holder that a request is let in for, or the reason why it is refused."""
    try:
        return holder(admission, token, path).name
    except Refused as refused:
        return f"{refused.problem.status} {refused.problem.reason}: {refused.problem.detail}"


def test_a_list_of_claims_asks_for_each_of_its_values() -> None:
    entry = ApiKey("staff", "", claims={"groups": ["risk", "eu"]})
    assert entry.fits({"groups": ["eu", "staff", "risk"]})
    for groups in (["risk"], "risk", [], None):
        assert not entry.fits({"groups": groups})


def test_a_token_that_its_issuer_vouches_for_is_let_in_for_what_its_claims_allow(
    issuer: LocalIssuer, tmp_path: Path
) -> None:
    all_of_it = f'[all]\nissuer = "{issuer.url}"\naudience = "everything"\nca = "{issuer.ca}"\n'
    admission = admission_of(tmp_path, issuer, all_of_it)
    before = len(issuer.asked)
    token = issuer.token()
    assert [asked(admission, token) for _ in range(3)] == ["risk/ann"] * 3
    assert asked(admission, token).startswith("429 too_many_requests: risk/ann may ask 3 times")
    assert asked(admission, issuer.token(sub="bob")) == "risk/bob", "rates are of each subject"
    assert issuer.asked[before:] == ["/.well-known/openid-configuration", "/keys"], "asked once"
    bob = issuer.token(sub="bob")
    assert asked(admission, bob, "/v1/services/refunds").startswith("403 not_allowed")
    assert asked(admission, issuer.token(groups="risk", sub="cy")) == "risk/cy"
    assert asked(admission, issuer.token(aud=["x", "everything"], groups=None)) == "all/ann"
    soon = int(time.time()) + 300
    assert holder(admission, issuer.token(sub="dee", exp=soon)).until == soon + oidc.LEEWAY_S
    for groups in (["staff"], None, "risks", {"risk": 1}):
        assert asked(admission, issuer.token(groups=groups)).startswith("403 not_allowed"), groups


def test_a_token_that_proves_nothing_is_refused(issuer: LocalIssuer, tmp_path: Path) -> None:
    admission = admission_of(tmp_path, issuer)
    stranger = RSAKey.generate_key(2048, {"kid": "first"})
    header, claims, signature = issuer.token().split(".")
    head = encoded(b'{"alg":"HS256","kid":"first"}')
    signed = f"{head}.{claims}"
    secret = issuer.keys[0].as_pem(private=False)  # which everybody knows
    mac = hmac.digest(secret, signed.encode(), "sha256")
    with_public = f"{signed}.{encoded(mac)}"
    unsigned = f"eyJhbGciOiJub25lIn0.{claims}."
    for token, said in (
        (issuer.token(stranger), "bad_signature"),
        (issuer.token(RSAKey.generate_key(2048, {"kid": "x"})), "a key that its issuer has not"),
        (with_public, "unsupported_algorithm"),
        (unsigned, "not taken"),
        (f"{header}.{claims}.{signature[:-6]}AAAAAA", "bad_signature"),
        (f"{header}.{claims}.", "bad_signature"),
        (issuer.token(exp=time.time() - 120), "expired"),
        (issuer.token(exp=None), "'exp'"),
        (issuer.token(exp="tomorrow"), "'exp'"),
        (issuer.token(nbf=time.time() + 600), "not yet valid"),
        (issuer.token(aud="another"), "'aud'"),
        (issuer.token(sub=None), "'sub'"),
    ):
        told = asked(admission, token)
        assert told.startswith("401 unfit_token"), told
        assert said in told
    for token in ("", "a.b.c", "....", "e30.e30.e30", issuer.token(iss="https://evil.example")):
        assert asked(admission, token).startswith("401 unknown_key"), token
    assert asked(admission, issuer.token(exp=time.time() - 30)) == "risk/ann", "clocks differ"


def test_keys_of_other_kinds_and_keys_that_change_are_taken_up(
    issuer: LocalIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "AGAIN_S", 0.0)
    admission = admission_of(tmp_path, issuer)
    assert asked(admission, issuer.token(sub="a")) == "risk/a"
    former = issuer.keys
    fresh = [
        ECKey.generate_key("P-256", {"kid": "ec"}),
        OKPKey.generate_key("Ed25519", {"kid": "ed"}),
    ]
    issuer.keys = [*fresh, OctKey.generate_key(256, {"kid": "oct"}), RSAKey.generate_key(2048)]
    try:
        for key in (*fresh, issuer.keys[3]):
            assert asked(admission, issuer.token(key, sub=key.key_type)) == f"risk/{key.key_type}"
        assert asked(admission, issuer.token(issuer.keys[2], sub="b")).startswith("401 unfit_token")
        assert asked(admission, issuer.token(former[0], sub="c")).startswith("401 unfit_token")
        issuer.is_away = True
        assert asked(admission, issuer.token(fresh[0], sub="d")) == "risk/d", "known keys serve on"
        other = admission_of(tmp_path, issuer)
        assert asked(other, issuer.token(fresh[0])).startswith("503 issuer_unavailable")
    finally:
        issuer.keys, issuer.is_away = former, False
    assert asked(other, issuer.token()) == "risk/ann", "once it is back"


def test_a_file_of_authorities_takes_the_place_of_those_of_the_system(issuer: LocalIssuer) -> None:
    context = oidc.Issuer(issuer.url, "features", None, issuer.ca).context()
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_keys_come_from_where_they_were_said_to_be_and_are_those_that_sign(
    issuer: LocalIssuer,
) -> None:
    def keys_of(url: str, jwks: str | None = None) -> list[Any]:
        return oidc.Issuer(url, "features", jwks, issuer.ca).keys()

    assert len(keys_of(issuer.url)) == 1
    with pytest.raises(ValueError, match="it calls itself"):
        keys_of(f"{issuer.url}/")
    with pytest.raises(HTTPError, match="302") as moved:
        keys_of(issuer.url, f"{issuer.url}/moved")
    assert moved.value.closed
    encrypts = {**issuer.keys[0].as_dict(private=False), "use": "enc"}
    with pytest.raises(ValueError, match="no key that signs"):
        oidc._public_keys({"keys": [encrypts]})


def test_a_token_is_taken_no_longer_than_its_issuer_has_its_key(issuer: LocalIssuer) -> None:
    started, passed = time.time(), 0.0
    tokens = oidc.Tokens(clock=lambda: passed, now=lambda: started + passed)
    at = oidc.Issuer(issuer.url, "features", None, issuer.ca)
    token = issuer.token(exp=started + 10 * oidc.FRESH_S).encode()
    taken = asyncio.run(tokens.taken(token, at))
    assert (taken.claims["sub"], taken.until) == ("ann", started + oidc.FRESH_S)
    former, issuer.keys = issuer.keys, [RSAKey.generate_key(2048, {"kid": "second"})]
    try:
        passed = oidc.FRESH_S + 1
        with pytest.raises(Refused) as refused:
            asyncio.run(tokens.taken(token, at))
        assert refused.value.problem.status == 401
    finally:
        issuer.keys = former


def test_allowances_of_subjects_that_have_gone_take_no_room(
    issuer: LocalIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MANY", 5)
    admission, now = admission_of(tmp_path, issuer), 100.0
    admission._clock = lambda: now
    for subject in range(4):
        assert asked(admission, issuer.token(sub=f"s{subject}")) == f"risk/s{subject}"
    token = issuer.token(sub="busy")
    assert [asked(admission, token)[:4] for _ in range(4)] == ["risk"] * 3 + ["429 "]
    now += 0.5
    assert asked(admission, issuer.token(sub="next")) == "risk/next"
    assert len(admission._allowances) == 2, "the next one's, and that of the busy one"
    assert [asked(admission, token)[:4] for _ in range(2)] == ["risk", "429 "]


def test_a_token_that_names_no_key_is_refused_for_what_is_wrong_with_it(
    issuer: LocalIssuer, tmp_path: Path
) -> None:
    signs, other = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    former, issuer.keys = issuer.keys, [signs, other]
    try:
        admission = admission_of(tmp_path, issuer)
        assert asked(admission, issuer.token(signs)) == "risk/ann"
        assert "expired" in asked(admission, issuer.token(signs, exp=time.time() - 120))
    finally:
        issuer.keys = former


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('issuer = "http://login.example"\naudience = "a"', "over https:// alone"),
        ('issuer = "https://login.example"', "audience is None; write a text"),
        ('issuer = "https://login.example"\naudience = "a"\njwks = "ftp://x"', "jwks is 'ftp://x'"),
        ('issuer = "https://login.example"\naudience = "a"\nca = "none.pem"', "none.pem"),
        ('issuer = "https://login.example"\naudience = "a"\nclaims = "x"', "claims is 'x'"),
        ('issuer = "https://login.example"\naudience = "a"\nclaims = {g = []}', "nothing of 'g'"),
        ('issuer = "https://login.example"\naudience = "a"\nsha256 = "x"', "no field 'sha256'"),
        ('issuer = 3\naudience = "a"', "issuer is 3"),
    ],
)
def test_an_entry_that_is_not_understood_ends_the_start(
    tmp_path: Path, lines: str, said: str
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f"[staff]\n{lines}\n")
    with pytest.raises(DefinitionError, match=said):
        keys_in(file, SERVICES)
