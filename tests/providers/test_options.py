"""The operators' vocabulary: what loads unchanged, and every problem at once with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from providers import ConfigurationInvalid, create, options_problems, unbuilt

BASE = Path("/etc/keyside")

VOCABULARY = """
provider: LOCAL
connection: {endpoint: "https://kms.example", region: eu-central-1, partition: app, slot: 1, libraryPath: /usr/lib/x.so}
credentials: {type: SERVICE_PRINCIPAL, data: {clientId: app, clientSecret: hush-hush, port: 8443}}
performance:
  connectionPoolSize: 20
  requestTimeout: 5000
  retryPolicy: {maxRetries: 3, backoffMultiplier: 2}
  sessionCacheSize: 100
highAvailability:
  replicas: [{region: eu-west-1, roleArn: "arn:aws:iam::123456789012:role/keyside"}, {region: eu-north-1}]
  loadBalancing: LEAST_CONNECTIONS
  haGroupName: group
  members: [{serial: 154702010, hostname: hsm-1.example}, {serial: "0154702011"}]
  synchronization: {automatic: true, interval: 60}
monitoring:
  cloudwatch: {enabled: true, namespace: Keyside}
  alerts: [{metric: latency, threshold: 100, action: page}]
"""


def load(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def paths(hsm: dict[str, Any]) -> list[str]:
    return sorted(problem.path for problem in options_problems(hsm, BASE))


def test_a_file_in_the_vocabulary_loads_unchanged() -> None:
    hsm = load(VOCABULARY)
    assert options_problems(hsm, BASE) == []
    description = create(hsm, BASE).describe()
    assert (description.concurrent_calls, description.timeout_seconds) == (20, 5.0)
    assert "hush-hush" not in repr(description)
    assert description.options["credentials"] == {"type": "SERVICE_PRINCIPAL"}


def test_what_is_not_acted_on_is_said_one_line_a_setting() -> None:
    lines = unbuilt(load(VOCABULARY))
    settings = [line.partition(":")[0] for line in lines]
    assert settings == [
        "hsm.connection.endpoint",
        "hsm.connection.region",
        "hsm.connection.partition",
        "hsm.connection.slot",
        "hsm.connection.libraryPath",
        "hsm.credentials.type",
        "hsm.credentials.data",
        "hsm.performance.sessionCacheSize",
        "hsm.highAvailability.replicas[0].region",
        "hsm.highAvailability.replicas[0].roleArn",
        "hsm.highAvailability.replicas[1].region",
        "hsm.highAvailability.loadBalancing",
        "hsm.highAvailability.haGroupName",
        "hsm.highAvailability.members[0].serial",
        "hsm.highAvailability.members[0].hostname",
        "hsm.highAvailability.members[1].serial",
        "hsm.highAvailability.synchronization.automatic",
        "hsm.highAvailability.synchronization.interval",
        "hsm.monitoring.cloudwatch.enabled",
        "hsm.monitoring.cloudwatch.namespace",
        "hsm.monitoring.alerts[0].metric",
        "hsm.monitoring.alerts[0].threshold",
        "hsm.monitoring.alerts[0].action",
    ]
    assert not any("hush" in line for line in lines)
    assert unbuilt({"provider": "LOCAL", "keyFile": "k", "performance": {"requestTimeout": 10}}) == []


def test_all_problems_come_at_once_with_their_paths() -> None:
    hsm = load("""
        provider: LOCAL
        keyFile: root.key
        passphraseEnv: not a name
        keyfile: misspelt
        mechanism: AES-CBC
        retiredKeyFiles: [old.key, 7, {}]
        performance: {requestTimeout: "5000", connectionPoolSize: 0, retryPolicy: {maxRetries: true}}
        credentials: {type: PASSWORD, data: hush-hush}
        highAvailability: {members: [{hostname: a}], loadBalancing: RANDOM}
    """)
    assert paths(hsm) == [
        "hsm",
        "hsm",
        "hsm.credentials.type",
        "hsm.highAvailability.loadBalancing",
        "hsm.highAvailability.members[0].serial",
        "hsm.keyfile",
        "hsm.mechanism",
        "hsm.passphraseEnv",
        "hsm.performance.connectionPoolSize",
        "hsm.performance.requestTimeout",
        "hsm.performance.retryPolicy.maxRetries",
        "hsm.retiredKeyFiles[2]",
    ]
    with pytest.raises(ConfigurationInvalid) as refusal:
        create(hsm, BASE)
    assert sorted(problem.path for problem in refusal.value.problems) == paths(hsm)
    assert all(problem.path in str(refusal.value) for problem in refusal.value.problems)
    assert "hush" not in str(refusal.value)
    assert "hush" not in repr(refusal.value.__context__)


@pytest.mark.parametrize(
    ("hsm", "says"),
    [
        ({"keyFile": "a", "systemdCredential": "b"}, "keyFile and systemdCredential exclude each other"),
        ({"passphraseFile": "a"}, "passphraseFile needs passphraseKeyFile"),
        ({"passphraseKeyFile": "a"}, "passphraseKeyFile needs one of"),
        ({"systemdCredential": "../shadow"}, "not a path"),
        ({"systemdCredential": ".."}, "not a path"),
        ({"passphraseEnv": "$SECRET", "passphraseKeyFile": "a"}, "not its value"),
        ({"keyFile": ""}, "at least 1 character"),
        ({"performance": {"retryPolicy": {"backoffMultiplier": 0.5}}}, "greater than or equal to 1"),
        ({"performance": 5}, "dictionary"),
    ],
    ids=str,
)
def test_contradictions_say_what_to_do(hsm: dict[str, Any], says: str) -> None:
    problems = options_problems({"provider": "LOCAL", **hsm}, BASE)
    assert len(problems) == 1
    assert says in problems[0].message


def test_sections_left_empty_mean_the_defaults() -> None:
    hsm = load("provider: LOCAL\nconnection:\ncredentials:\nperformance:\n  retryPolicy:\nkeyFile:\nretiredKeyFiles:\n")
    assert options_problems(hsm, BASE) == []
    assert unbuilt(hsm) == []
