"""The checkout as the house tests see it: the files that are tracked, and nothing that a build left behind."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def tracked() -> tuple[str, ...]:
    """Paths, relative to the checkout, of the files under version control or about to be (new and not ignored)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(sorted(path for path in listed.stdout.split("\0") if path and (ROOT / path).exists()))


def sources(*suffixes: str) -> list[str]:
    """The tracked files that end in one of `suffixes`."""
    return [path for path in tracked() if path.endswith(suffixes)]


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
