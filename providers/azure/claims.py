"""What can be claimed of the key-encryption key, from what the service says of it."""

from __future__ import annotations

from typing import Final

from providers.azure.bundles import Bundle
from providers.azure.options import OAEP, SIGNED_OAEP
from providers.azure.service import Service
from providers.capabilities import ComplianceInfo
from providers.errors import Denied

_ANYBODY_WRAPS: Final = (
    "wraps are not signed: whoever may write the keystore and has the key's public part can put a data key in that he "
    f"knows; {SIGNED_OAEP} prevents it"
)


async def claims(service: Service) -> ComplianceInfo:
    """Ask for the key and its rotation policy."""
    found = await service.look()
    notes = [
        f"{found.name}, type {found.kty}, made {found.created:%Y-%m-%d}"
        if found.created
        else f"{found.name}, {found.kty}",
        f"recovery level {found.recovery or 'not said'}: a deleted key is recoverable for a time, and then purged",
        await _rotation(service, found),
    ]
    if service.mechanism == OAEP:
        notes.append(_ANYBODY_WRAPS)
    storage = "HSM of" if found.kty.endswith("-HSM") else "software of"
    return ComplianceInfo(
        key_storage=f"{storage} Azure ({service.vault.url})",
        validated_to=found.validated_to,
        extractable=found.exportable or not found.kty.endswith("-HSM"),
        mechanisms=(service.mechanism,),
        notes=tuple(notes),
    )


async def _rotation(service: Service, found: Bundle) -> str:
    path = f"{found.name.at(None).path}/rotationpolicy"
    try:
        policy = await service.vault.ask("GET", path, "rotationpolicy")
    except Denied:
        return "rotation: the policy may not be read (permission getrotationpolicy)"
    triggers = [
        action.get("trigger", {})
        for action in policy.get("lifetimeActions") or ()
        if str(action.get("action", {}).get("type")).lower() == "rotate"
    ]
    if not triggers:
        return "rotation: by hand"
    return "rotation: " + ", ".join(
        f"{name} {value}" for trigger in triggers for name, value in trigger.items() if value
    )
