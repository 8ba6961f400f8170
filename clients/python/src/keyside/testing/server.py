"""A whole sidecar in plain Python: fixed keys, every operation, the wire protocol on a Unix socket, faults on demand.

By hand: python -m keyside.testing.server PATH
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keyside.testing import envelope, frames
from keyside.testing.faults import Fault
from keyside.testing.frames import Code, Op, Refusal, Request


@dataclass(frozen=True)
class Keyring:
    partitioned: bool = False
    index_bits: int = 128


KEYRINGS: Final = {"contacts": Keyring(), "users": Keyring(partitioned=True), "narrow": Keyring(index_bits=32)}


class RefusedError(Exception):
    """An item, or a whole request, fails with a code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def key_of(scope: str, purpose: str, version: int = 0) -> bytes:
    """The data key of a scope: fixed, so that every twin opens every twin's envelopes."""
    return hashlib.sha256(f"{purpose} {version} {scope}".encode()).digest()


def key_id_of(scope: str, version: int) -> int:
    return int.from_bytes(hashlib.sha256(f"id {version} {scope}".encode()).digest()[:8], "big")


class Vault:
    """Keyrings and data keys, and what each operation does to one item.

    `keyrings`: None serves every name, each with and without partitions.
    """

    def __init__(self, keyrings: Mapping[str, Keyring] | None = KEYRINGS) -> None:
        self.keyrings = keyrings
        self.versions: dict[str, int] = {}
        self.known: dict[int, tuple[str, int]] = {}

    def check_scope(self, op: Op, scope: str) -> None:
        """Raises RefusedError."""
        name, slash, _ = scope.partition("/")
        if self.keyrings is None:
            return
        keyring = self.keyrings.get(name)
        if keyring is None or (slash and not keyring.partitioned):
            raise RefusedError(Code.UNKNOWN_KEYRING)
        if keyring.partitioned and not slash and op != Op.BLIND_INDEX:
            raise RefusedError(Code.UNKNOWN_KEYRING)

    def rotate(self, scope: str) -> None:
        """A fresh active data key for the scope."""
        self.versions[scope] = self.versions.get(scope, 0) + 1

    def encrypt(self, scope: str, context: bytes | None, plaintext: bytes) -> bytes:
        version = self.versions.setdefault(scope, 0)
        key_id = key_id_of(scope, version)
        self.known[key_id] = (scope, version)
        return envelope.seal(key_of(scope, "field", version), key_id, secrets.token_bytes(12), context, plaintext)

    def decrypt(self, scope: str, context: bytes | None, sealed: bytes) -> bytes:
        try:
            key_id = envelope.key_id_of(sealed)
            # version 0 is known without having been made here: a twin started anew opens what it sealed
            owner, version = self.known.get(key_id) or (scope, 0)
            if key_id != key_id_of(owner, version):
                raise RefusedError(Code.UNKNOWN_KEY)
            if owner != scope:
                raise envelope.CiphertextError
            return envelope.open_envelope(key_of(scope, "field", version), sealed, context)
        except envelope.CiphertextError:
            raise RefusedError(Code.INVALID_CIPHERTEXT) from None

    def reencrypt(self, scope: str, context: bytes | None, sealed: bytes) -> bytes:
        plaintext = self.decrypt(scope, context, sealed)
        if envelope.key_id_of(sealed) == key_id_of(scope, self.versions.setdefault(scope, 0)):
            return sealed
        return self.encrypt(scope, context, plaintext)

    def blind_index(self, scope: str, context: bytes | None, value: bytes) -> bytes:
        bits = (self.keyrings or {}).get(scope.partition("/")[0], Keyring()).index_bits
        return envelope.blind_index(key_of(scope, "index"), context, value, bits)

    def answer(self, request: Request, max_frame: int) -> bytes:
        if request.op == Op.HELLO:
            limits = [str(max_frame).encode(), str(frames.MAX_ITEMS).encode()]
            return frames.build_response(request.id, 0, [frames.PRODUCT, frames.PROTOCOL_VERSION, *limits])
        try:
            self.check_scope(request.op, request.keyring)
        except RefusedError as error:
            return frames.build_response(request.id, error.code, f"{error.code.name}: from the twin")
        operation: Callable[[str, bytes | None, bytes], bytes] = getattr(self, request.op.name.lower())
        many = request.context
        contexts = many if isinstance(many, list) else [many] * len(request.items)
        body: list[bytes | int | None] = []
        for context, item in zip(contexts, request.items, strict=True):
            try:
                body.append(None if item is None else operation(request.keyring, context, item))
            except RefusedError as error:
                body.append(int(error.code))
        return frames.build_response(request.id, int(any(isinstance(i, int) for i in body)), body)


