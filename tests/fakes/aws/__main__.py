"""`python -m tests.fakes.aws PORT [--latency SECONDS]`: serves until its parent ends."""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

from tests.fakes.aws.keys import Keys, Refused


class Connection(asyncio.Protocol):
    """Requests with a Content-Length, answered one after another."""

    def __init__(self, keys: Keys, latency: float) -> None:
        self._keys = keys
        self._latency = latency
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head_end := self._received.find(b"\r\n\r\n")) >= 0:
            lines = self._received[:head_end].decode("latin-1").lower().split("\r\n")[1:]
            headers = dict(line.split(": ", 1) for line in lines)
            end = head_end + 4 + int(headers.get("content-length", "0"))
            if len(self._received) < end:
                return
            target = next(
                line for line in self._received[:head_end].split(b"\r\n") if line.lower().startswith(b"x-amz-t")
            )
            body = json.loads(self._received[head_end + 4 : end])
            del self._received[:end]
            reply = self._reply(target.decode().rpartition(".")[2], body)
            asyncio.get_running_loop().call_later(self._latency, self._send, reply)

    def _reply(self, operation: str, body: dict[str, object]) -> bytes:
        try:
            status, answer = "200 OK", json.dumps(self._keys.answer(operation, body)).encode()
        except Refused as refusal:
            status, answer = "400 Bad Request", json.dumps({"__type": str(refusal), "message": "no"}).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {len(answer)}\r\n\r\n"
        return head.encode() + answer

    def _send(self, reply: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(reply)


async def serve(port: int, latency: float) -> None:
    keys = Keys()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(keys, latency), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An AWS KMS for figures.")
    parser.add_argument("port", type=int)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each answer is held back")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.latency))
