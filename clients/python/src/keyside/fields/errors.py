"""What can go wrong with encrypted columns, one tree, all of them KeysideError:

    FieldError
    ├── FieldUnreadable                  a stored value does not open: wrong key, tampered with, or of another place
    ├── FieldUnwritable (ValueError)     a value that the column's encoding cannot hold
    ├── FieldUnavailable                 the sidecar cannot be asked now; retryable, nothing was written
    ├── FieldRefused                     the sidecar does not allow it: policy, keyring, a disabled key
    ├── BindingMissing                   the row's key or partition is not known here
    ├── NotSearchable (TypeError)        a condition that randomised ciphertexts cannot answer
    ├── UnbatchedCall                    a round trip for one value, where the application allows none
    └── NotInstalled (RuntimeError)      the hooks have no client yet

Messages name table, column and row key, never a value or a ciphertext.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from keyside.errors import KeysideError

P = ParamSpec("P")
R = TypeVar("R")


class FieldError(KeysideError):
    """Base of the errors of encrypted columns."""

    def __init__(self, message: str, table: str = "", column: str = "", key: tuple[Any, ...] | None = None) -> None:
        self.table = table
        self.column = column
        self.key = key
        """The row's key as far as the statement tells it; None when it does not."""
        place = f"{table}.{column}" if column else table
        if key is not None:
            place += f" of row {key[0] if len(key) == 1 else key!r}"
        super().__init__(f"{place}: {message}" if place else message)


class FieldUnreadable(FieldError):
    """The stored value does not open with this column's keyring, partition and context. `__cause__` is the sidecar's
    error."""


class FieldUnwritable(FieldError, ValueError):
    """The value is of a type or size that the column's encoding cannot hold."""


class FieldUnavailable(FieldError):
    """The sidecar did not answer, or cannot serve now. Nothing was sent to the database for it."""

    retryable = True


class FieldRefused(FieldError):
    """The sidecar refused the whole request. `__cause__` says why."""


class BindingMissing(FieldError):
    """The column is bound to a row key or a partition that neither the row nor `keyside.context` tells."""


class NotSearchable(FieldError, TypeError):
    """The condition cannot be answered on an encrypted column."""


class UnbatchedCall(FieldError):
    """A value was read or written with a round trip of its own under `unbatched="error"`."""


class NotInstalled(FieldError, RuntimeError):
    """The engine or connection has no Keyside client."""


class UnbatchedWarning(UserWarning):
    """A value was read or written with a round trip of its own."""


class BatchingOff(UserWarning):
    """The ORM is not the one that batching was made for: every value takes a round trip of its own."""


def bare_errors(work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """What `work` returns. A FieldError leaves it without the frames beneath: reports of errors show the variables of
    frames, and those hold the plaintext of whole chunks of rows."""
    try:
        return work(*arguments, **named)
    except FieldError as error:
        failed = error
    del arguments, named  # of this frame, which stays
    shed: BaseException | None = failed
    while shed is not None:
        # what was handled meanwhile are conversions that failed: they quote plaintext, and hold frames of their own
        shed.__traceback__ = shed.__context__ = None
        shed = shed.__cause__
    try:
        raise failed
    finally:
        del failed  # this frame and its own traceback would hold each other