class Twin:
    """One listening twin: `requests` and `connections` tell what clients did, `faults` is the queue of faults.

    What a test in another thread than the twin's plays with: `vault.rotate(scope)`, `faults`, `absent()`,
    `failing(fault)`. The coroutines are for tests that share its loop.
    """

    def __init__(
        self,
        path: str | Path,
        max_frame: int = frames.MAX_FRAME,
        keyrings: Mapping[str, Keyring] | None = KEYRINGS,
    ) -> None:
        self.path = str(path)
        self.max_frame = max_frame
        self.vault = Vault(keyrings)
        self.requests: list[Request] = []
        self.refusals: list[Refusal] = []
        self.connections = 0
        self.faults: deque[Fault] = deque()
        self._lasting: Fault | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @contextlib.contextmanager
    def absent(self) -> Iterator[None]:
        """While the block runs nobody listens, as after a crash; then it is there again, with the same keys."""
        self._from_outside(self.stop())
        try:
            yield
        finally:
            self._from_outside(self.start())

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """While the block runs every request meets the fault, after those that are queued."""
        before, self._lasting = self._lasting, fault
        try:
            yield
        finally:
            self._lasting = before

    def _from_outside(self, step: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "the twin was never started"
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Close the listening socket and every connection, as a process that dies does."""
        assert self._server is not None
        self._server.close()
        await self.hang_up()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108  one system call on a loop that serves nobody any more

    async def hang_up(self) -> None:
        """Close every connection; go on listening."""
        for writer in [*self._writers]:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        answers: set[asyncio.Task[None]] = set()
        try:
            while await self._one_frame(reader, writer, answers):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client left; nothing is owed to it
        finally:
            await asyncio.gather(*answers, return_exceptions=True)
            self._writers.discard(writer)
            writer.close()

    async def _one_frame(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: set[asyncio.Task[None]]
    ) -> bool:
        """Read a frame and start its answer. False when the connection must close."""
        length = int.from_bytes(await reader.readexactly(4), "big")
        if not 0 < length <= self.max_frame:
            self.refusals.append(Refusal(Code.BAD_REQUEST, True, 0))
            writer.write(frames.build_response(0, Code.BAD_REQUEST, "the length of the frame is out of bounds"))
            return False
        request = frames.parse_request(await reader.readexactly(length), self.max_frame)
        if isinstance(request, Refusal):
            self.refusals.append(request)
            writer.write(frames.build_response(request.id, request.code, "malformed: see docs/spec/wire.md"))
            return not request.closes
        self.requests.append(request)
        answer = self.vault.answer(request, self.max_frame)
        fault = self.faults.popleft() if self.faults else self._lasting
        if fault is None:
            writer.write(answer)
            return True
        task = asyncio.ensure_future(fault(request, answer, writer))
        for group in (answers, self._tasks):
            group.add(task)
            task.add_done_callback(group.discard)
        return True


class ThreadedTwin:
    """A twin in a thread of its own, for tests that block; they may read its attributes."""

    def __init__(
        self,
        path: str | Path,
        max_frame: int = frames.MAX_FRAME,
        keyrings: Mapping[str, Keyring] | None = KEYRINGS,
    ) -> None:
        self.twin = Twin(path, max_frame, keyrings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="twin", daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.twin.start(), self._loop).result(10)

    def hang_up(self) -> None:
        asyncio.run_coroutine_threadsafe(self.twin.hang_up(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.twin.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def running(
    path: str | Path, max_frame: int = frames.MAX_FRAME, keyrings: Mapping[str, Keyring] | None = KEYRINGS
) -> Iterator[Twin]:
    """A twin that serves while the block runs."""
    threaded = ThreadedTwin(path, max_frame, keyrings)
    threaded.start()
    try:
        yield threaded.twin
    finally:
        threaded.stop()


async def serve_for_ever(path: str) -> None:
    await Twin(path).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve_for_ever(sys.argv[1]))
