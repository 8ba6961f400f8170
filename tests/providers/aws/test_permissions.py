"""The policies of docs/providers/aws.md, checked by a service that obeys them, and nothing more than them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import DeletesKeys, Denied, HealthStatus, Provider, WrapContext, create
from tests.servers.aws import ServedAws, create_user, secret_files, serve

PAGE = Path(__file__).parents[3] / "docs" / "providers" / "aws.md"
CONTEXT = WrapContext(7, "users", None, "field")

_numbers = itertools.count()


def policy_in_the_page(sid: str) -> dict[str, Any]:
    """The statement of that name. moto judges actions alone and matches no Resource but `*`."""
    statements = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    statement = next(statement for statement in statements if statement.get("Sid") == sid)
    return {**statement, "Resource": "*"}


@pytest.fixture(scope="module")
def policed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAws]:
    with serve(tmp_path_factory.mktemp("policed"), policed=True) as served:
        yield served


def allowed(policed: ServedAws, folder: Path, *statements: dict[str, Any]) -> Provider:
    """A provider for a new user that may do what the statements say."""
    administrator = (policed.access_key, policed.secret_key)
    who = create_user(policed.upstream, administrator, f"user-{next(_numbers)}", statements)
    hsm = {**policed.hsm, "credentials": {"type": "TOKEN", "data": secret_files(folder, *who)}}
    return create(hsm, folder)


def only(*actions: str) -> dict[str, Any]:
    return {"Sid": "Only", "Effect": "Allow", "Action": list(actions), "Resource": "*"}


async def test_the_policy_of_the_page_is_enough_to_serve(policed: ServedAws, tmp_path: Path) -> None:
    provider = allowed(policed, tmp_path, policy_in_the_page("KeysideServes"))
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert (await provider.health_check()).status is HealthStatus.OK
    for probe in provider.probes()[1:]:
        assert await probe.call()
    await provider.close()


async def test_the_policy_of_the_page_allows_nothing_else(policed: ServedAws, tmp_path: Path) -> None:
    provider = allowed(policed, tmp_path, policy_in_the_page("KeysideServes"))
    deleting = provider.capability(DeletesKeys)
    assert deleting is not None
    with pytest.raises(Denied, match="ScheduleKeyDeletion"):
        await deleting.delete_key(policed.ask("kms", "create_key")["KeyMetadata"]["KeyId"])
    await provider.close()


@pytest.mark.parametrize("missing", ["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"])
async def test_each_of_its_actions_is_needed_and_named_when_it_is_missing(
    policed: ServedAws, tmp_path: Path, missing: str
) -> None:
    statement = policy_in_the_page("KeysideServes")
    rest = [action for action in statement["Action"] if action != missing]
    assert len(rest) == 2
    provider = allowed(policed, tmp_path, only(*rest))

    async def serve_once() -> None:
        wrapped = await provider.wrap_key(bytes(32), CONTEXT)
        await provider.unwrap_key(wrapped, CONTEXT)

    with pytest.raises(Denied, match=missing.removeprefix("kms:")):
        await serve_once()
    health = await provider.health_check()
    assert (health.status is HealthStatus.DOWN) is (missing != "kms:Encrypt"), "health is about unwrapping"
    await provider.close()


async def test_a_permission_given_later_is_noticed_without_a_restart(policed: ServedAws, tmp_path: Path) -> None:
    provider = allowed(policed, tmp_path, only("kms:DescribeKey", "kms:Encrypt"))
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    with pytest.raises(Denied):
        await provider.unwrap_key(wrapped, CONTEXT)
    user = policed.ask("iam", "list_users")["Users"][-1]["UserName"]
    more = json.dumps({"Version": "2012-10-17", "Statement": [only("kms:Decrypt")]})
    policed.ask("iam", "put_user_policy", UserName=user, PolicyName="more", PolicyDocument=more)
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    await provider.close()
