"""What can go wrong between a client and a sidecar, one function a fault.

A fault is awaited in the place of the answer: it gets the request, the frame that a healthy sidecar would send, and the
connection. Queue it on `Twin.faults`; the next request takes it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from keyside.testing import frames
from keyside.testing.frames import Code, Request

Fault = Callable[[Request, bytes, asyncio.StreamWriter], Awaitable[None]]


async def none(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
    """No fault: a request that passes while a later one in the queue does not."""
    writer.write(answer)


def delay(seconds: float) -> Fault:
    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(answer)

    return fault


def drop() -> Fault:
    """Close without a byte of an answer."""
    return cut(0)


def cut(size: int) -> Fault:
    """Send the first bytes of the answer, then close."""

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer[:size])
        await writer.drain()
        writer.close()

    return fault


def stall(size: int) -> Fault:
    """Send the first bytes of the answer, then nothing, and stay connected."""

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer[:size])

    return fault


def trickle(pause: float) -> Fault:
    """Send the answer byte for byte."""

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(len(answer)):
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(pause)

    return fault


def refuse(code: Code, message: str = "refused by the test") -> Fault:
    """The whole request fails."""

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.build_response(request.id, code, message))

    return fault


def fail_items(codes: dict[int, Code]) -> Fault:
    """Some items fail: {position: code}."""

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        body = frames.parse_response(answer[4:]).body
        assert isinstance(body, list)
        for position, code in codes.items():
            body[position] = int(code)
        writer.write(frames.build_response(request.id, 1, body))

    return fault


def answer_with(make: Callable[[Request], bytes]) -> Fault:
    """Send a frame of the test's making."""

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(make(request))

    return fault


def reorder(count: int) -> Sequence[Fault]:
    """Faults for `count` requests: all answers wait for the last and leave in reverse order."""
    held: list[tuple[bytes, asyncio.StreamWriter]] = []

    async def fault(request: Request, answer: bytes, writer: asyncio.StreamWriter) -> None:
        held.append((answer, writer))
        if len(held) == count:
            for late, its_writer in reversed(held):
                its_writer.write(late)

    return [fault] * count
