"""The text form of envelopes, for VARCHAR and JSON columns (docs/spec/envelope.md)."""

from __future__ import annotations

import binascii
import re

from keyside.errors import InvalidText

PREFIX = "ks1."
_FORM = re.compile(r"ks1\.((?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?)")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def to_text(envelope: bytes) -> str:
    """`ks1.` and the unpadded base64url of the envelope."""
    body = binascii.b2a_base64(envelope, newline=False).translate(_TO_URL).rstrip(b"=")
    return PREFIX + body.decode("ascii")


def from_text(text: str) -> bytes:
    """The envelope of a text form.

    Raises InvalidText for anything but the one text that an envelope has: padding, characters outside the alphabet, a
    length
    of 1 modulo 4 and non-zero trailing bits are refused. Whether the bytes are an envelope is found out by decrypting.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidText("not a text form: expected 'ks1.' and unpadded base64url")
    body = match[1].encode("ascii").translate(_FROM_URL)
    envelope = binascii.a2b_base64(body + b"=" * (-len(body) % 4))
    if to_text(envelope) != text:
        raise InvalidText("not a text form: the last character has bits that belong to no byte")
    return envelope
