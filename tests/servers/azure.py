"""The Azure test server, with a private authority, a registered application and its key-encryption key."""

from __future__ import annotations

import datetime
import ipaddress
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.servers import Served

ROOT: Final = Path(__file__).parents[2]
CLIENT_ID: Final = "0a1b2c3d-0000-4000-8000-000000000001"
CLIENT_SECRET: Final = "Q~application-secret-8Q~"
AUDIENCES: Final = {"vault": "https://vault.azure.net", "hsm": "https://managedhsm.azure.net"}
KEYS: Final[Mapping[str, Mapping[str, dict[str, Any]]]] = {
    "vault": {
        "keyside": {"kty": "RSA-HSM", "key_size": 2048, "key_ops": ["wrapKey", "unwrapKey"]},
        "keyside-signing": {"kty": "EC-HSM", "crv": "P-256", "key_ops": ["sign", "verify"]},
    },
    "hsm": {"keyside": {"kty": "oct-HSM", "key_size": 256, "key_ops": ["encrypt", "decrypt", "wrapKey", "unwrapKey"]}},
}


@dataclass(frozen=True)
class AzureServed(Served):
    """A running vault, and the hand of an administrator on it."""

    kind: str = "vault"
    folder: Path = Path()
    urls: Mapping[str, str] = field(default_factory=dict)

    def do(self, command: str, **arguments: Any) -> Any:
        """Run one command of tests/fakes/azure/control.py."""
        content = json.dumps({"command": command, "arguments": arguments}).encode()
        request = urllib.request.Request(
            self.urls["control"] + "/control", content, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["result"]

    def data(self, **credentials: object) -> dict[str, object]:
        """`credentials.data` with what every kind of credentials needs for a cloud that is not Azure's own."""
        return {"audience": AUDIENCES[self.kind], "authority": self.urls["authority"], **credentials}

    def reset(self) -> None:
        """No faults, every permission, new keys."""
        self.do("calm")
        self.do("permit", client_id=CLIENT_ID, permissions=None)
        self.do("register", client_id=CLIENT_ID, secret=CLIENT_SECRET)
        for name, body in KEYS[self.kind].items():
            self.do("forget", name=name)
            self.do("create", name=name, body=body)


@contextmanager
def serve(folder: Path, kind: str = "vault", latency: float = 0.0) -> Iterator[AzureServed]:
    """Run a vault (`vault`) or a Managed HSM (`hsm`), each request taking at least `latency` seconds."""
    make_authority(folder)
    command = [sys.executable, "-m", "tests.fakes.azure", str(folder), "--kind", kind, "--latency", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        try:
            served = _served(folder, kind, json.loads(process.stdout.readline()))
            served.reset()
            yield served
        finally:
            process.kill()


def _served(folder: Path, kind: str, urls: dict[str, str]) -> AzureServed:
    served = AzureServed({}, {}, kind, folder, urls)
    data = served.data(tenantId=urls["tenant"], clientId=CLIENT_ID, clientSecret=CLIENT_SECRET)
    hsm = {
        "provider": "AZURE_KEY_VAULT",
        "connection": {"endpoint": urls["vault"], "tls": {"caFile": str(folder / "ca.pem")}},
        "credentials": {"type": "SERVICE_PRINCIPAL", "data": data},
    }
    return AzureServed(hsm, {}, kind, folder, urls)


def make_authority(folder: Path) -> None:
    """Write ca.pem and server.pem (certificate and key for 127.0.0.1) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Test authority")
    authority_certificate = (
        _builder(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        _builder(_name("127.0.0.1"), issuer, leaf.public_key())
        .add_extension(x509.SubjectAlternativeName([address, x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(_pem(authority_certificate))
    (folder / "server.pem").write_bytes(_pem(certificate) + private_pem(leaf))
    (folder / "server.pem").chmod(0o600)


def make_client_certificate(path: Path, password: bytes | None = None) -> str:
    """Write a self-signed certificate with its RSA key into `path`; returns the certificate's PEM for `register`."""
    key = rsa.generate_private_key(65537, 2048)
    certificate = _builder(_name("keyside"), _name("keyside"), key.public_key()).sign(key, hashes.SHA256())
    path.write_bytes(private_pem(key, password) + _pem(certificate))
    path.chmod(0o600)
    return _pem(certificate).decode()


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    """PKCS#8."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
