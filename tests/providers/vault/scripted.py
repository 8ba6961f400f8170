"""A server that answers whatever a test wants, byte for byte: what no real one can be made to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

KEY = {
    "type": "aes256-gcm96",
    "latest_version": 3,
    "min_decryption_version": 2,
    "keys": {"3": 1_700_000_000},
    "derived": False,
    "exportable": False,
    "allow_plaintext_backup": False,
}


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str  # what follows /v1/
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Last(bytes):
    """A raw answer after which the connection is closed."""


Script = Callable[[Asked], bytes | None]
"""The raw answer to a request; None closes the connection instead."""


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def ok(data: Mapping[str, Any]) -> bytes:
    return http(200, json.dumps({"data": data}).encode())


def refused(status: int, *errors: str) -> bytes:
    return http(status, json.dumps({"errors": errors}).encode())


def usual(asked: Asked) -> bytes:
    """A key that can be read, a token that can be looked up."""
    if asked.path == "auth/token/lookup-self":
        return ok({"ttl": 0, "renewable": False})
    if asked.path == "transit/keys/keyside":
        return ok(KEY)
    if asked.path == "transit/decrypt/keyside":
        return refused(400, "cipher: message authentication failed")
    return refused(404)


class Scripted:
    """The running server: its port, and what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.port = 0

    @property
    def hsm(self) -> dict[str, Any]:
        """The section of a provider of it."""
        return {
            "provider": "VAULT_TRANSIT",
            "connection": {"endpoint": f"http://127.0.0.1:{self.port}"},
            "credentials": {"type": "TOKEN", "data": {"token": "s.scripted-token"}},
            "performance": {"retryPolicy": {"maxRetries": 0}},
        }

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked.path == path for asked in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                answer = self.script(asked)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if isinstance(answer, Last):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client under test gives up when it likes
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target.removeprefix("/v1/"), headers, body)


@asynccontextmanager
async def scripted(script: Script = usual) -> AsyncIterator[Scripted]:
    server = Scripted(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
