"""Reading another process's memory as root, and the forms in which a key could stand in it."""

from __future__ import annotations

import base64
import re
from pathlib import Path


def forms(secret: bytes) -> dict[str, bytes]:
    """Byte strings that give the secret away, by name: itself, its halves, hexadecimal, base64 in three alignments."""
    found = {
        "raw": secret,
        "first half": secret[:16],
        "second half": secret[16:],
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
    }
    for shift in range(3):
        # characters that bytes before and after the secret change are left out
        text = base64.b64encode(b"\0" * shift + secret)
        inner = text[-(-shift * 8 // 6) : (shift + len(secret)) * 8 // 6]
        found[f"base64 +{shift}"] = inner
        found[f"base64url +{shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def find(pid: int, needles: dict[str, bytes]) -> tuple[dict[str, int], int]:
    """How often each needle stands in the readable memory of `pid`, and how many mappings even root cannot read."""
    hits = dict.fromkeys(needles, 0)
    hidden = 0
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for row in maps:
            match = re.match(r"(\w+)-(\w+) (\S+)", row)
            assert match is not None
            low, high, mode = int(match[1], 16), int(match[2], 16), match[3]
            if "r" not in mode or "[v" in row:
                continue
            try:
                memory.seek(low)
                block = memory.read(high - low)
            except OSError:
                hidden += 1
                continue
            for name, needle in needles.items():
                hits[name] += block.count(needle)
    return hits, hidden
