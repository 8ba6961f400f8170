"""Folders with short names, and one sidecar for all tests that only ask it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import log
from tests.proxy.service.sidecar import Sidecar, folder, initialize, running


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    # log.configure() is for a process of its own
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in log.OURS}
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for name in log.SILENT:
        logging.getLogger(name).disabled = False
    logging.captureWarnings(False)


@pytest.fixture
def home() -> Iterator[Path]:
    with folder() as path:
        yield path


@pytest.fixture(scope="session")
def sidecar() -> Iterator[Sidecar]:
    """A sidecar with the keyrings `users` (partitioned) and `contacts`; tests leave it as it is, but for data keys."""
    with folder() as path, running(initialize(path, log="{level: debug}"), execute=True) as started:
        started.run("keyring", "create", "users", "--partitioned")
        started.run("keyring", "create", "contacts", "--index-bits", "64")
        yield started
