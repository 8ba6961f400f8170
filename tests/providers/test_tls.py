"""TLS settings, judged by a handshake with Python's own server side."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from providers.errors import CredentialsInvalid
from providers.options import Tls
from providers.tls import client_context

HOST = "kms.test"


def certificate(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate for HOST that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    )
    (folder / f"{name}.key").chmod(0o600)
    return folder / f"{name}.crt", folder / f"{name}.key"


def tls(settings: dict[str, str]) -> Tls:
    return Tls.model_validate(settings)


def server(folder: Path, *, ask_for: Path | None = None, at_most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder, "server"))
    if at_most:
        context.maximum_version = at_most
    if ask_for:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ask_for)
    return context


def shake(client: ssl.SSLContext, server: ssl.SSLContext, host: str = HOST) -> str | None:
    """The version that both agree on, over two memory buffers. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].version()


def test_a_private_authority_is_trusted_and_no_other(tmp_path: Path) -> None:
    peer = server(tmp_path)
    assert shake(client_context(tls({"caFile": "server.crt"}), tmp_path), peer) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client_context(tls({}), tmp_path), peer)


def test_the_name_is_checked(tmp_path: Path) -> None:
    peer = server(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client_context(tls({"caFile": "server.crt"}), tmp_path), peer, "other.test")


def test_versions(tmp_path: Path) -> None:
    peer = server(tmp_path, at_most=ssl.TLSVersion.TLSv1_2)
    assert shake(client_context(tls({"caFile": "server.crt"}), tmp_path), peer) == "TLSv1.2"
    with pytest.raises(ssl.SSLError):
        shake(client_context(tls({"caFile": "server.crt", "minimumVersion": "1.3"}), tmp_path), peer)
    assert client_context(tls({}), tmp_path).minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    ours, key = certificate(tmp_path, "client")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.read_bytes() + key.read_bytes())
    both.chmod(0o600)
    peer = server(tmp_path, ask_for=ours)
    for settings in (
        tls({"caFile": "server.crt", "certificateFile": "client.crt", "keyFile": "client.key"}),
        tls({"caFile": "server.crt", "certificateFile": "both.pem"}),
    ):
        assert shake(client_context(settings, tmp_path), peer)
    with pytest.raises(ssl.SSLError):
        shake(client_context(tls({"caFile": "server.crt"}), tmp_path), peer)


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    ours, key = certificate(tmp_path, "client")
    key.chmod(0o640)
    (tmp_path / "both.pem").write_bytes(ours.read_bytes() + key.read_bytes())
    (tmp_path / "both.pem").chmod(0o644)
    for settings in ({"certificateFile": "client.crt", "keyFile": "client.key"}, {"certificateFile": "both.pem"}):
        with pytest.raises(CredentialsInvalid, match="chmod 600"):
            client_context(tls(settings), tmp_path)


def test_session_secrets_are_logged_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    peer = server(tmp_path)
    assert shake(client_context(tls({"caFile": "server.crt"}), tmp_path), peer)
    logged = tmp_path / "keys"
    assert not logged.exists() or "CLIENT" not in logged.read_text()


def test_files_that_cannot_work_are_told_apart_from_a_server_that_does_not(tmp_path: Path) -> None:
    certificate(tmp_path, "one")
    certificate(tmp_path, "two")
    certificate(tmp_path, "locked", password=b"passphrase")
    (tmp_path / "text").write_text("not PEM")
    (tmp_path / "one.crt").chmod(0o600)
    for settings in (
        tls({"caFile": "absent"}),
        tls({"caFile": "text"}),
        tls({"certificateFile": "one.crt", "keyFile": "two.key"}),
        tls({"certificateFile": "one.crt"}),
        tls({"certificateFile": "locked.crt", "keyFile": "locked.key"}),
    ):
        with pytest.raises(CredentialsInvalid, match=r"hsm\.connection\.tls"):
            client_context(settings, tmp_path)
