"""Key identifiers of AWS KMS, and the form in which a wrap records its key.

https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id
"""

from __future__ import annotations

import re
from typing import Final

ANY_REGION: Final = "*"

_ID: Final = r"(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|mrk-[0-9a-fA-F]{32})"
_ALIAS: Final = r"alias/[a-zA-Z0-9/_-]{1,250}"
_ARN: Final = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kms:(?P<region>[a-z0-9-]+|\*):(?P<account>[0-9]{12}):(?P<resource>.+)"
)
_NAME: Final = re.compile(f"{_ID}|{_ALIAS}")
_RESOURCE: Final = re.compile(f"key/{_ID}|{_ALIAS}")


def is_identifier(name: str) -> bool:
    """Whether `name` is a key id, a key ARN, `alias/NAME` or an alias ARN."""
    if _NAME.fullmatch(name):
        return True
    arn = _ARN.fullmatch(name)
    return arn is not None and arn["region"] != ANY_REGION and _RESOURCE.fullmatch(arn["resource"]) is not None


def region_of(name: str) -> str | None:
    """The region that an ARN names; None for other names and for multi-Region keys, which are at home in several."""
    arn = _ARN.fullmatch(name)
    return None if arn is None or arn["resource"].startswith("key/mrk-") else arn["region"]


def is_key_arn(name: object) -> bool:
    """Whether `name` is what the service answers with: the ARN of a key in one region."""
    return isinstance(name, str) and is_identifier(name) and ":key/" in name


def account_of(name: str) -> str | None:
    """The twelve digits of the account that an ARN names; None for other names."""
    arn = _ARN.fullmatch(name)
    return None if arn is None else arn["account"]


def recorded(arn: str) -> str:
    """What a wrap records of the key with this ARN: the ARN, its region replaced by `*` when the key is multi-Region.

    Replicas of a multi-Region key have the same id and key material in each region, so that a wrap made in one unwraps
    in all: its record must not say where it was made.
    """
    match = _ARN.fullmatch(arn)
    if match is None or not match["resource"].startswith("key/mrk-"):
        return arn
    return _joined(match, ANY_REGION)


def addressed(kek: str, region: str) -> str:
    """The inverse of `recorded`: the key's ARN for a call to `region`."""
    match = _ARN.fullmatch(kek)
    return kek if match is None or match["region"] != ANY_REGION else _joined(match, region)


def _joined(arn: re.Match[str], region: str) -> str:
    return f"arn:{arn['partition']}:kms:{region}:{arn['account']}:{arn['resource']}"
