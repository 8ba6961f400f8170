"""A server that answers what a test tells it, byte for byte: for answers that no honest service gives."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.servers.aws import HOST

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = KEY.replace("1234abcd", "ffffffff")
DATA_KEY = bytes(range(32))
BLOB = b"\x01\x02" + bytes(range(100, 200))

Asked = Mapping[str, Any]
Reply = bytes | Callable[[Asked], bytes] | None


@dataclass
class Scripted:
    """What is answered to which operation; None is no answer at all."""

    port: int = 0
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, Asked]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def reset(self) -> None:
        """Answer as an honest service would."""
        self.replies = {
            "DescribeKey": answer({"KeyMetadata": metadata()}),
            "Encrypt": answer({"KeyId": KEY, "CiphertextBlob": encoded(BLOB)}),
            "Decrypt": answer({"KeyId": KEY, "Plaintext": encoded(DATA_KEY)}),
        }

    def hsm(self, **performance: object) -> dict[str, Any]:
        """The section for a provider that speaks to this server."""
        return {
            "provider": "AWS_KMS",
            "kek": KEY,
            "connection": {"endpoint": f"http://{HOST}:{self.port}", "region": "eu-west-1"},
            "credentials": {
                "type": "TOKEN",
                "data": {"accessKeyId": "AKIATEST", "secretAccessKey": "s3cr3t-access-key"},
            },
            "performance": {"requestTimeout": 2000, "retryPolicy": {"maxRetries": 0}, **performance},
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if line)
                body = json.loads(await reader.readexactly(int(lines["content-length"])))
                operation = lines["x-amz-target"].rpartition(".")[2]
                self.heads.append(head)
                self.asked.append((operation, body))
                reply = next(value for name, value in self.replies.items() if name.lower() == operation)
                if reply is None:
                    await reader.read()
                    return
                writer.write(reply(body) if callable(reply) else reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def scripted(tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """The server, on this event loop."""
    script = Scripted()
    script.reset()
    server = await asyncio.start_server(script.serve, HOST, 0, ssl=tls)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()


def answer(body: object, status: int = 200, **headers: str) -> bytes:
    """A whole HTTP answer: JSON, or `body` as it is when it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} Something",
        "Content-Type: application/x-amz-json-1.1",
        f"Content-Length: {len(content)}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def error(code: str, message: str = "no", status: int = 400, **headers: str) -> bytes:
    """An answer that is an error of AWS."""
    return answer({"__type": code, "message": message}, status, **headers)


def metadata(**changes: object) -> dict[str, object]:
    """What DescribeKey says of an ordinary key."""
    return {
        "Arn": KEY,
        "KeyState": "Enabled",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
        **changes,
    }


def encoded(value: bytes) -> str:
    """Base64, as JSON carries bytes."""
    return base64.b64encode(value).decode()
