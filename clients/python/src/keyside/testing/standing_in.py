"""A twin in the place of the sidecar that an application is configured for."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from keyside.testing.server import Twin, running

VARIABLE = "KEYSIDE_SOCKET"


@contextmanager
def standing_in() -> Iterator[Twin]:
    """A twin in this process, with keyrings of any name, which everything in the process asks while the block runs."""
    with ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="keyside-"))
        twin = ends.enter_context(running(Path(folder, "keyside.sock"), keyrings=None))
        ends.enter_context(_in_environment(twin.path))
        if "django" in sys.modules:
            # the setting names the sidecar with the real keys, and would win over the variable
            with suppress(ImportError):  # a Django that keyside.django does not support asks no sidecar
                from keyside.django.settings import sidecar_at

                ends.enter_context(sidecar_at(twin.path))
        yield twin


@contextmanager
def _in_environment(path: str) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = path
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
