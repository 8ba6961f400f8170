"""Inputs for the fuzz targets: pieces of good ones, broken a little. The same seed gives the same inputs."""

from __future__ import annotations

import random
from collections.abc import Sequence

# what lengths and counts of MessagePack are worth being replaced with
EDGES = [b"\x00", b"\x1f", b"\x20", b"\x7f", b"\x80", b"\xc0", b"\xc1", b"\xff", b"\xff\xff", b"\x00\x00\x00\x00"]
EDGES += [
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
]
EDGES += [b"\xdb\x00\x00\x00\x01", b"\x90", b"\x95", b"\x9f", b"\xdc\x00\x05", b"\xc4\x00", b"\xd9\x01", b"\xa1"]


class Mutator:
    """Broken copies of a corpus."""

    def __init__(self, corpus: Sequence[bytes], seed: int) -> None:
        self.corpus = list(corpus)
        self.chance = random.Random(seed)

    def choose(self) -> bytes:
        return self.chance.choice(self.corpus)

    def next(self, most: int = 6) -> bytes:
        """One input: a corpus entry with 0 to `most` changes."""
        data = bytearray(self.choose())
        for _ in range(self.chance.randrange(most + 1)):
            self.change(data)
        return bytes(data)

    def change(self, data: bytearray) -> None:
        chance = self.chance
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 2:
            edge = chance.choice(EDGES)
            data[at : at + len(edge)] = edge
        elif kind == 3:
            data[at:at] = chance.choice(EDGES)
        elif kind == 4:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            other = self.choose()
            cut = chance.randrange(len(other) + 1)
            data[at:] = other[cut:]
        else:
            run = data[at : at + chance.randrange(1, 30)]
            data[at:at] = run * chance.randrange(1, 4)

    def pieces(self, data: bytes) -> list[bytes]:
        """`data` in the portions in which it is sent."""
        cuts = sorted(self.chance.randrange(len(data) + 1) for _ in range(self.chance.choice((0, 0, 0, 1, 2, 5))))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a != b]
