"""Cutting a batch into pieces that fit a frame and keep several workers busy, and what callers get back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from keyside.errors import KeysideError, SidecarError, from_code
from keyside.wire import HELLO, Context, Contexts, Value

OnError = Literal["raise", "return"]
Body: TypeAlias = "list[bytes | int | None]"
"""Results in the order of their items; an int is the code of a failed one."""
Results: TypeAlias = "list[bytes | SidecarError | None]"
"""The same for callers: errors in the places of failed items."""

Outcome: TypeAlias = "tuple[Body, bool] | KeysideError"
"""The results of a request and whether some are codes of failed items; or what it failed with as a whole."""

WHOLE_ITEMS = 512
"""A batch of fewer items is not cut."""
LEAST_ITEMS = 250
BUSY = 4
"""Pieces that keep a few workers busy, and this side with them."""
MOST_ITEMS = 2048
PIECE_BYTES = 256 << 10
"""About the most bytes in one piece; more gains nothing and holds memory on both sides."""


class Job(NamedTuple):
    """A request without its id. Shown without its items, since reports of errors show what frames hold."""

    op: int
    keyring: str
    context: Contexts
    items: list[Value]

    def __repr__(self) -> str:
        return f"Job(op={self.op}, keyring={self.keyring!r}, {len(self.items)} items)"

    def part(self, piece: slice) -> Job:
        context = self.context[piece] if isinstance(self.context, list) else self.context
        return self._replace(context=context, items=self.items[piece])

    def pick(self, indexes: list[int]) -> Job:
        context = [self.context[i] for i in indexes] if isinstance(self.context, list) else self.context
        return self._replace(context=context, items=[self.items[i] for i in indexes])

    def halves(self) -> tuple[Job, Job]:
        middle = len(self.items) // 2
        return self.part(slice(0, middle)), self.part(slice(middle, len(self.items)))


HELLO_JOB: Final = Job(HELLO, "", None, [b"", b"", b"", b""])
"""As many items as the answer has, so that it is checked like any other."""


def listed(items: Sequence[Value]) -> list[Value]:
    """The items as a list. Raises TypeError for a lone value, which is a sequence too."""
    if type(items) is list:
        return items
    if isinstance(items, (bytes, str, bytearray, memoryview)):
        raise TypeError("expected a sequence of values; for one value use the call without _many")
    return list(items)


def shared_or_listed(context: Contexts, count: int) -> bytes | str | list[Context] | None:
    """A context for all items as it is, or one an item as a list. Raises ValueError when their number differs."""
    if context is None or isinstance(context, (bytes, str)):
        return context
    if isinstance(context, (bytearray, memoryview)):
        return bytes(context)
    contexts = list(context)
    if len(contexts) != count:
        raise ValueError(f"{len(contexts)} contexts for {count} items")
    return contexts


def cut(items: list[Value], pieces: int = BUSY) -> list[slice]:
    """Consecutive slices of the batch, at least about so many of a large one.

    Sizes are guessed from a few items, since looking at each would cost as much as packing them; a piece that turns
    out longer
    than a frame may be is halved when it is packed.
    """
    count = len(items)
    sample = items[:: max(1, count // 8)]
    typical = sum(len(item) for item in sample if item is not None) // max(1, len(sample)) + 8
    if count < WHOLE_ITEMS and typical * count <= PIECE_BYTES:
        return [slice(0, count)]
    step = min(max(LEAST_ITEMS, -(-count // pieces)), MOST_ITEMS, max(1, PIECE_BYTES // typical))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def batch(op: int, keyring: str, values: Sequence[Value], context: Contexts, on_error: OnError) -> Job:
    """What a caller of a batch method asks for. Mistakes are found before anything is sent: TypeError, ValueError."""
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error: expected 'raise' or 'return', not {on_error!r}")
    items = listed(values)
    return Job(op, keyring, shared_or_listed(context, len(items)), items)


def settle(body: Body, some_failed: bool, on_error: OnError) -> Results:
    """Failed items as errors in their places; or the first of them raised."""
    if not some_failed:
        # looking at each item again would cost too much
        return cast("Results", body)
    settled: list[bytes | SidecarError | None] = []
    for index, item in enumerate(body):
        if isinstance(item, int):
            error = from_code(item, index=index)
            if on_error == "raise":
                raise error
            settled.append(error)
        else:
            settled.append(item)
    return settled


def settle_outcome(outcome: Outcome) -> Results | KeysideError:
    """An outcome as callers get it."""
    if isinstance(outcome, KeysideError):
        return outcome
    body, some_failed = outcome
    return settle(body, some_failed, "return")
