"""The rows that every back end passes, on two servers that each lack something, and on our own, which has all of it."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.providers.aws.rig import AwsRig
from tests.providers.conformance import Conformance


class TestMoto(Conformance):
    """Ciphertexts that authenticate."""

    not_applicable: ClassVar = {
        "test_a_disabled_kek_is_refused": "moto encrypts and decrypts with disabled keys; TestMiniStack has the row",
    }

    @pytest.fixture
    def rig(self, moto_rig: AwsRig) -> AwsRig:
        return moto_rig


class TestMiniStack(Conformance):
    """Key states."""

    not_applicable: ClassVar = {
        "test_an_unknown_kek_is_named": "MiniStack takes the key from the ciphertext when it does not know the one "
        "asked for, which we refuse as an answer by another key; TestMoto has the row",
        "test_every_flipped_byte_is_refused": "MiniStack's ciphertext is an XOR without a tag; TestMoto has the row",
        "test_every_truncation_and_an_extension_are_refused": "as above: MiniStack does not authenticate",
        "test_encrypts_small_values": "as above: MiniStack does not authenticate",
        "test_nothing_secret_is_said": "as above: the row unwraps a changed wrap, which MiniStack lets pass",
    }

    @pytest.fixture
    def rig(self, ministack_rig: AwsRig) -> AwsRig:
        return ministack_rig


class TestFake(Conformance):
    """Every row: what the figures are measured on is no easier than AWS KMS."""

    @pytest.fixture
    def rig(self, fake_rig: AwsRig) -> AwsRig:
        return fake_rig
