"""What CloudTrail recorded of a key.

https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from providers.aws.names import addressed
from providers.capabilities import AuditRecord
from providers.errors import Denied

if TYPE_CHECKING:
    from providers.aws.client import KmsClient

_PAGE: Final = 50  # the most that one call answers
_DETAILS: Final = ("eventID", "requestID", "sourceIPAddress", "userAgent", "errorCode")


async def events(
    kms: KmsClient, kek: str, since: datetime, until: datetime, limit: int
) -> Sequence[AuditRecord] | None:
    """At most `limit` events about `kek`, oldest first; None where CloudTrail may not be read.

    CloudTrail answers newest first, 50 at a time and twice a second: a long time of a busy key takes many calls, and
    requestTimeout bounds them together.
    """
    found: list[AuditRecord] = []
    page: dict[str, Any] = {}
    while True:
        try:
            answer = await kms.other(
                "cloudtrail",
                "lookup_events",
                LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": addressed(kek, kms.region)}],
                StartTime=since,
                EndTime=until,
                MaxResults=_PAGE,
                **page,
            )
        except Denied:
            return None
        found += [_record(event) for event in answer.get("Events", [])]
        if not (token := answer.get("NextToken")):
            return sorted(found, key=lambda record: record.at)[:limit]
        page = {"NextToken": token}


def _record(event: Mapping[str, Any]) -> AuditRecord:
    said = _parsed(event.get("CloudTrailEvent"))
    at = event.get("EventTime")
    identity = said.get("userIdentity")
    caller = identity.get("arn") if isinstance(identity, dict) else None
    return AuditRecord(
        at=at if isinstance(at, datetime) else datetime.fromtimestamp(0, UTC),
        operation=str(event.get("EventName", "")),
        caller=str(caller or event.get("Username", "")),
        succeeded="errorCode" not in said,
        details={**_context(said), **{name: str(said[name]) for name in _DETAILS if name in said}},
    )


def _context(said: Mapping[str, Any]) -> dict[str, str]:
    parameters = said.get("requestParameters")
    context = parameters.get("encryptionContext") if isinstance(parameters, dict) else None
    return {str(name): str(value) for name, value in context.items()} if isinstance(context, dict) else {}


def _parsed(text: object) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
