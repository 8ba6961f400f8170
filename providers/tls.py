"""The TLS settings of a connection, as Python's ssl wants them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from providers.errors import CredentialsInvalid
from providers.options import Tls
from providers.private_file import read_private
from providers.wiping import wipe

_MOST: Final = 65_536  # bytes of a certificate chain with its key
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(tls: Tls, base: Path) -> ssl.SSLContext:
    """A context that checks the server's certificate and name. Relative files are relative to `base`.

    The private key's file must be private. Raises CredentialsInvalid for files that are not, that cannot be read or do
    not fit together, NotFound and Denied.
    """
    try:
        context = ssl.create_default_context(cafile=_file(tls.ca_file, base))
        context.minimum_version = _VERSIONS[tls.minimum_version]
        # whatever SSLKEYLOGFILE says: what it writes opens recorded traffic. The stubs do not know that None is allowed
        context.keylog_filename = None  # type: ignore[assignment]
        if tls.certificate_file is not None:
            wipe(read_private(base / (tls.key_file or tls.certificate_file), "TLS key file", "restore it", limit=_MOST))
            context.load_cert_chain(base / tls.certificate_file, _file(tls.key_file, base), password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise CredentialsInvalid(
            f"the files of hsm.connection.tls cannot be used ({reason}): they must be readable PEM files, the "
            "key belonging to the certificate and without a passphrase"
        ) from error
    return context


def _file(name: str | None, base: Path) -> str | None:
    return None if name is None else str(base / name)


def _no_password() -> str:
    raise ValueError("the private key has a passphrase")  # instead of OpenSSL's question on a terminal
