"""When to try again, and how long to wait before: full jitter, never past the deadline."""

from __future__ import annotations

import random
from collections.abc import Sequence

from keyside.connection import PeerGone
from keyside.errors import RETRYABLE_CODES, KeysideError, SidecarError, SidecarUnreachable

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


def pause(attempt: int) -> float:
    """Seconds to wait after failed attempt 0, 1, 2, …: uniform up to a bound that doubles.

    Full jitter spreads clients that failed together (Brooker, "Exponential Backoff and Jitter", 2015).
    """
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))  # noqa: S311  not for secrets


def worth_retrying(error: KeysideError) -> bool:
    """Codes marked retryable, and requests of which nothing was answered.

    A connection that broke in the middle of an answer is the caller's to judge.
    """
    return isinstance(error, (PeerGone, SidecarUnreachable)) or (isinstance(error, SidecarError) and error.retryable)


def retryable_items(body: Sequence[bytes | int | None]) -> list[int]:
    """Positions of failed items whose code says that another attempt may succeed."""
    return [index for index, item in enumerate(body) if type(item) is int and item in RETRYABLE_CODES]
