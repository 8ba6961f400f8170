"""Making, importing, deleting keys and signing with them, on MiniStack, which knows key states, import and replicas."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from providers import (
    ForeignWrap,
    InputRefused,
    KeyDisabled,
    KeySpecification,
    NotFound,
    ProviderError,
    Signature,
    Tampered,
    WrapContext,
    create,
)
from providers.aws import AwsProvider
from tests.providers.aws.rig import AwsRig
from tests.providers.aws.scripted import answer, error, scripted
from tests.servers.aws import ServedAws

CONTEXT = WrapContext(7, "users", "42", "field")
ALICE = "arn:aws:iam::000000000000:user/alice"
BOB = "arn:aws:iam::000000000000:role/bob"


@pytest_asyncio.fixture
async def provider(
    ministack_rig: AwsRig, ministack: ServedAws, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AwsProvider]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.endpoint)  # STS and CloudTrail are there too
    provider = ministack_rig.make()
    await provider.initialize()
    yield provider
    await provider.close()


def label() -> str:
    return f"test/{uuid.uuid4()}"


async def test_a_generated_key_wraps_under_its_alias(provider: AwsProvider, ministack_rig: AwsRig) -> None:
    specification = KeySpecification(label(), "wrap", "AES-256", tags={"team": "blue"})
    made = await provider.generate_key(specification)
    ministack_rig.alias = f"alias/{specification.label}"
    other = ministack_rig.make()
    wrapped = await other.wrap_key(bytes(32), CONTEXT)
    assert wrapped.kek == made.key == other.describe().kek
    tags = ministack_rig.aws.ask("kms", "list_resource_tags", KeyId=made.key)["Tags"]
    assert {tag["TagKey"]: tag["TagValue"] for tag in tags} == {"keyside:label": specification.label, "team": "blue"}
    await other.close()


def policy_of(aws: ServedAws, key: str) -> dict[str, dict[str, Any]]:
    policy = json.loads(aws.ask("kms", "get_key_policy", KeyId=key, PolicyName="default")["Policy"])
    return {statement["Sid"]: statement for statement in policy["Statement"]}


async def test_its_policy_separates_administrators_from_users(provider: AwsProvider, ministack: ServedAws) -> None:
    specification = KeySpecification(label(), "wrap", "AES-256", administrators=(ALICE,), users=(BOB,))
    statements = policy_of(ministack, (await provider.generate_key(specification)).key)
    assert statements.keys() == {"Administration", "Use"}
    assert statements["Administration"]["Principal"] == {"AWS": [ALICE]}
    assert statements["Use"]["Principal"] == {"AWS": [BOB]}
    assert set(statements["Use"]["Action"]) == {"kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"}
    administration = set(statements["Administration"]["Action"])
    assert "kms:PutKeyPolicy" in administration
    assert not {"kms:*", "kms:Decrypt", "kms:Encrypt", "kms:CreateGrant", "kms:ReEncrypt*"} & administration
    assert all("*" not in action for action in administration)


async def test_nobody_named_is_the_caller(provider: AwsProvider, ministack: ServedAws) -> None:
    caller = ministack.ask("sts", "get_caller_identity")["Arn"]
    made = await provider.generate_key(KeySpecification(label(), "wrap", "AES-256"))
    assert {json.dumps(s["Principal"]) for s in policy_of(ministack, made.key).values()} == {
        json.dumps({"AWS": [caller]})
    }


async def test_the_lockout_check_of_the_service_stays_on(tmp_path: Any) -> None:
    async with scripted() as service:
        service.replies["CreateKey"] = error("MalformedPolicyDocumentException")
        provider = create(service.hsm(), tmp_path)
        assert isinstance(provider, AwsProvider)
        await provider.initialize()
        assert provider._kms is not None
        provider._kms.identity = _alice  # type: ignore[method-assign]  # instead of STS
        with pytest.raises(InputRefused, match="whoever makes the key among the administrators"):
            await provider.generate_key(KeySpecification("x", "wrap", "AES-256", administrators=(BOB,)))
        asked = next(body for operation, body in service.asked if operation == "createkey")
        assert "BypassPolicyLockoutSafetyCheck" not in asked
        await provider.close()


async def _alice() -> str:
    return "arn:aws:sts::111122223333:assumed-role/alice/session"


async def test_a_lost_answer_makes_no_second_key(tmp_path: Any) -> None:
    async with scripted() as service:
        service.replies["CreateKey"] = error("KMSInternalException", status=500)
        provider = create(service.hsm(retryPolicy={"maxRetries": 3}), tmp_path)
        assert isinstance(provider, AwsProvider)
        await provider.initialize()
        assert provider._kms is not None
        provider._kms.identity = _alice  # type: ignore[method-assign]  # instead of STS
        with pytest.raises(ProviderError, match="keyside:label=lost") as refusal:
            await provider.generate_key(KeySpecification("lost", "wrap", "AES-256"))
        assert not refusal.value.retryable
        created = [body for operation, body in service.asked if operation == "createkey"]
        assert len(created) == 1
        role = "arn:aws:iam::111122223333:role/alice"  # not the session, which ends
        assert [s["Principal"] for s in json.loads(created[0]["Policy"])["Statement"]] == [{"AWS": [role]}] * 2
        await provider.close()


@pytest.mark.parametrize(
    ("use", "algorithm", "name"),
    [("sign", "ML-DSA-65", "x"), ("wrap", "RSA-4096", "x"), ("wrap", "AES-256", "aws/mine"), ("wrap", "AES-256", "")],
)
async def test_what_it_does_not_make_is_refused(provider: AwsProvider, use: Any, algorithm: str, name: str) -> None:
    with pytest.raises(InputRefused):
        await provider.generate_key(KeySpecification(name, use, algorithm))


async def test_signatures_verify_by_an_independent_implementation(provider: AwsProvider, ministack: ServedAws) -> None:
    made = await provider.generate_key(KeySpecification(label(), "sign", "EC-P256"))
    data = b"d" * 10_000
    signature = await provider.sign(data, key=made.key)
    public = load_der_public_key(ministack.ask("kms", "get_public_key", KeyId=made.key)["PublicKey"])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature.blob, data, ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(signature.blob, data + b"x", ec.ECDSA(SHA256()))
    await provider.verify(data, signature)
    with pytest.raises(Tampered):
        await provider.verify(data + b"x", signature)
    with pytest.raises(ForeignWrap):
        await provider.verify(data, Signature(signature.key, "RSA", signature.blob))
    with pytest.raises(NotFound):
        await provider.sign(data, key="no such key")
    with pytest.raises(InputRefused):
        await provider.sign(data, key=str(provider.describe().kek))


async def test_imported_material_is_the_keys(provider: AwsProvider, ministack_rig: AwsRig) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    material = bytearray(private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    made = await provider.import_key(KeySpecification(label(), "sign", "EC-P256"), material)
    assert material == bytes(len(material)), "wiped"
    signature = await provider.sign(b"data", key=made.key)
    private.public_key().verify(signature.blob, b"data", ec.ECDSA(SHA256()))
    assert ministack_rig.aws.ask("kms", "describe_key", KeyId=made.key)["KeyMetadata"]["Origin"] == "EXTERNAL"


async def test_an_imported_key_wraps(provider: AwsProvider, ministack_rig: AwsRig) -> None:
    material = bytearray(range(32))
    specification = KeySpecification(label(), "wrap", "AES-256")
    made = await provider.import_key(specification, material)
    assert material == bytes(32)
    ministack_rig.alias = f"alias/{specification.label}"
    other = ministack_rig.make()
    wrapped = await other.wrap_key(bytes(range(1, 33)), CONTEXT)
    assert wrapped.kek == made.key
    assert await other.unwrap_key(wrapped, CONTEXT) == bytes(range(1, 33))
    info = await other.get_compliance_info()
    assert info.extractable, "somebody has a copy"
    await other.close()


async def test_material_of_another_length_is_refused_and_wiped(provider: AwsProvider) -> None:
    material = bytearray(b"k" * 31)
    with pytest.raises(InputRefused, match="32 bytes"):
        await provider.import_key(KeySpecification(label(), "wrap", "AES-256"), material)
    assert material == bytes(31)


async def test_deletion_is_scheduled_and_seen(provider: AwsProvider, ministack_rig: AwsRig) -> None:
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    for name in (ministack_rig.alias, wrapped.kek):
        with pytest.raises(InputRefused, match="is configured"):
            await provider.delete_key(name)
    ministack_rig.rotate()
    deleting = ministack_rig.made_of({**ministack_rig.hsm(), "deletionWindow": 9})
    await deleting.delete_key(wrapped.kek)
    await deleting.close()
    facts = ministack_rig.aws.ask("kms", "describe_key", KeyId=wrapped.kek)["KeyMetadata"]
    assert facts["KeyState"] == "PendingDeletion"
    assert timedelta(days=8) < facts["DeletionDate"] - datetime.now(UTC) <= timedelta(days=9)
    with pytest.raises(KeyDisabled):
        await provider.unwrap_key(wrapped, CONTEXT)
    pinned = ministack_rig.made_of({**ministack_rig.hsm(), "kek": wrapped.kek})
    assert "cancel the deletion" in (await pinned.health_check()).detail
    await pinned.close()
    with pytest.raises(NotFound):
        await provider.delete_key("alias/nobody")


async def test_a_wrap_of_a_multi_region_key_unwraps_with_its_replica(
    provider: AwsProvider, ministack_rig: AwsRig
) -> None:
    specification = KeySpecification(label(), "wrap", "AES-256", multi_region=True)
    made = await provider.generate_key(specification)
    assert made.key.startswith("arn:aws:kms:*:000000000000:key/mrk-")
    hsm = {**ministack_rig.hsm(), "kek": f"alias/{specification.label}"}
    here = ministack_rig.made_of(hsm)
    wrapped = await here.wrap_key(bytes(range(32)), CONTEXT)
    assert wrapped.kek == made.key == here.describe().kek
    key_id = made.key.rpartition("/")[2]
    ministack_rig.aws.ask("kms", "replicate_key", KeyId=key_id, ReplicaRegion="us-east-1")
    hsm["connection"] = {**hsm["connection"], "region": "us-east-1"}
    there = ministack_rig.made_of({**hsm, "kek": key_id})
    assert await there.unwrap_key(wrapped, CONTEXT) == bytes(range(32))
    assert (await there.wrap_key(bytes(32), CONTEXT)).kek == wrapped.kek
    assert "multi-Region" in " ".join((await there.get_compliance_info()).notes)
    await here.close()
    await there.close()


async def test_audit_logs_are_cloudtrails(provider: AwsProvider) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    await provider.unwrap_key(wrapped, CONTEXT)
    records = await provider.get_audit_logs(since, datetime.now(UTC) + timedelta(minutes=1))
    assert {record.source for record in records} <= {"service"}


async def test_audit_logs_are_our_own_where_cloudtrail_may_not_be_read(
    provider: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted() as service:
        service.replies["LookupEvents"] = error("AccessDeniedException")
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDTRAIL", f"http://127.0.0.1:{service.port}")
        since = datetime.now(UTC) - timedelta(minutes=1)
        await provider.wrap_key(bytes(32), CONTEXT)
        records = await provider.get_audit_logs(since, datetime.now(UTC))
    assert {record.source for record in records} == {"sidecar"}
    assert "wrap_key" in {record.operation for record in records}


async def test_cloudtrails_events_are_read_page_by_page(provider: AwsProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "userIdentity": {"arn": ALICE},
        "requestParameters": {"encryptionContext": CONTEXT.as_strings()},
        "errorCode": "AccessDenied",
        "sourceIPAddress": "192.0.2.1",
    }
    pages = {
        None: {
            "Events": [{"EventName": "Decrypt", "EventTime": 2, "CloudTrailEvent": json.dumps(said)}],
            "NextToken": "n",
        },
        "n": {"Events": [{"EventName": "Encrypt", "EventTime": 1, "Username": "bob", "CloudTrailEvent": "{"}]},
    }
    async with scripted() as service:
        service.replies["LookupEvents"] = lambda asked: answer(pages[asked.get("NextToken")])
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDTRAIL", f"http://127.0.0.1:{service.port}")
        first, second = await provider.get_audit_logs(datetime.fromtimestamp(0, UTC), datetime.now(UTC))
        asked = [body for _operation, body in service.asked]
    assert (first.operation, first.caller, first.succeeded) == ("Encrypt", "bob", True)
    assert (second.operation, second.caller, second.succeeded) == ("Decrypt", ALICE, False)
    assert second.details["keyside:keyring"] == "users"
    assert asked[0]["LookupAttributes"] == [{"AttributeKey": "ResourceName", "AttributeValue": provider.describe().kek}]


async def test_compliance_information(provider: AwsProvider, ministack_rig: AwsRig) -> None:
    info = await provider.get_compliance_info()
    assert (info.extractable, info.key_storage) == (False, "AWS KMS, eu-west-1")
    assert "automatic rotation is off" in info.notes
    ministack_rig.aws.ask("kms", "enable_key_rotation", KeyId=ministack_rig.key)
    assert any("rotated every" in note for note in (await provider.get_compliance_info()).notes)
