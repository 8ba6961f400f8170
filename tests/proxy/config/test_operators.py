"""Files in the vocabulary of operators, written for other services, load unchanged; what is not built is named."""

import json
import re
from pathlib import Path

import pytest
import yaml

from proxy.config import load
from tests.house.tree import text
from tests.proxy.service.sidecar import Sidecar, command, folder, initialize

HERE = Path(__file__).parent

UNBUILT = {
    "aws.yaml": [
        "performance.sessionCacheSize",
        "highAvailability.replicas[0].region",
        "highAvailability.replicas[0].roleArn",
        "highAvailability.replicas[1].region",
        "highAvailability.loadBalancing",
        "monitoring.cloudwatch.enabled",
        "monitoring.cloudwatch.namespace",
        "monitoring.alerts[0].metric",
        "monitoring.alerts[0].threshold",
        "monitoring.alerts[0].action",
    ],
    "luna.yaml": [
        "performance.sessionCacheSize",
        "highAvailability.members[0].serial",
        "highAvailability.members[0].hostname",
        "highAvailability.members[1].serial",
        "highAvailability.members[1].hostname",
        "highAvailability.loadBalancing",
        "highAvailability.synchronization.automatic",
        "highAvailability.synchronization.interval",
    ],
}


def lines(name: str) -> list[str]:
    provider = yaml.safe_load((HERE / name).read_text())["hsm"]["provider"]
    return [
        f"hsm.{path}: accepted, but this release does not act on it with provider {provider}" for path in UNBUILT[name]
    ]


@pytest.mark.parametrize("name", UNBUILT)
def test_it_loads_and_each_setting_that_nothing_acts_on_has_a_line(name: str) -> None:
    assert sorted(load(HERE / name).unbuilt()) == sorted(lines(name))


@pytest.mark.parametrize("name", UNBUILT)
def test_config_check_says_the_same(name: str) -> None:
    said = command("config", "check", HERE / name)
    assert said.returncode == 0
    *found, last = said.stdout.decode().splitlines()
    assert last.endswith(": no problems")
    assert sorted(line.removeprefix(f"{HERE / name}: ") for line in found) == sorted(lines(name))
    document = json.loads(command("config", "check", HERE / name, "--json").stdout)
    assert (document["ok"], sorted(document["unbuilt"])) == (True, sorted(lines(name)))


@pytest.mark.parametrize("name", UNBUILT)
def test_the_documentation_shows_it_as_it_is(name: str) -> None:
    shown = "".join(f"    {line}\n" for line in (HERE / name).read_text().splitlines())
    assert shown in text("docs/configuration.md")


def test_the_lines_are_said_at_the_start() -> None:
    with folder() as home:
        section = yaml.safe_load((HERE / "aws.yaml").read_text())["hsm"]
        section["connection"]["endpoint"] = (
            "http://127.0.0.1:1"  # nobody is there, which does not keep it from starting
        )
        section["credentials"]["data"]["stsEndpoint"] = "http://127.0.0.1:1"
        section["performance"]["retryPolicy"]["maxRetries"] = 0
        environ = {
            "AWS_ACCESS_KEY_ID": "AKIAKEYSIDETEST00000",
            "AWS_SECRET_ACCESS_KEY": "not a key that opens anything",
        }
        sidecar = Sidecar(initialize(home, hsm=json.dumps(section)), execute=True, environ=environ)
        try:
            sidecar.until_ready()
            for line in lines("aws.yaml"):
                assert len(re.findall(rf"warning {re.escape(line)}$", sidecar.log, re.MULTILINE)) == 1, sidecar.log
            assert set(lines("aws.yaml")) <= set(sidecar.ask("GET", "/v1/status")[1]["warnings"])
        finally:
            sidecar.close()
