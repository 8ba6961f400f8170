"""Looks for plaintext in the bytes on disk, and says what such a search cannot decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Bytes. Among 20,000 values and ten megabytes of ciphertext, chance alone makes a find with probability 17 % when the
# values have five bytes, and 0.07 % when they have six.
SHORTEST = 6


@dataclass(frozen=True)
class Needles:
    """The distinct values of the secret columns, sorted by what a search can say about them."""

    sought: frozenset[bytes]
    short: frozenset[bytes]  # under SHORTEST bytes: ciphertext holds them by chance
    in_the_open: frozenset[bytes]  # also part of a column that was left readable


def needles(values: Iterable[str | None], readable: Iterable[str | None]) -> Needles:
    """Sort the distinct `values`. `readable` is every text that was left in the clear."""
    distinct = {value.encode() for value in values if value}
    clear = b"\0".join({text.encode() for text in readable if text})
    long = {value for value in distinct if len(value) >= SHORTEST}
    in_the_open = {value for value in long if value in clear}
    return Needles(frozenset(long - in_the_open), frozenset(distinct - long), frozenset(in_the_open))


def by_chance(sought: frozenset[bytes], size: int) -> float:
    """How many finds to expect in `size` random bytes."""
    return sum(float(size) / 256.0 ** len(value) for value in sought)


def found(sought: frozenset[bytes], files: Mapping[str, bytes]) -> dict[bytes, str]:
    """Which of the values occur, anywhere and at any alignment, and the name of a file that holds each.

    One pass: every position's first SHORTEST bytes are looked up among those of the values.
    """
    by_start: dict[bytes, list[bytes]] = {}
    for value in sought:
        by_start.setdefault(value[:SHORTEST], []).append(value)
    starts = by_start.keys()
    hits: dict[bytes, str] = {}
    for name, content in files.items():
        windows = (at for at in range(len(content) - SHORTEST + 1) if content[at : at + SHORTEST] in starts)
        for at in windows:
            for value in by_start[content[at : at + SHORTEST]]:
                if content.startswith(value, at):
                    hits[value] = name
    return hits
