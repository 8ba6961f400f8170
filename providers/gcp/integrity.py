"""CRC32C in both directions, as https://cloud.google.com/kms/docs/data-integrity-guidelines asks.

TLS protects the wire; these sums find what broke before or behind it, in a memory or a proxy. A data key that was
wrapped from damaged bytes would never come back.
"""

from __future__ import annotations

from typing import Final

import google_crc32c

from providers.errors import Unavailable

_REMEDY: Final = "it is tried again; when it goes on, suspect a proxy on the way or this machine's memory"


def checksum(data: bytes) -> int:
    """CRC32C (Castagnoli) of `data`, RFC 3720, appendix B.4."""
    return int(google_crc32c.value(data))


def require_same(data: bytes, announced: int | None, what: str) -> None:
    """Raise Unavailable unless `data` is what the service computed its checksum of."""
    if announced is None:
        raise Unavailable(f"Cloud KMS answered with a {what} and no checksum of it: {_REMEDY}")
    if announced != checksum(data):
        raise Unavailable(f"the {what} from Cloud KMS does not fit its checksum: {_REMEDY}")


def require_verified(verified: bool, what: str) -> None:
    """Raise Unavailable unless the service says that it compared our checksum of what we sent."""
    if not verified:
        raise Unavailable(f"Cloud KMS did not verify the checksum of the {what} sent to it: {_REMEDY}")
