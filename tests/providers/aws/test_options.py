"""What the section may say, and how keys are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers import create, options_problems, unbuilt
from providers.aws.custody import principal
from providers.aws.names import addressed, is_identifier, is_key_arn, recorded, region_of

BASE = Path("/etc/keyside")
ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
MRK = "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"


def problems(**settings: Any) -> dict[str, str]:
    return dict(options_problems({"provider": "AWS_KMS", **settings}, BASE))


def test_the_smallest_section_is_good() -> None:
    assert problems() == {}
    assert problems(connection={"region": "eu-west-1"}, credentials={"type": "IAM_ROLE"}) == {}


@pytest.mark.parametrize("kind", ["SERVICE_PRINCIPAL", "CERTIFICATE"])
def test_credentials_that_aws_does_not_have_are_said(kind: str) -> None:
    found = problems(credentials={"type": kind, "data": {"anything": "at all"}})
    assert list(found) == ["hsm.credentials"]
    assert "use IAM_ROLE or TOKEN" in found["hsm.credentials"]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"kek": "keyside"}, "hsm.kek"),
        ({"kek": "alias/"}, "hsm.kek"),
        ({"kek": "arn:aws:kms:*:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"}, "hsm.kek"),
        ({"kek": ARN, "connection": {"region": "eu-west-2"}}, "hsm.kek"),
        ({"connection": {"endpoint": "http://kms.example.com"}}, "hsm.connection.endpoint"),
        ({"connection": {"endpoint": "https://user@kms.example.com"}}, "hsm.connection.endpoint"),
        ({"connection": {"endpoint": "https://kms.example.com/path"}}, "hsm.connection.endpoint"),
        ({"connection": {"endpoint": "kms.example.com"}}, "hsm.connection.endpoint"),
        ({"connection": {"endpoint": "https://[::1"}}, "hsm.connection.endpoint"),
        ({"connection": {"endpoint": "https://kms.example.com"}, "useFipsEndpoint": True}, "hsm.useFipsEndpoint"),
        ({"deletionWindow": 6}, "hsm.deletionWindow"),
        ({"deletionWindow": 31}, "hsm.deletionWindow"),
        ({"credentials": {"type": "TOKEN"}}, "hsm.credentials.data"),
        ({"credentials": {"type": "TOKEN", "data": {"accessKeyId": "a"}}}, "hsm.credentials.data.secretAccessKey"),
        ({"credentials": {"type": "IAM_ROLE", "data": {"roleArn": "admin"}}}, "hsm.credentials.data.roleArn"),
        ({"credentials": {"type": "IAM_ROLE", "data": {"duration": 60}}}, "hsm.credentials.data.duration"),
        ({"credentials": {"type": "IAM_ROLE", "data": {"webIdentityTokenFile": "t"}}}, "hsm.credentials.data"),
        (
            {"credentials": {"type": "IAM_ROLE", "data": {"stsEndpoint": "http://sts.example.com"}}},
            "hsm.credentials.data.stsEndpoint",
        ),
        ({"keyFile": "data/root.key"}, "hsm.keyFile"),
    ],
)
def test_what_cannot_work_is_a_problem_with_its_path(settings: dict[str, Any], path: str) -> None:
    assert list(problems(**settings)) == [path]


def test_a_secret_given_by_mistake_is_not_repeated() -> None:
    found = problems(credentials={"type": "TOKEN", "data": {"accessKeyId": "AKIA", "secretAccessKye": "hunter2"}})
    assert found
    assert "hunter2" not in str(found)


def test_the_description_shows_no_credentials() -> None:
    data = {"accessKeyId": "AKIASHOWN", "secretAccessKey": "hunter2"}
    described = create({"provider": "AWS_KMS", "credentials": {"type": "TOKEN", "data": data}}, BASE).describe()
    assert described.options["credentials"] == {"type": "TOKEN"}
    assert "hunter2" not in repr(described)


def test_an_operators_file_loads_and_what_it_does_not_do_is_named() -> None:
    hsm = {
        "provider": "AWS_KMS",
        "connection": {"region": "eu-west-1", "partition": "aws"},
        "credentials": {"type": "IAM_ROLE", "data": {"roleArn": "arn:aws:iam::111122223333:role/keyside"}},
        "highAvailability": {"replicas": [{"region": "eu-central-1"}], "loadBalancing": "FAILOVER"},
        "monitoring": {"cloudwatch": {"enabled": True}},
    }
    assert options_problems(hsm, BASE) == []
    assert [line.partition(":")[0] for line in unbuilt(hsm)] == [
        "hsm.connection.partition",
        "hsm.highAvailability.replicas[0].region",
        "hsm.highAvailability.loadBalancing",
        "hsm.monitoring.cloudwatch.enabled",
    ]


@pytest.mark.parametrize(
    "name", [ARN, MRK, "alias/keyside", "alias/a/b_c-D", ARN.rpartition("/")[2], MRK.rpartition("/")[2]]
)
def test_identifiers(name: str) -> None:
    assert is_identifier(name)


@pytest.mark.parametrize(
    "name",
    ["", "keyside", "alias/", "alias/ä", "alias/a b", ARN + "x", ARN + "\n", "arn:aws:s3:::bucket", "key/" + ARN[-36:]],
)
def test_no_identifiers(name: str) -> None:
    assert not is_identifier(name)


def test_a_wrap_records_the_arn_and_of_a_multi_region_key_no_region() -> None:
    assert recorded(ARN) == addressed(ARN, "us-east-1") == ARN
    assert recorded(MRK) == MRK.replace("cn-north-1", "*")
    assert addressed(recorded(MRK), "cn-northwest-1") == MRK.replace("cn-north-1", "cn-northwest-1")
    assert (region_of(ARN), region_of(MRK), region_of("alias/x")) == ("eu-west-1", None, None)
    assert is_key_arn(ARN)
    assert not is_key_arn("arn:aws:kms:eu-west-1:111122223333:alias/x")
    assert not is_key_arn(recorded(MRK))


def test_a_policy_names_the_role_of_a_session() -> None:
    assert principal("arn:aws-cn:sts::1:assumed-role/name/session") == "arn:aws-cn:iam::1:role/name"
    assert principal("arn:aws:iam::1:user/path/name") == "arn:aws:iam::1:user/path/name"
