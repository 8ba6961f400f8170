"""The client suite against the twin."""

import pytest
from keyside import Client
from keyside.testing.server import Twin

from tests.clients.suite import ClientSuite


class TestAgainstTheTwin(ClientSuite):
    @pytest.fixture
    def data_socket(self, twin: Twin) -> str:
        return twin.path


def test_reencrypting_moves_to_the_active_key(client: Client, twin: Twin) -> None:
    old = client.encrypt("contacts", b"value", b"c")
    twin.vault.rotate("contacts")
    new = client.reencrypt("contacts", old, b"c")
    assert new[2:10] != old[2:10]
    assert client.decrypt_many("contacts", [old, new], b"c") == [b"value", b"value"]


def test_the_width_of_a_blind_index_is_the_keyrings(client: Client) -> None:
    assert len(client.blind_index("narrow", b"x")) == 4


def test_requests_arrive_in_the_shortest_form(client: Client, twin: Twin) -> None:
    # the twin parses any form; what leaves is compared with its own shortest building
    client.encrypt("contacts", b"x" * 300, "c")
    client.encrypt_many("contacts", [b"a", None, "b"], [None, b"x", "y"])
    assert [(r.op, r.keyring, r.context, r.items) for r in twin.requests] == [
        (1, "contacts", b"c", [b"x" * 300]),
        (1, "contacts", [None, b"x", b"y"], [b"a", None, b"b"]),
    ]


@pytest.mark.parametrize("pool_size", [1, 4])
def test_a_batch_that_begins_short_and_goes_on_long(twin: Twin, pool_size: int) -> None:
    # the long parts ask HELLO first, while the answer to a short one lies in the same buffer
    values = [b"x"] * 250 + [b"y" * 2000] * 350
    with Client(twin.path, timeout=5, pool_size=pool_size) as ks:
        envelopes = ks.encrypt_many("contacts", values)
        assert ks.decrypt_many("contacts", envelopes) == values
