"""HTTP/1.1 and JSON on the data socket, one connection kept open: for curl and languages without a client."""

import base64
import json
from collections.abc import Iterator

import pytest
from keyside import Client, from_text
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.sidecar import Sidecar, SocketConnection
from benchmarks.traffic import CONTEXT, fields

pytestmark = pytest.mark.benchmark(group="HTTP and JSON, encrypt")


@pytest.fixture
def link(sidecar: Sidecar) -> Iterator[SocketConnection]:
    connection = SocketConnection(sidecar.path)
    yield connection
    connection.close()


@pytest.mark.parametrize("count", [1, 100])
def test_encrypt(benchmark: BenchmarkFixture, client: Client, link: SocketConnection, count: int) -> None:
    values = fields(count, 64)
    request = json.dumps(
        {
            "keyring": "contacts",
            "context": base64.b64encode(CONTEXT).decode(),
            "items": [base64.b64encode(value).decode() for value in values],
        }
    )

    def post() -> bytes:
        link.request("POST", "/v1/encrypt", request)
        return link.getresponse().read()

    answer = json.loads(benchmark(post))
    envelopes = [from_text(text) for text in answer["items"]]
    assert client.decrypt_many("contacts", envelopes, context=CONTEXT) == values
