"""Giving back the resident memory that only start-up needed.

Imports touch tens of megabytes of shared libraries once and never again. The kernel drops those pages under pressure
alone; here they are dropped when start-up is over. Whatever is needed again is mapped again from the page cache.
"""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MADV_DONTNEED: Final = 4


class Mapping(NamedTuple):
    """A range of addresses that a file backs."""

    start: int
    size: int  # bytes
    path: str


def give_back(keep: str, smaps: Path = Path("/proc/self/smaps")) -> int:
    """Drop clean, file-backed, read-only pages; returns how many bytes of address space were advised.

    `keep`: a word in the paths of libraries to leave in place: the data plane's, whose next request must not fault.
    Where the kernel does not tell or does not do it, memory stays as it is.
    """
    gc.collect()
    gc.freeze()
    try:
        text = smaps.read_text()
    except OSError:
        return 0
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    given = 0
    for mapping in clean_file_mappings(text):
        if keep not in mapping.path and madvise(mapping.start, mapping.size, MADV_DONTNEED) == 0:
            given += mapping.size
    return given


def clean_file_mappings(smaps: str) -> Iterator[Mapping]:
    """Private, unwritable mappings of files without a page of their own.

    One page changed by relocation (`Anonymous:`) rules a mapping out: it would come back as it is in the file.
    """
    candidate: Mapping | None = None
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            candidate = _candidate(words)
        elif words[0] == "Anonymous:" and candidate is not None and words[1] == "0":
            yield candidate


def _candidate(words: list[str]) -> Mapping | None:
    if len(words) < 6 or not words[5].startswith("/") or words[1] not in ("r-xp", "r--p"):
        return None
    start, end = (int(address, 16) for address in words[0].split("-"))
    return Mapping(start, end - start, words[5])
