"""Settings of LUNA_HSM and THALES_HSM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from providers.errors import NotFound, Problem
from providers.options import SECTION, RemoteOptions, Section, Text
from providers.pkcs11.names import KeyName, canonical, covers, label_of
from providers.pkcs11.vendors import VENDORS, Mechanism, Vendor
from providers.secrets import CredentialData, SecretSource


def _kek(kek: str) -> str:
    try:
        return canonical(kek) if "#" in kek else kek
    except NotFound as error:
        raise ValueError("is a label, or the whole name of a key: LABEL#ID, the CKA_ID in hexadecimal") from error


Kek = Annotated[Text, AfterValidator(_kek)]


class PinData(CredentialData):
    """The PIN of the partition's crypto officer or crypto user."""

    pin: SecretSource


class CertificateData(PinData):
    """The files that a network HSM's client presents itself with, checked before every opening, and the PIN."""

    certificate_file: Text
    key_file: Text | None = None
    ca_file: Text | None = None


class TokenCredentials(Section):
    """Log in with a PIN."""

    type: Literal["TOKEN"]
    data: PinData


class CertificateCredentials(Section):
    """The same, on a network HSM that knows this machine by its certificate."""

    type: Literal["CERTIFICATE"]
    data: CertificateData


class Pkcs11Options(RemoteOptions):
    """Which library, which token in it, and which key there."""

    provider: Literal["LUNA_HSM", "THALES_HSM"]
    # the base class knows the four types that all back ends share; here are the two that a token understands
    credentials: Annotated[TokenCredentials | CertificateCredentials, Field(discriminator="type")]  # type: ignore[assignment]
    kek: Kek = "keyside"
    retired_keks: tuple[Kek, ...] = Field(default=(), strict=False)  # labels; unwrap what they wrapped, wrap nothing
    mechanism: Literal["AUTO", Mechanism] = "AUTO"

    @property
    def vendor(self) -> Vendor:
        """The maker's row in the table."""
        return VENDORS[self.provider]

    def unwraps(self, name: KeyName) -> bool:
        """Whether data keys may have been wrapped under it: any key of the label in use, or a retired one."""
        return name.label == label_of(self.kek) or self.is_retired(name)

    def is_retired(self, name: KeyName) -> bool:
        """Whether it is named, by its label or whole, among those that wrap nothing new."""
        return any(covers(kek, name) for kek in self.retired_keks)

    @property
    def token_label(self) -> str | None:
        """The label that the token must have: an HA group is a token of its own, with the group's name for a label."""
        return self.high_availability.ha_group_name or self.connection.partition


def token_problems(hsm: Mapping[str, object]) -> list[Problem]:
    """Say where the choice of a token contradicts itself."""
    availability, connection = hsm.get("highAvailability"), hsm.get("connection")
    grouped = isinstance(availability, Mapping) and "haGroupName" in availability
    chosen = isinstance(connection, Mapping) and "slot" in connection
    if grouped and chosen:
        return [
            Problem(
                f"{SECTION}.connection.slot",
                "a slot is one device's, and highAvailability.haGroupName names a group of them: remove one",
            )
        ]
    return []
