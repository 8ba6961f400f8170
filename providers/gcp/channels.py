"""gRPC channels: the SDK's client over each, TLS as configured."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import grpc
from google.cloud.kms_v1 import KeyManagementServiceAsyncClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcAsyncIOTransport

from providers.errors import CredentialsInvalid
from providers.gcp.options import GcpConnection
from providers.options import Tls
from providers.private_file import read_private
from providers.tls import client_context

_OPTIONS: Final = (
    # without it channels to one address would share a connection, and the pool would count what is not there
    ("grpc.use_local_subchannel_pool", 1),
    # a key, a signature or a page of versions: whoever answers more is no Cloud KMS
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.enable_retries", 0),
    # gRPC keeps the last bytes of a TLS connection, a data key among them, in buffers that it frees with the connection
    ("grpc.client_idle_timeout_ms", 2000),
)
_LOST: Final = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
_MOST_BYTES: Final = 1 << 20  # of a file with certificates


class Channels:
    """Makes, judges and closes the members of the pool."""

    def __init__(self, connection: GcpConnection, base: Path) -> None:
        """Read the files of `connection.tls`. Raises CredentialsInvalid."""
        self._target = connection.endpoint
        self._credentials = _channel_credentials(connection.tls, base)

    async def make(self) -> KeyManagementServiceAsyncClient:
        """A client over a channel of its own, which connects with its first call."""
        channel = grpc.aio.secure_channel(self._target, self._credentials, _OPTIONS)
        return KeyManagementServiceAsyncClient(transport=KeyManagementServiceGrpcAsyncIOTransport(channel=channel))

    def usable(self, client: KeyManagementServiceAsyncClient) -> bool:
        """Whether its connection is up, or not there yet; a broken one would wait before it tries again."""
        return client.transport.grpc_channel.get_state() not in _LOST

    async def dispose(self, client: KeyManagementServiceAsyncClient) -> None:
        """Close the channel at once."""
        await client.transport.grpc_channel.close()


def _channel_credentials(tls: Tls, base: Path) -> grpc.ChannelCredentials:
    """TLS 1.2 or 1.3, whichever is the newest of both sides: gRPC has nothing older."""
    client_context(tls, base)  # gRPC accepts any bytes and fails at each handshake: files are judged here
    certificates = None if tls.certificate_file is None else _read(base / tls.certificate_file)
    if certificates is None:
        key = None
    elif tls.key_file is None:
        key = certificates
    else:
        key = bytes(read_private(base / tls.key_file, "TLS key file", "restore it", limit=_MOST_BYTES))
    authorities = None if tls.ca_file is None else _read(base / tls.ca_file)
    return grpc.ssl_channel_credentials(authorities, key, certificates)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsInvalid(f"{path} cannot be read ({error.strerror}): correct hsm.connection.tls") from None
