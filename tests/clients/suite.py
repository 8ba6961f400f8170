"""What a client and any sidecar must do together. Subclass it and give a fixture `data_socket`: the path of a data
socket.

The sidecar must have the keyrings `contacts` (index_bits 128) and `users` (partitioned), and let this process do
everything on them.
"""

import asyncio
import secrets
from collections.abc import Iterator

import keyside
import pytest
from keyside import AsyncClient, Client

CONTEXT = b"contacts.phone"


class ClientSuite:
    @pytest.fixture
    def ks(self, data_socket: str) -> Iterator[Client]:
        with Client(data_socket, timeout=10) as client:
            yield client

    def test_a_value_comes_back_and_is_38_bytes_longer_at_rest(self, ks: Client) -> None:
        envelope = ks.encrypt("contacts", b"alice@example.org", CONTEXT)
        assert len(envelope) == len(b"alice@example.org") + 38
        assert b"alice" not in envelope
        assert ks.decrypt("contacts", envelope, CONTEXT) == b"alice@example.org"

    @pytest.mark.parametrize("size", [0, 1, 217, 218, 255, 256, 4096, 4097, 65_535, 65_536, 1_000_000])
    def test_sizes_around_every_border_of_the_encoding(self, ks: Client, size: int) -> None:
        value = secrets.token_bytes(size)
        assert ks.decrypt("contacts", ks.encrypt("contacts", value)) == value

    def test_str_is_its_utf_8_and_text_contexts_equal_byte_contexts(self, ks: Client) -> None:
        envelope = ks.encrypt("users/zoë", "naïve", "users.name")
        assert ks.decrypt("users/zoë", envelope, b"users.name") == "naïve".encode()

    def test_two_envelopes_of_one_value_differ(self, ks: Client) -> None:
        assert len(set(ks.encrypt_many("contacts", [b"same"] * 100))) == 100

    def test_an_empty_context_is_no_context(self, ks: Client) -> None:
        assert ks.decrypt("contacts", ks.encrypt("contacts", b"x", b""), None) == b"x"

    def test_nulls_stay_nulls_and_empty_values_stay_empty(self, ks: Client) -> None:
        envelopes = ks.encrypt_many("contacts", [None, b"", "text", None], CONTEXT)
        assert [e is None for e in envelopes] == [True, False, False, True]
        assert ks.decrypt_many("contacts", envelopes, CONTEXT) == [None, b"", b"text", None]

    def test_an_empty_batch(self, ks: Client) -> None:
        assert ks.encrypt_many("contacts", []) == []

    @pytest.mark.parametrize("count", [1, 15, 16, 511, 512, 1000, 5000])
    def test_batches_come_back_in_order(self, ks: Client, count: int) -> None:
        values = [b"%d" % i for i in range(count)]
        assert ks.decrypt_many("contacts", ks.encrypt_many("contacts", values, CONTEXT), CONTEXT) == values

    def test_a_context_an_item_survives_the_cutting_of_a_batch(self, ks: Client) -> None:
        values = [b"%d" % i for i in range(1500)]
        contexts = [None if i % 7 == 0 else b"column %d" % i for i in range(1500)]
        envelopes = ks.encrypt_many("contacts", values, contexts)
        assert ks.decrypt_many("contacts", envelopes, tuple(contexts)) == values
        assert ks.decrypt("contacts", envelopes[1] or b"", b"column 1") == b"1"
        shifted = ks.decrypt_many("contacts", envelopes, contexts[1:] + contexts[:1], on_error="return")
        assert all(isinstance(item, keyside.InvalidCiphertext) for item in shifted)

    @pytest.mark.parametrize("spoil", ["context", "bit", "truncated", "keyring", "nonsense", "empty"])
    def test_what_does_not_open_is_invalid_ciphertext(self, ks: Client, spoil: str) -> None:
        envelope = ks.encrypt("contacts", b"value", CONTEXT)
        other = ks.encrypt("users/1", b"value", CONTEXT)
        spoiled = {
            "context": envelope,
            "bit": envelope[:-1] + bytes([envelope[-1] ^ 1]),
            "truncated": envelope[:-1],
            "keyring": other,
            "nonsense": b"nonsense",
            "empty": b"",
        }[spoil]
        with pytest.raises(keyside.InvalidCiphertext) as caught:
            ks.decrypt("contacts", spoiled, b"contacts.mail" if spoil == "context" else CONTEXT)
        assert caught.value.code == 20
        assert not caught.value.retryable

    def test_one_bad_row_does_not_cost_the_batch(self, ks: Client) -> None:
        envelopes = ks.encrypt_many("contacts", [b"a", b"b", None, b"c"], CONTEXT)
        envelopes[1] = b"rotten"
        results = ks.decrypt_many("contacts", envelopes, CONTEXT, on_error="return")
        assert (results[0], results[2], results[3]) == (b"a", None, b"c")
        assert isinstance(results[1], keyside.InvalidCiphertext)
        assert results[1].index == 1
        with pytest.raises(keyside.InvalidCiphertext, match="item 1"):
            ks.decrypt_many("contacts", envelopes, CONTEXT)

    def test_another_word_for_on_error_is_found_before_an_item_fails(self, ks: Client) -> None:
        with pytest.raises(ValueError, match="'raise' or 'return', not 'ignore'"):
            ks.decrypt_many("contacts", [], CONTEXT, on_error="ignore")  # type: ignore[call-overload]  # what is tested

    def test_a_bad_row_in_a_cut_batch_keeps_its_place(self, ks: Client) -> None:
        envelopes = ks.encrypt_many("contacts", [b"%d" % i for i in range(1200)])
        envelopes[1111] = b"rotten"
        results = ks.decrypt_many("contacts", envelopes, on_error="return")
        assert [i for i, item in enumerate(results) if isinstance(item, Exception)] == [1111]
        assert isinstance(results[1111], keyside.InvalidCiphertext)
        assert results[1111].index == 1111

    @pytest.mark.parametrize("keyring", ["nobody", "users", "contacts/1"])
    def test_unknown_keyrings_and_wrong_forms_of_their_names(self, ks: Client, keyring: str) -> None:
        with pytest.raises(keyside.UnknownKeyring):
            ks.encrypt(keyring, b"x")
        with pytest.raises(keyside.UnknownKeyring):
            ks.encrypt_many(keyring, [b"x"] * 600)

    @pytest.mark.parametrize("keyring", ["", "-", "a b", "contacts/", "users/\x00", "x" * 65])
    def test_names_that_are_no_names(self, ks: Client, keyring: str) -> None:
        with pytest.raises(keyside.BadRequest):
            ks.encrypt(keyring, b"x")
        assert ks.encrypt("contacts", b"x")

    def test_a_context_that_is_too_long(self, ks: Client) -> None:
        with pytest.raises(keyside.BadRequest):
            ks.encrypt("contacts", b"x", bytes(65_536))
        assert ks.decrypt("contacts", ks.encrypt("contacts", b"x", bytes(65_535)), bytes(65_535)) == b"x"

    def test_blind_indexes_are_equal_for_equal_values_only(self, ks: Client) -> None:
        index = ks.blind_index("contacts", b"alice@example.org", b"contacts.email")
        assert len(index) == 16
        assert index == ks.blind_index("contacts", "alice@example.org", "contacts.email")
        assert index != ks.blind_index("contacts", b"bob@example.org", b"contacts.email")
        assert index != ks.blind_index("contacts", b"alice@example.org", b"contacts.name")
        assert ks.blind_index_many("contacts", ["alice@example.org", None], "contacts.email") == [index, None]
        assert ks.blind_index("users", b"x") != ks.blind_index("users/1", b"x")

    def test_reencrypting_what_is_current_changes_nothing(self, ks: Client) -> None:
        envelopes = ks.encrypt_many("contacts", [b"a", None], CONTEXT)
        assert ks.reencrypt_many("contacts", envelopes, CONTEXT) == envelopes
        assert ks.reencrypt("contacts", envelopes[0] or b"", CONTEXT) == envelopes[0]
        with pytest.raises(keyside.InvalidCiphertext):
            ks.reencrypt("contacts", b"rotten", CONTEXT)

    def test_hello(self, ks: Client) -> None:
        hello = ks.hello()
        assert hello.product.startswith("keyside/")
        assert hello.protocol == "1"
        assert hello.max_frame > 0
        assert hello.max_items == 131_072

    async def test_the_asyncio_client_does_the_same(self, data_socket: str) -> None:
        async with AsyncClient(data_socket, timeout=10) as ks:
            envelopes = await asyncio.gather(
                *[ks.encrypt("contacts", b"%d" % i, b"c %d" % (i % 3)) for i in range(500)]
            )
            values = await asyncio.gather(
                *[ks.decrypt("contacts", e, b"c %d" % (i % 3)) for i, e in enumerate(envelopes)]
            )
            assert values == [b"%d" % i for i in range(500)]
            many = await ks.encrypt_many("users/9", [b"x", None] * 700, "users.x")
            assert await ks.decrypt_many("users/9", many, "users.x") == [b"x", None] * 700
            assert (await ks.hello()).max_items == 131_072
            good, bad = await asyncio.gather(
                ks.decrypt("contacts", envelopes[0], b"c 0"),
                ks.decrypt("contacts", envelopes[1], b"c 0"),
                return_exceptions=True,
            )
            assert good == b"0"
            assert isinstance(bad, keyside.InvalidCiphertext)
