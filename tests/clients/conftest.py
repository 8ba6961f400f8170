"""A twin that serves each test, and clients of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from keyside import AsyncClient, Client
from keyside.testing.server import ThreadedTwin, Twin


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[ThreadedTwin]:
    threaded = ThreadedTwin(tmp_path / "twin.sock")
    threaded.start()
    yield threaded
    threaded.stop()


@pytest.fixture
def twin(threaded: ThreadedTwin) -> Twin:
    return threaded.twin


@pytest.fixture
def client(twin: Twin) -> Iterator[Client]:
    with Client(twin.path, timeout=5) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(twin: Twin) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(twin.path, timeout=5) as client:
        yield client
