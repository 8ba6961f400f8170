"""JSON bodies of the data socket's HTTP (docs/spec/http.md), to and from what frames carry.

Refused    the request as a whole fails
"""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.frames import MOST_ITEMS, Answer, Context, NotAnEnvelope, Op, Status, envelope_from_text, envelope_to_text

_FIELDS: Final = frozenset({"keyring", "context", "items"})
_IN_NAMES: Final = 193  # commas and brackets that the name of a keyring with its partition may have
_TEXT_IN: Final = frozenset({Op.DECRYPT, Op.REENCRYPT})
_TEXT_OUT: Final = frozenset({Op.ENCRYPT, Op.REENCRYPT})


class Refused(Exception):
    """The request as a whole fails. The message says what to do and quotes nothing of the request."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, repr=False)
class FieldRequest:
    """What a body asks for; has no repr, since it holds plaintexts."""

    keyring: str
    context: Context
    items: list[bytes | None]


def parse_request(op: Op, body: bytes) -> FieldRequest:
    """Raises Refused with BAD_REQUEST. What is no text envelope becomes b"", which the data plane refuses."""
    # an element takes a comma or a bracket, and base64 has neither: what can be no request is refused before it becomes
    # millions of objects, whoever sent it, for meanwhile the event loop would serve nobody
    if body.count(b",") > 2 * MOST_ITEMS + _IN_NAMES or body.count(b"[") + body.count(b"{") > 3 + _IN_NAMES:
        raise _bad(f"there are more than {MOST_ITEMS} items, or arrays within arrays; split the request")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad("the body is not JSON; send an object with keyring and items") from error
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object with keyring and items")
    if unknown := value.keys() - _FIELDS:
        raise _bad(f"{len(unknown)} unknown field(s); there are keyring, context and items")
    keyring, items = value.get("keyring"), value.get("items")
    if not isinstance(keyring, str) or not _is_utf8(keyring):
        raise _bad("keyring must be a string: a name, or name/partition")
    if not isinstance(items, list):
        raise _bad("items must be an array of strings and nulls")
    context = value.get("context")
    # looked at before each of them becomes an object: the data plane would refuse both, at many times the memory
    if len(items) > MOST_ITEMS:
        raise _bad(f"there are more than {MOST_ITEMS} items; split the request")
    if isinstance(context, list) and len(context) != len(items):
        raise _bad("context must have as many elements as items, or be one for all of them")
    read = _envelope if op in _TEXT_IN else _base64
    return FieldRequest(
        keyring,
        _context(context),
        [_string_or_null(item, read, f"items[{place}]") for place, item in enumerate(items)],
    )


def render_answer(op: Op, answer: Answer) -> dict[str, object]:
    """The body of a 200 answer."""
    write = envelope_to_text if op in _TEXT_OUT else _to_base64
    return {"items": [_rendered(item, write) for item in answer.items]}


def render_error(status: Status, message: str) -> dict[str, object]:
    """The body of an answer to a request that failed as a whole."""
    return {"error": {"code": int(status), "name": status.name, "message": message}}


def _rendered(item: bytes | Status | None, write: Callable[[bytes], str]) -> object:
    if item is None:
        return None
    if isinstance(item, Status):
        return {"error": {"code": int(item), "name": item.name}}
    return write(item)


def _context(value: object) -> Context:
    if isinstance(value, list):
        return [_string_or_null(item, _base64, f"context[{place}]") for place, item in enumerate(value)]
    return _string_or_null(value, _base64, "context")


def _string_or_null(value: object, read: Callable[[str, str], bytes], where: str) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _bad(f"{where} must be a string or null")
    return read(value, where)


def _base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"{where} is not standard base64 with padding (RFC 4648, section 4)") from error


def _envelope(text: str, where: str) -> bytes:
    try:
        return envelope_from_text(text)
    except NotAnEnvelope:
        # an empty item is no envelope either: the data plane answers INVALID_CIPHERTEXT for it alone, as it would for a
        # flipped bit
        return b""


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _is_utf8(text: str) -> bool:
    # JSON may carry lone surrogates, which no MessagePack str can
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(message: str) -> Refused:
    return Refused(Status.BAD_REQUEST, message)
