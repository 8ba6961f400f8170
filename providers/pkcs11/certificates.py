"""The files by which a network HSM knows this machine. Its own client reads them; here they are checked, so that what
is wrong with them is said in words before the client answers with a number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from providers.errors import CredentialsInvalid, NotFound
from providers.pkcs11.options import CertificateData
from providers.private_file import read_private
from providers.wiping import wipe

_MOST_BYTES = 65_536


def check_files(data: CertificateData, base: Path) -> datetime:
    """Returns when the client certificate ends.

    Raises NotFound, Denied, CredentialsInvalid: missing, readable by others, expired, or not belonging together.
    """
    certificate = _certificate(base / data.certificate_file, "client certificate")
    if data.ca_file is not None:
        _certificate(base / data.ca_file, "HSM's certificate")
    if data.key_file is not None:
        _check_key(base / data.key_file, certificate)
    return certificate.not_valid_after_utc


def _certificate(path: Path, what: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"the {what} {path} is missing: restore it, or register this machine anew") from error
    except (OSError, ValueError) as error:
        raise CredentialsInvalid(f"the {what} {path} is no readable PEM certificate: restore it") from error
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CredentialsInvalid(
            f"the {what} {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d} alone: make a new one and register it with the HSM"
        )
    return certificate


def _check_key(path: Path, certificate: x509.Certificate) -> None:
    content = read_private(path, "client key", "restore it, or register this machine anew", limit=_MOST_BYTES)
    try:
        key = load_pem_private_key(content, password=None)
    except (TypeError, ValueError) as error:
        raise CredentialsInvalid(f"the client key {path} is no PEM key without a passphrase: restore it") from error
    finally:
        wipe(content)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise CredentialsInvalid(f"the client key {path} does not belong to the client certificate: restore the pair")
