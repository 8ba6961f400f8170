"""Encrypt and Decrypt without the SDK's client: it takes several times as long over a request as signing takes.

Credentials, endpoint, region and signature are the SDK's; the request is one of the service's JSON protocol, and so is
the answer (KMS API reference, Encrypt and Decrypt).
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, NoCredentialsError

from providers.aws.transport import Transport
from providers.http import HttpAnswer
from providers.wiping import wipe

_SERVICE: Final = "kms"  # as signatures name it
_PLAINTEXT: Final = re.compile(rb'"Plaintext"\s*:\s*"((?:[A-Za-z0-9+/=]|\\/)*)"')


class DirectCalls:
    """One endpoint, and whoever `session` says we are."""

    def __init__(self, session: Any, endpoint: str, region: str, transport: Transport) -> None:
        self._session = session
        self._url = endpoint.rstrip("/") + "/"
        self._region = region
        self._transport = transport

    async def call(self, operation: str, body: bytes) -> bytes:
        """The body of a good answer; `body` is wiped. Raises what the SDK's client does."""
        try:
            return await self._call(operation, body)
        finally:
            wipe(body)

    async def _call(self, operation: str, body: bytes) -> bytes:
        credentials = await self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = await credentials.get_frozen_credentials()
        request = AWSRequest("POST", self._url, data=body)
        request.headers["Content-Type"] = "application/x-amz-json-1.1"
        request.headers["X-Amz-Target"] = f"TrentService.{operation}"
        request.headers["User-Agent"] = "keyside"
        SigV4Auth(frozen, _SERVICE, self._region).add_auth(request)
        answer = await self._transport.exchange("POST", self._url, request.headers.items(), body)
        if answer.status != 200:
            raise ClientError(_error(answer), operation)
        return answer.body


def request_body(parameters: Mapping[str, object], name: str, value: bytes | bytearray) -> bytes:
    """The JSON of some parameters and of a binary one, as bytes that can be wiped: no `str` of `value` is made."""
    coded = binascii.b2a_base64(value, newline=False)
    body = b'%b,"%b":"%b"}' % (json.dumps(parameters).encode()[:-1], name.encode(), coded)
    wipe(coded)
    return body


def parsed(content: bytes) -> dict[str, Any]:
    """A good answer's members. Raises ValueError."""
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def binary(answer: Mapping[str, Any], name: str) -> bytes:
    """A binary member. Raises ValueError."""
    text = answer.get(name)
    if not isinstance(text, str):
        raise ValueError("no such member")
    return binascii.a2b_base64(text, strict_mode=True)


def revealed(content: bytes) -> tuple[bytearray, dict[str, Any]]:
    """Decrypt's plaintext, which the caller wipes, and the other members; `content` is wiped. Raises ValueError."""
    try:
        found = list(_PLAINTEXT.finditer(content))
        if len(found) != 1:
            raise ValueError("no plaintext, or several")
        start, end = found[0].span(1)
        others = parsed(content[:start] + content[end:])
        if others.get("Plaintext") != "":
            raise ValueError("not a member of the answer itself")
        with memoryview(content) as view:
            coded = bytearray(view[start:end])
    finally:
        wipe(content)
    try:
        bare = coded.replace(b"\\", b"")  # JSON may write / as \/
        try:
            decoded = binascii.a2b_base64(bare, strict_mode=True)
        finally:
            wipe(bare)
    except binascii.Error:
        raise ValueError("no base64") from None  # not to keep the text
    finally:
        wipe(coded)
    plaintext = bytearray(decoded)
    wipe(decoded)
    return plaintext, others


def _error(answer: HttpAnswer) -> dict[str, Any]:
    """An answer that is none, as the SDK's ClientError has it."""
    try:
        said = json.loads(answer.body)
        code = said.get("__type") or said.get("code") if isinstance(said, dict) else None
    except (ValueError, RecursionError):
        code = None
    code = code or answer.headers.get("x-amzn-errortype") or str(answer.status)
    return {
        "Error": {"Code": str(code).rpartition("#")[2].partition(":")[0], "Message": ""},
        "ResponseMetadata": {"HTTPStatusCode": answer.status, "HTTPHeaders": dict(answer.headers)},
    }
