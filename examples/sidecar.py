"""A sidecar for the time of an example; an application on its own would find one running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from demo.sidecar import Sidecar


@contextmanager
def sidecar(folder: Path, keyrings: Mapping[str, bool]) -> Iterator[str]:
    """The path of its data socket. `keyrings`: name to whether it is partitioned."""
    with Sidecar(folder, "LOCAL") as running:
        running.init()
        running.start()
        for name, partitioned in keyrings.items():
            running.command("keyring", "create", name, *(["--partitioned"] if partitioned else []))
        yield str(running.socket)
