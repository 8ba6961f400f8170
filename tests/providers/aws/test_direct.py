"""Encrypt and Decrypt past the SDK's client: what is read, and what is left in memory."""

from __future__ import annotations

from typing import Any

import pytest

from providers.aws.direct import DirectCalls, revealed
from providers.aws.transport import Transport


def fresh(text: bytes) -> bytes:
    """Bytes that nothing else holds: they are wiped."""
    return bytes(bytearray(text))


def test_a_plaintext_is_read() -> None:
    content = fresh(b'{"KeyId":"k","Plaintext":"ab\\/+"}')
    plaintext, others = revealed(content)
    assert plaintext == b"\x69\xbf\xfe"
    assert others["KeyId"] == "k"
    assert content == bytes(len(content))


@pytest.mark.parametrize(
    "content",
    [
        rb'{"Plaintext":"\u0041BCD"}',
        rb'{"Plaintext":"AB\CD"}',
        b'{"x":{"Plaintext":"ABCD"}}',
        b'{"Plaintext":"ABCD","Plaintext":"ABCD"}',
        b'{"Plaintext":"ABC"}',
        b'["Plaintext":"ABCD"]',
    ],
)
def test_what_json_would_read_otherwise_is_refused(content: bytes) -> None:
    given = fresh(content)
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        revealed(given)
    assert given == bytes(len(given))


async def test_a_request_that_could_not_be_signed_is_wiped() -> None:
    class Session:
        async def get_credentials(self) -> Any:
            raise LookupError("no STS today")

    transport = Transport(size=1, max_age=60)
    body = fresh(b'{"Plaintext":"c2VjcmV0"}')
    with pytest.raises(LookupError):
        await DirectCalls(Session(), "https://kms.example", "eu-west-1", transport).call("Encrypt", body)
    await transport.close()
    assert body == bytes(len(body))
