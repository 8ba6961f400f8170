"""The pool under the SDK's client: what it asks for, and what it does not take."""

from __future__ import annotations

import asyncio
import gzip
import ssl

import pytest
from azure.core.exceptions import AzureError
from azure.core.rest import HttpRequest

from providers.azure.connections import PooledTransport


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_compressed_answer_is_not_unpacked(encoding: str) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        body = gzip.compress(bytes(1_000_000)) if encoding == "gzip" else b"{}"
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    transport = PooledTransport(ssl.create_default_context(), 1, 60, proxy=None)
    request = HttpRequest("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with server:
        if encoding == "identity":
            assert (await transport.send(request)).content == b"{}"
        else:
            with pytest.raises(AzureError):
                await transport.send(request)
        await transport.shut()
    assert b"accept-encoding: identity\r\n" in asked[0].lower()
