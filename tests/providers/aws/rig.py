"""What tests do to the AWS that they started."""

from __future__ import annotations

import copy
import dataclasses
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers import WrappedKey
from providers.aws import AwsProvider
from providers.registry import create
from tests.providers.rig import Rig
from tests.servers.aws import HOST, ServedAws, secret_files
from tests.servers.mishap import Mishap


class AwsRig(Rig):
    """One key of the server and an alias of its own, reached through a proxy that misbehaves on request."""

    def __init__(self, aws: ServedAws, proxy: Mishap, folder: Path) -> None:
        self.aws = aws
        self.proxy = proxy
        self.folder = folder
        self.alias = f"alias/{uuid.uuid4()}"
        self.key = self.new_key()
        aws.ask("kms", "create_alias", AliasName=self.alias, TargetKeyId=self.key)
        self.data = secret_files(folder, aws.access_key, aws.secret_key)

    def new_key(self, **parameters: Any) -> str:
        """The ARN of a new key."""
        parameters.setdefault("KeyUsage", "ENCRYPT_DECRYPT")  # moto has no default for it
        return str(self.aws.ask("kms", "create_key", **parameters)["KeyMetadata"]["Arn"])

    def hsm(self, **performance: object) -> dict[str, Any]:
        """The section, with this rig's alias and access key files."""
        hsm = copy.deepcopy(self.aws.hsm)
        hsm["kek"] = self.alias
        hsm["connection"]["endpoint"] = f"http://{HOST}:{self.proxy.port}"
        hsm["credentials"]["data"] = dict(self.data)
        hsm["performance"] = {"requestTimeout": 5000, **performance}
        return hsm

    def make(self, **performance: object) -> AwsProvider:
        return self.made_of(self.hsm(**performance))

    def made_of(self, hsm: Mapping[str, object]) -> AwsProvider:
        """A provider of any section."""
        provider = create(hsm, self.folder)
        assert isinstance(provider, AwsProvider)
        return provider

    def secrets(self) -> list[bytes]:
        return [self.aws.secret_key.encode()]

    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        return dataclasses.replace(wrapped, kek=f"{self.key.rpartition('/')[0]}/{uuid.uuid4()}")

    def rotate(self) -> None:
        self.aws.ask("kms", "update_alias", AliasName=self.alias, TargetKeyId=self.new_key())

    def disable(self) -> None:
        self.aws.ask("kms", "disable_key", KeyId=self.key)

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        self.proxy.unplug()
        try:
            yield
        finally:
            self.proxy.normal()

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        secret = Path(self.data["secretAccessKeyFile"])
        away = secret.rename(secret.with_suffix(".away"))
        try:
            yield
        finally:
            away.rename(secret)


def port_of(endpoint: str) -> int:
    """The port in a URL that has one."""
    port = urlsplit(endpoint).port
    assert port is not None
    return port
