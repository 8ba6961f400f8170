"""Client of the Keyside sidecar: encrypts and decrypts single fields over a local Unix socket.

from keyside import Client
with Client() as ks:
    envelope = ks.encrypt("users/42", b"alice@example.org", context=b"users.email")
"""

from keyside.async_client import AsyncClient
from keyside.client import Client
from keyside.errors import (
    BadRequest,
    ClientClosed,
    ConnectionLost,
    DeadlineExceeded,
    Denied,
    InternalError,
    InvalidCiphertext,
    InvalidText,
    KeyDisabled,
    KeysideError,
    KmsUnavailable,
    Overloaded,
    ProtocolError,
    RateLimited,
    ShuttingDown,
    SidecarError,
    SidecarUnreachable,
    UnknownKey,
    UnknownKeyring,
)
from keyside.fields.scope import context, from_context
from keyside.text import from_text, to_text
from keyside.wire import Hello

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "DeadlineExceeded",
    "Denied",
    "Hello",
    "InternalError",
    "InvalidCiphertext",
    "InvalidText",
    "KeyDisabled",
    "KeysideError",
    "KmsUnavailable",
    "Overloaded",
    "ProtocolError",
    "RateLimited",
    "ShuttingDown",
    "SidecarError",
    "SidecarUnreachable",
    "UnknownKey",
    "UnknownKeyring",
    "context",
    "from_context",
    "from_text",
    "to_text",
]
