"""What can go wrong, one tree:

    KeysideError
    ├── SidecarUnreachable (ConnectionError)   nobody listens at the path
    ├── ConnectionLost (ConnectionError)       the sidecar went away before it had answered
    ├── DeadlineExceeded (TimeoutError)        the call took longer than `timeout`
    ├── ProtocolError                          an answer that makes no sense; the connection was closed
    ├── ClientClosed                           the client was closed
    ├── InvalidText (ValueError)               not the text form of an envelope
    └── SidecarError                           the sidecar said no; one class a code
        ├── BadRequest            16           ├── RateLimited      22  retryable
        ├── Denied                17           ├── Overloaded       23  retryable
        ├── UnknownKeyring        18           ├── KmsUnavailable   24  retryable
        ├── UnknownKey            19           ├── InternalError    25
        ├── InvalidCiphertext     20           └── ShuttingDown     26  retryable
        └── KeyDisabled           21

No message ever holds a value, an envelope or a context.
"""

from __future__ import annotations

from typing import ClassVar


class KeysideError(Exception):
    """Base of everything that this package raises, but for TypeError and ValueError on wrong arguments."""

    code: ClassVar[int | None] = None
    """The number of the error in the wire protocol; None when the error was found on this side of the socket."""
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later. The client has tried `retries` times already."""


class SidecarUnreachable(KeysideError, ConnectionError):
    """Nothing could be sent: no socket at the path, nobody listening, or no permission to connect."""

    retryable = True


def unreachable(path: str, error: OSError) -> SidecarUnreachable:
    """SidecarUnreachable with what to look at."""
    return SidecarUnreachable(
        f"cannot connect to the sidecar at {path}: {error.strerror or error}; "
        "is it running, and is $KEYSIDE_SOCKET right?"
    )


class ConnectionLost(KeysideError, ConnectionError):
    """The connection ended before the answer was whole."""

    retryable = True


class DeadlineExceeded(KeysideError, TimeoutError):
    """The call was not answered within the client's `timeout`."""

    retryable = True


class ProtocolError(KeysideError):
    """The answer does not follow docs/spec/wire.md, or does not belong to the request."""


class ClientClosed(KeysideError):
    """The client was closed; make a new one."""


class InvalidText(KeysideError, ValueError):
    """Not the text form of an envelope (docs/spec/envelope.md)."""


class SidecarError(KeysideError):
    """The sidecar refused a request or an item of it."""

    code: ClassVar[int]
    hint: ClassVar[str] = "see the sidecar's log"

    def __init__(self, message: str = "", index: int | None = None) -> None:
        self.index = index
        """The position of the failed item in its batch; None when the whole request was refused."""
        place = "" if index is None else f"item {index}: "
        super().__init__(f"{place}{message or self.hint}")


class BadRequest(SidecarError):
    """The request is malformed or over a limit."""

    code = 16
    hint = "the request is malformed or over a limit"


class Denied(SidecarError):
    """This process may not do this operation on this keyring."""

    code = 17
    hint = "allow the operation for this uid in the sidecar's policy"


class UnknownKeyring(SidecarError):
    """No such keyring, or the wrong form of its name (with or without a partition)."""

    code = 18
    hint = "create the keyring, or check whether it is partitioned"


class UnknownKey(SidecarError):
    """The envelope names a data key that the keystore does not have."""

    code = 19
    hint = "the data key of this envelope is not in the sidecar's keystore; check which keystore made it"


class InvalidCiphertext(SidecarError):
    """Not an envelope, tampered with, truncated, or another context or keyring than it was encrypted with."""

    code = 20
    hint = (
        "not an envelope that opens with this keyring and context; check both, "
        "and pass bytes, not the text form (keyside.from_text)"
    )


class KeyDisabled(SidecarError):
    """The data key was disabled or destroyed."""

    code = 21
    hint = "the data key was disabled or destroyed"


class RateLimited(SidecarError):
    """Over this process's rate."""

    code = 22
    retryable = True
    hint = "over the rate of this peer; send less, or raise the rate in the sidecar's policy"


class Overloaded(SidecarError):
    """Too much is waiting in the sidecar already."""

    code = 23
    retryable = True
    hint = "too much is waiting in the sidecar; try later"


class KmsUnavailable(SidecarError):
    """The data key is not cached and no provider could unwrap it in time."""

    code = 24
    retryable = True
    hint = "no provider could unwrap the data key in time; see `keyside status`"


class InternalError(SidecarError):
    """A defect of the sidecar."""

    code = 25
    hint = "a defect of the sidecar; its log has more under the correlation id"


class ShuttingDown(SidecarError):
    """The sidecar is draining."""

    code = 26
    retryable = True
    hint = "the sidecar is shutting down"


BY_CODE: dict[int, type[SidecarError]] = {
    kind.code: kind
    for kind in (
        BadRequest, Denied, UnknownKeyring, UnknownKey, InvalidCiphertext, KeyDisabled, RateLimited, Overloaded,
        KmsUnavailable, InternalError, ShuttingDown,
    )
}  # fmt: skip


def from_code(code: int, message: str = "", index: int | None = None) -> SidecarError:
    """The error of a code. A code that this version does not know is a plain InternalError that names the number."""
    kind = BY_CODE.get(code)
    if kind is None:
        return InternalError(f"unknown error code {code}; the sidecar is newer than this client", index)
    return kind(message, index)


RETRYABLE_CODES = frozenset(code for code, kind in BY_CODE.items() if kind.retryable)
