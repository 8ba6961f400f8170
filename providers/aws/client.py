"""AWS KMS as this package uses it: a few typed calls over the SDK, answers checked, errors ours. Imports the SDK."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    InvalidRegionError,
    MetadataRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from providers.aws.credentials import authorities, home, open_session, quick
from providers.aws.direct import DirectCalls, binary, parsed, request_body, revealed
from providers.aws.names import addressed, is_key_arn, recorded
from providers.aws.options import AwsOptions, endpoint_problem
from providers.aws.refusals import DRY_RUN_SUCCEEDED, Asked, foreign_ciphertext, malformed, refusal
from providers.aws.transport import Transport, session_class
from providers.endpoints import is_tls
from providers.errors import (
    ConfigurationInvalid,
    CredentialsInvalid,
    Denied,
    Problem,
    ProviderError,
    Tampered,
    Unavailable,
)
from providers.tls import client_context
from providers.wiping import wipe

SYMMETRIC_DEFAULT: Final = "SYMMETRIC_DEFAULT"
MAX_BLOB_BYTES: Final = 6144  # CiphertextBlob, by the API reference
MAX_PLAINTEXT_BYTES: Final = 4096

_TELLING_BYTES: Final = 16  # shorter plaintexts may be found in a good ciphertext by chance

# what a dry run is about: a policy with conditions on our encryption context lets it through
_DRY_RUN_CONTEXT: Final = {"keyside:version": "1", "keyside:purpose": "field"}

for _name in ("botocore", "aiobotocore"):
    # their debug lines hold whole requests and answers: data keys in base64, session tokens; their warnings are
    # tracebacks of what is raised as well, and said once by whoever catches it
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What Encrypt answered."""

    kek: str  # as a wrap records it
    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What DescribeKey said."""

    kek: str  # as a wrap records it
    state: str  # `Enabled`, `Disabled`, `PendingDeletion`, ...
    usage: str
    spec: str
    origin: str
    multi_region: bool
    created_at: datetime | None
    deletion_at: datetime | None


class KmsClient:
    """One SDK client: credentials as they were when it was opened, renewed where they renew themselves."""

    def __init__(self, options: AwsOptions, base: Path, session: Any, client: Any, direct: DirectCalls) -> None:
        self._options = options
        self._base = base
        self._session = session
        self._client = client
        self._direct = direct
        self.region: str = client.meta.region_name
        self.proven = False  # whether the service has ever accepted these credentials

    @classmethod
    async def open(cls, options: AwsOptions, base: Path, transport: Transport) -> KmsClient:
        """Read credentials, find the endpoint, and send to it through `transport`. Calls nobody in AWS KMS yet."""
        try:
            session = open_session(options, base)
            client = await session.create_client(
                "kms",
                region_name=home(options),
                endpoint_url=options.connection.endpoint,
                config=quick(
                    options,
                    http_session_cls=session_class(transport, AioAWSResponse),
                    parameter_validation=False,  # ours are right; each check costs as much as a signature
                    user_agent="keyside",  # otherwise composed anew at each call
                    use_fips_endpoint=options.use_fips_endpoint,
                ),
            ).__aenter__()
        except BotoCoreError as error:
            raise _translated(error, Asked("CreateClient", options.kek, "")) from None
        except ValueError:
            raise ConfigurationInvalid(
                [
                    Problem(
                        "hsm.connection.endpoint", "the AWS SDK takes it for no URL (or AWS_ENDPOINT_URL, or a proxy's)"
                    )
                ]
            ) from None
        client.meta.events.register("after-call.kms", _wipe_answer)
        endpoint: str = client.meta.endpoint_url
        if problem := endpoint_problem(endpoint):  # of AWS_ENDPOINT_URL or an AWS profile: ours was judged before
            await client.__aexit__(None, None, None)
            raise ConfigurationInvalid([Problem("hsm.connection.endpoint", f"{problem} (see AWS_ENDPOINT_URL)")])
        tls = None
        if is_tls(endpoint):
            tls = await asyncio.to_thread(client_context, options.connection.tls, base)
        transport.aim(endpoint, tls)
        direct = DirectCalls(session, endpoint, client.meta.region_name, transport)
        return cls(options, base, session, client, direct)

    async def encrypt(self, key: str, plaintext: bytes | bytearray, context: Mapping[str, str]) -> Sealed:
        """Encrypt at most MAX_PLAINTEXT_BYTES under `key`, a recorded key, an id, an ARN or an alias."""
        asked = {"KeyId": addressed(key, self.region), "EncryptionContext": dict(context)}
        content = await self._exchange("Encrypt", key, request_body(asked, "Plaintext", plaintext))
        try:
            answer = parsed(content)
            blob = binary(answer, "CiphertextBlob")
        except (ValueError, RecursionError):
            raise malformed("Encrypt", "no ciphertext") from None
        finally:
            wipe(content)
        if not len(plaintext) < len(blob) <= MAX_BLOB_BYTES or _shows(blob, plaintext):
            raise malformed("Encrypt", "no ciphertext")
        return Sealed(self._answered_for(key, answer, "Encrypt"), blob)

    async def decrypt(self, key: str, blob: bytes, context: Mapping[str, str]) -> bytearray:
        """Undo `encrypt`; the caller wipes the result."""
        asked = {"KeyId": addressed(key, self.region), "EncryptionContext": dict(context)}
        try:
            content = await self._exchange("Decrypt", key, request_body(asked, "CiphertextBlob", blob))
        except Denied:
            if not await self._permitted(key, context):
                raise
            # AWS KMS answers the same to a ciphertext that names a key which the caller may not see, or which does not
            # exist. Asked once more, since a grant made a moment ago is not known everywhere at once.
            try:
                content = await self._exchange("Decrypt", key, request_body(asked, "CiphertextBlob", blob))
            except Denied:
                raise foreign_ciphertext(key) from None
        try:
            plaintext, answer = revealed(content)
        except (ValueError, RecursionError):
            raise malformed("Decrypt", "no plaintext") from None
        try:
            if not 0 < len(plaintext) <= MAX_PLAINTEXT_BYTES:
                raise malformed("Decrypt", "no plaintext")
            self._answered_for(key, answer, "Decrypt")
        except ProviderError:
            wipe(plaintext)
            raise
        return plaintext

    async def describe(self, key: str) -> KeyFacts:
        """Ask what and how a key is."""
        answer = await self.call("describe_key", key, KeyId=addressed(key, self.region))
        facts = answer.get("KeyMetadata")
        if not isinstance(facts, dict) or not is_key_arn(facts.get("Arn")):
            raise malformed("DescribeKey", "no key")
        return KeyFacts(
            kek=recorded(facts["Arn"]),
            state=str(facts.get("KeyState")),
            usage=str(facts.get("KeyUsage")),
            spec=str(facts.get("KeySpec") or facts.get("CustomerMasterKeySpec")),
            origin=str(facts.get("Origin")),
            multi_region=facts.get("MultiRegion") is True,
            created_at=_in_utc(facts.get("CreationDate")),
            deletion_at=_in_utc(facts.get("DeletionDate")),
        )

    async def may_decrypt(self, key: str, context: Mapping[str, str] = _DRY_RUN_CONTEXT) -> None:
        """Return when Decrypt with `key` is permitted, decrypting nothing. Raises what Decrypt would.

        Raises InputRefused where the service has no dry run that needs no ciphertext.
        """
        await self._dry_run("decrypt", key, DryRunModifiers=["IGNORE_CIPHERTEXT"], EncryptionContext=context)

    async def may_encrypt(self, key: str) -> None:
        """Return when Encrypt with `key` is permitted. Raises what Encrypt would."""
        await self._dry_run("encrypt", key, Plaintext=bytes(32), EncryptionContext=_DRY_RUN_CONTEXT)

    async def identity(self) -> str:
        """Who the credentials are: an ARN. Needs no permission, but a way to STS."""
        answer = await self.other("sts", "get_caller_identity", self._sts_endpoint())
        return str(answer.get("Arn"))

    async def call(self, operation: str, key: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of KMS by the SDK's name for it; `key` is for messages."""
        asked = Asked(_CAPITALS.get(operation) or _capitals(operation), key, self.region)
        try:
            answer: dict[str, Any] = await getattr(self._client, operation)(**parameters)
        except SDK_ERRORS as error:
            raise _translated(error, asked) from None
        self.proven = True
        return answer

    async def _exchange(self, operation: str, key: str, body: bytes) -> bytes:
        try:
            content = await self._direct.call(operation, body)
        except SDK_ERRORS as error:
            raise _translated(error, Asked(operation, key, self.region)) from None
        self.proven = True
        return content

    async def other(
        self, service: str, operation: str, endpoint: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Call another service with the same credentials."""
        asked = Asked(_capitals(operation), service, self.region)
        try:
            async with self._session.create_client(
                service,
                region_name=self.region,
                endpoint_url=endpoint,
                verify=authorities(self._options, self._base),
                config=quick(self._options),
            ) as client:
                if problem := endpoint_problem(client.meta.endpoint_url):
                    raise ConfigurationInvalid([Problem("hsm.connection", f"endpoint of {service} {problem}")])
                answer: dict[str, Any] = await getattr(client, operation)(**parameters)
        except SDK_ERRORS as error:
            raise _translated(error, asked) from None
        return answer

    async def _permitted(self, key: str, context: Mapping[str, str]) -> bool:
        """Whether the caller may decrypt with `key`, as far as a dry run tells."""
        try:
            await self.may_decrypt(key, context)
        except ProviderError:
            return False  # denied indeed, or nobody can tell
        return True

    async def _dry_run(self, operation: str, key: str, **parameters: Any) -> None:
        asked = Asked(_CAPITALS[operation], key, self.region)
        try:
            await getattr(self._client, operation)(KeyId=addressed(key, self.region), DryRun=True, **parameters)
        except ClientError as error:
            # a service without dry runs gets as far as the ciphertext, which it does once the caller is permitted
            if _code(error) not in (DRY_RUN_SUCCEEDED, "InvalidCiphertextException"):
                raise _translated(error, asked) from None
        except SDK_ERRORS as error:
            raise _translated(error, asked) from None

    def _answered_for(self, key: str, answer: Mapping[str, Any], operation: str) -> str:
        found = answer.get("KeyId")
        if not is_key_arn(found) or answer.get("EncryptionAlgorithm", SYMMETRIC_DEFAULT) != SYMMETRIC_DEFAULT:
            raise malformed(operation, "no key, or another algorithm")
        kek = recorded(str(found))
        if is_key_arn(addressed(key, self.region)) and kek != key:
            raise Tampered(
                f"AWS KMS answered {operation} with another key than {key}: one of request and answer was changed"
            )
        return kek

    def _sts_endpoint(self) -> str | None:
        data = self._options.credentials.data
        return getattr(data, "sts_endpoint", None)


# the last ones are what botocore's parser meets in JSON that has not the shape it trusts in
SDK_ERRORS: Final = (
    ClientError,
    BotoCoreError,
    ResponseParserError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)

_CAPITALS: Final = {"encrypt": "Encrypt", "decrypt": "Decrypt", "describe_key": "DescribeKey"}


def _shows(blob: bytes, plaintext: bytes | bytearray) -> bool:
    return len(plaintext) >= _TELLING_BYTES and plaintext in blob


def _capitals(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _wipe_answer(http_response: Any, **_event: object) -> None:
    """The JSON that a data key came in, once botocore has read it."""
    http_response.raw.wipe()


def _translated(error: Exception, asked: Asked) -> ProviderError:
    """What an exception of the SDK means; ours pass. The SDK's text is not repeated: it may hold secrets."""
    match error:
        case ClientError():
            return refusal(error.response, Asked(error.operation_name, asked.key, asked.region))
        case NoRegionError() | InvalidRegionError():
            return ConfigurationInvalid([Problem("hsm.connection.region", "is required: the region of the key")])
        case NoCredentialsError() | PartialCredentialsError() | ProfileNotFound():
            return CredentialsInvalid(
                "no AWS credentials found (environment, profile, web identity, container, instance): give the sidecar "
                "a role, or set hsm.credentials"
            )
        case CredentialRetrievalError() | MetadataRetrievalError():
            return CredentialsInvalid(
                f"AWS credentials cannot be had just now ({type(error).__name__}): see where the role gets them"
            )
        case ConnectTimeoutError() | EndpointConnectionError() | ReadTimeoutError() | HTTPClientError():
            return Unavailable(
                f"{asked.operation} did not reach AWS ({type(error).__name__}): see the network and endpoints"
            )
        case BotoCoreError():
            return ProviderError(
                f"the AWS SDK failed in {asked.operation} ({type(error).__name__}): see hsm.connection, the profile"
            )
        case _:
            return malformed(asked.operation, f"{type(error).__name__} in reading it")


def _in_utc(at: object) -> datetime | None:
    """The SDK gives times in the zone of the machine: a day would depend on where the sidecar runs."""
    return at.astimezone(UTC) if isinstance(at, datetime) else None
