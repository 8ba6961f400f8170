"""The blocking client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, overload

from keyside import wire
from keyside.ahead import Ahead
from keyside.batches import Job, OnError, Results, batch, settle, settle_outcome
from keyside.errors import KeysideError, SidecarError
from keyside.pipelines import Pipeline
from keyside.wire import Context, Contexts, Hello, Value

DEFAULT_PATH = "/run/keyside/keyside.sock"


def socket_path(path: str | os.PathLike[str] | None) -> str:
    """`path`, else $KEYSIDE_SOCKET, else /run/keyside/keyside.sock."""
    return os.fspath(path) if path is not None else os.environ.get("KEYSIDE_SOCKET") or DEFAULT_PATH


def check_options(timeout: float, pool_size: int, retries: int) -> None:
    """Raises ValueError."""
    if not 0 < timeout <= 86_400:
        raise ValueError("timeout: expected seconds, more than 0 and at most a day")
    if pool_size < 1:
        raise ValueError("pool_size: expected at least 1")
    if retries < 0:
        raise ValueError("retries: expected 0 or more")


class Client:
    """Encrypts and decrypts fields through the sidecar that listens at `path`.

    One client serves a whole process: it is thread-safe, keeps at most `pool_size` connections, and a forked child
    opens its own.
    `timeout` is in seconds and bounds a call from beginning to end, batches, retries and waiting for a connection
    included.
    `retries` is how often a request is sent again when the error says that this may help (`retryable`).

    A keyring is `name` or `name/partition`. The context is authenticated but not stored: decryption must name the
    same one. Bytes
    and str are the same thing everywhere (a str is its UTF-8); results are bytes.

    Every call raises KeysideError (see keyside.errors), and TypeError or ValueError for arguments that cannot be sent.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 10.0,
        pool_size: int = 8,
        retries: int = 3,
    ) -> None:
        check_options(timeout, pool_size, retries)
        self._path = socket_path(path)
        self._calls = Pipeline(self._path, timeout, pool_size, retries)
        self._one = self._calls.one

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way in other threads end first. Later calls raise ClientClosed."""
        self._calls.close()

    def hello(self) -> Hello:
        """Product, protocol version and limits of the sidecar."""
        return self._calls.hello()

    def encrypt(self, keyring: str, value: bytes | str, context: Context = None) -> bytes:
        """The envelope of one value, 38 bytes longer than it."""
        return self._one(wire.ENCRYPT, keyring, value, context)

    def decrypt(self, keyring: str, envelope: bytes, context: Context = None) -> bytes:
        """The value of one envelope."""
        return self._one(wire.DECRYPT, keyring, envelope, context)

    def blind_index(self, keyring: str, value: bytes | str, context: Context = None) -> bytes:
        """The blind index of one value, `index_bits / 8` bytes: equal values give equal indexes. Normalise the value
        first."""
        return self._one(wire.BLIND_INDEX, keyring, value, context)

    def reencrypt(self, keyring: str, envelope: bytes, context: Context = None) -> bytes:
        """The same value under the active data key; an envelope that is under it already comes back as it is."""
        return self._one(wire.REENCRYPT, keyring, envelope, context)

    @overload
    def encrypt_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: Literal["raise"] = "raise"
    ) -> list[bytes | None]: ...

    @overload
    def encrypt_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    def encrypt_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The envelopes of values; None stays None.

        `context` is one for all, or a sequence with one an item. `on_error`: "raise" raises the error of the first
        failed item,
        "return" puts errors in the places of their items. Batches of any length are cut into frames and put together
        again.
        """
        return self._many(wire.ENCRYPT, keyring, values, context, on_error)

    @overload
    def decrypt_many(
        self,
        keyring: str,
        envelopes: Sequence[bytes | None],
        context: Contexts = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[bytes | None]: ...

    @overload
    def decrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    def decrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The values of envelopes; None stays None. See `encrypt_many`."""
        return self._many(wire.DECRYPT, keyring, envelopes, context, on_error)

    @overload
    def blind_index_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: Literal["raise"] = "raise"
    ) -> list[bytes | None]: ...

    @overload
    def blind_index_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    def blind_index_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The blind indexes of values; None stays None. See `encrypt_many`."""
        return self._many(wire.BLIND_INDEX, keyring, values, context, on_error)

    @overload
    def reencrypt_many(
        self,
        keyring: str,
        envelopes: Sequence[bytes | None],
        context: Contexts = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[bytes | None]: ...

    @overload
    def reencrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    def reencrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The same values under the active data key; None stays None. See `encrypt_many`."""
        return self._many(wire.REENCRYPT, keyring, envelopes, context, on_error)

    def pipeline(self, requests: Sequence[Job]) -> list[Results | KeysideError]:
        """Several requests in one round trip, for results whose rows need different keyrings, partitions or
        operations.

        Each comes back in its place as a list, with errors in the places of failed items, or as the error of the
        whole request. `keyside.batches.Job` describes a request.
        """
        outcomes = self._calls.pipeline(list(requests))
        return [settle_outcome(outcome) for outcome in outcomes]

    def pipeline_ahead(self, groups: Sequence[Sequence[Job]]) -> list[Ahead]:
        """`pipeline` for several groups of requests at once, each of which is waited for when its `results` are asked
        for: the sidecar works on the next group while the caller uses this one. `drop` those that are not."""
        return self._calls.ahead([list(group) for group in groups])

    def _many(
        self, op: int, keyring: str, values: Sequence[Value], context: Contexts, on_error: OnError
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        body, some_failed = self._calls.many(batch(op, keyring, values, context, on_error))
        return settle(body, some_failed, on_error)
