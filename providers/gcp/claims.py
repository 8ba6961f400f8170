"""What may be claimed of the key-encryption key, from what the service says of it.

Protection levels: https://cloud.google.com/kms/docs/protection-levels. The service reports a protection level, no
certificate number: the validation is that level's, by Google's own statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from google.cloud.kms_v1.types import CryptoKey, CryptoKeyVersion, ProtectionLevel

from providers.capabilities import ComplianceInfo
from providers.gcp.service import CloudKms


class _Place(NamedTuple):
    storage: str
    validated_to: str | None


_ELSEWHERE: Final = _Place("an external key manager that Cloud KMS asks; what it is, its owner knows", None)
_PLACES: Final = {
    ProtectionLevel.HSM: _Place("Cloud HSM", "FIPS 140-2 level 3"),
    ProtectionLevel.SOFTWARE: _Place("Cloud KMS, in software", "FIPS 140-2 level 1"),
}


async def compliance(service: CloudKms, key: str, mechanism: str) -> ComplianceInfo:
    """Ask for `key` and its primary version. Raises Denied without roles/cloudkms.viewer."""
    shown = await service.call("get_crypto_key", {"name": key}, key)
    name = shown.primary.name or f"{key}/cryptoKeyVersions/1"
    version = await service.call("get_crypto_key_version", {"name": name}, name)
    place = _PLACES.get(version.protection_level, _ELSEWHERE)
    return ComplianceInfo(
        key_storage=f"{place.storage} ({shown.name})",
        validated_to=place.validated_to,
        extractable=False,
        mechanisms=(mechanism,),
        notes=tuple(_notes(shown, version)),
    )


def _notes(key: Any, version: Any) -> Iterator[str]:
    level = ProtectionLevel(version.protection_level)
    algorithm = CryptoKeyVersion.CryptoKeyVersionAlgorithm(version.algorithm)
    yield f"protection level {level.name}, algorithm {algorithm.name}"
    if level in _PLACES:
        yield "the validation is Google's statement about this protection level, not part of the service's answer"
    if version.import_time:
        yield f"imported at {version.import_time:%Y-%m-%d %H:%M} UTC: copies may exist where it came from"
    else:
        yield f"generated there at {version.generate_time:%Y-%m-%d %H:%M} UTC"
    yield _attestation(version, level)
    yield _rotation(key)


def _attestation(version: Any, level: ProtectionLevel) -> str:
    if version.attestation.content:
        return f"the HSM attests it ({version.attestation.format.name}); the statement was not verified here"
    if level == ProtectionLevel.HSM:
        return "no attestation came with it: ask for it with gcloud kms keys versions describe --attestation-file"
    return "no attestation: it is not in an HSM"


def _rotation(key: CryptoKey) -> str:
    if key.rotation_period:
        return f"rotates every {key.rotation_period.days} days, next on {key.next_rotation_time:%Y-%m-%d}"
    return "does not rotate by itself: set a rotation period on the key"
