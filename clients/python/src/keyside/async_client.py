"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, overload

from keyside import wire
from keyside.batches import Job, OnError, Results, batch, settle, settle_outcome
from keyside.client import check_options, socket_path
from keyside.errors import ClientClosed, KeysideError, SidecarError
from keyside.pipelines import AsyncPipeline
from keyside.wire import Context, Contexts, Hello, Value


class AsyncClient:
    """`keyside.Client` for asyncio: the same calls with `await`.

    Single calls that start in the same tick of the loop with the same operation and keyring travel in one frame, each
    with its
    own context, and each gets its own result or error. A call that is cancelled leaves the others, and the
    connection, alone.

    Belongs to the event loop that uses it first; once that loop is closed, and in a forked child, it belongs to the
    next.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 10.0,
        pool_size: int = 4,
        retries: int = 3,
    ) -> None:
        check_options(timeout, pool_size, retries)
        self._path = socket_path(path)
        self._options = (timeout, pool_size, retries)
        self._calls: AsyncPipeline | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls under way and later ones raise ClientClosed."""
        self._closed = True
        calls, self._calls = self._calls, None
        if calls is not None and calls.loop is asyncio.get_running_loop() and calls.pid == os.getpid():
            await calls.close()

    async def hello(self) -> Hello:
        """Product, protocol version and limits of the sidecar."""
        return await self._bound().hello()

    async def encrypt(self, keyring: str, value: bytes | str, context: Context = None) -> bytes:
        """The envelope of one value, 38 bytes longer than it."""
        return await self._bound().one(wire.ENCRYPT, keyring, value, context)

    async def decrypt(self, keyring: str, envelope: bytes, context: Context = None) -> bytes:
        """The value of one envelope."""
        return await self._bound().one(wire.DECRYPT, keyring, envelope, context)

    async def blind_index(self, keyring: str, value: bytes | str, context: Context = None) -> bytes:
        """The blind index of one value, `index_bits / 8` bytes: equal values give equal indexes. Normalise the value
        first."""
        return await self._bound().one(wire.BLIND_INDEX, keyring, value, context)

    async def reencrypt(self, keyring: str, envelope: bytes, context: Context = None) -> bytes:
        """The same value under the active data key; an envelope that is under it already comes back as it is."""
        return await self._bound().one(wire.REENCRYPT, keyring, envelope, context)

    @overload
    async def encrypt_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: Literal["raise"] = "raise"
    ) -> list[bytes | None]: ...

    @overload
    async def encrypt_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    async def encrypt_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The envelopes of values; None stays None.

        `context` is one for all, or a sequence with one an item. `on_error`: "raise" raises the error of the first
        failed item,
        "return" puts errors in the places of their items. Batches of any length are cut into frames and put together
        again.
        """
        return await self._many(wire.ENCRYPT, keyring, values, context, on_error)

    @overload
    async def decrypt_many(
        self,
        keyring: str,
        envelopes: Sequence[bytes | None],
        context: Contexts = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[bytes | None]: ...

    @overload
    async def decrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    async def decrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The values of envelopes; None stays None. See `encrypt_many`."""
        return await self._many(wire.DECRYPT, keyring, envelopes, context, on_error)

    @overload
    async def blind_index_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: Literal["raise"] = "raise"
    ) -> list[bytes | None]: ...

    @overload
    async def blind_index_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    async def blind_index_many(
        self, keyring: str, values: Sequence[Value], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The blind indexes of values; None stays None. See `encrypt_many`."""
        return await self._many(wire.BLIND_INDEX, keyring, values, context, on_error)

    @overload
    async def reencrypt_many(
        self,
        keyring: str,
        envelopes: Sequence[bytes | None],
        context: Contexts = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[bytes | None]: ...

    @overload
    async def reencrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, *, on_error: Literal["return"]
    ) -> list[bytes | SidecarError | None]: ...

    async def reencrypt_many(
        self, keyring: str, envelopes: Sequence[bytes | None], context: Contexts = None, on_error: OnError = "raise"
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        """The same values under the active data key; None stays None. See `encrypt_many`."""
        return await self._many(wire.REENCRYPT, keyring, envelopes, context, on_error)

    async def pipeline(self, requests: Sequence[Job]) -> list[Results | KeysideError]:
        """Several requests in one round trip, for results whose rows need different keyrings, partitions or
        operations.

        Each comes back in its place as a list, with errors in the places of failed items, or as the error of the
        whole request. `keyside.batches.Job` describes a request.
        """
        outcomes = await self._bound().pipeline(list(requests))
        return [settle_outcome(outcome) for outcome in outcomes]

    async def _many(
        self, op: int, keyring: str, values: Sequence[Value], context: Contexts, on_error: OnError
    ) -> list[bytes | None] | list[bytes | SidecarError | None]:
        body, some_failed = await self._bound().many(batch(op, keyring, values, context, on_error))
        return settle(body, some_failed, on_error)

    def _bound(self) -> AsyncPipeline:
        """The calls of the running loop."""
        calls = self._calls
        if calls is not None and calls.loop is asyncio.get_running_loop() and calls.pid == os.getpid():
            return calls
        if self._closed:
            raise ClientClosed("the client is closed")
        if calls is not None and calls.pid == os.getpid() and not calls.loop.is_closed():
            raise RuntimeError("this AsyncClient belongs to another event loop; use one client a loop")
        # what an ended loop or the parent process left behind is not touched: its selector is not ours
        self._calls = AsyncPipeline(self._path, *self._options)
        return self._calls
