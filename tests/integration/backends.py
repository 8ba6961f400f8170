"""Each back end's test server with something between it and the sidecar that can go wrong, and a sidecar on it."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.registry import BUILT
from providers.secrets import SecretSource
from tests.proxy.service.sidecar import Sidecar, command, initialize
from tests.servers import LAUNCHERS, Served, launch
from tests.servers.azure import AzureServed
from tests.servers.mishap import Mishap, mishap

NETWORKED = tuple(name for name in LAUNCHERS if name not in ("LUNA_HSM", "THALES_HSM"))
"""Those that are spoken to by TCP; a token is a library that talks to files."""

TIMEOUT_MILLISECONDS = 1000


@dataclass
class Place:
    """A back end's server, a folder for a sidecar, and the hand on what is between the two."""

    provider: str
    served: Served
    hsm: dict[str, Any]
    home: Path
    mishap: Mishap | None
    _outage: Callable[[], AbstractContextManager[object]]

    @property
    def config(self) -> Path:
        return self.home / "keyside.yaml"

    @contextmanager
    def running(self, *, execute: bool = False) -> Iterator[Sidecar]:
        """A sidecar, ended without mercy. `execute`: as an operator would start it, which takes a second of imports."""
        sidecar = Sidecar(self.config, execute=execute, environ=dict(self.served.environment))
        try:
            yield sidecar.until_ready()
        finally:
            sidecar.close()

    def away(self) -> AbstractContextManager[object]:
        """While it lasts the back end is not there."""
        return self._outage()

    def secrets(self) -> list[bytes]:
        """What must show up nowhere: the credentials, as the back end itself reads them."""
        return [secret for secret in _secrets(self.provider, self.hsm) if len(secret) >= 8]


@contextmanager
def place(provider: str) -> Iterator[Place]:
    """Start the server of `provider`, and make a folder with a configuration and a keystore."""
    with ExitStack() as stack:
        # short names: the path of a Unix socket has at most 107 bytes
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ks")))
        files, home = folder / "server", folder / "k"
        for made in (files, home):
            made.mkdir(mode=0o700)
        served = stack.enter_context(launch(provider, files))
        hsm, between = copy.deepcopy(served.hsm), None
        if provider in NETWORKED:
            between = stack.enter_context(_in_between(hsm))
        if isinstance(served, AzureServed):
            # keys there are named by the vault's URL, which has to be the one that the sidecar knows
            served.do("known_as", url=hsm["connection"]["endpoint"])
            served.reset()
        hsm["performance"] = {"requestTimeout": TIMEOUT_MILLISECONDS, "connectionPoolSize": 4}
        initialize(home, hsm=json.dumps(hsm))
        yield Place(provider, served, hsm, home, between, _outage(served, between))


@contextmanager
def _in_between(hsm: dict[str, Any]) -> Iterator[Mishap]:
    """Put a proxy that misbehaves on request between the back end and whoever reads `hsm`."""
    endpoint = hsm["connection"]["endpoint"]
    port = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").port
    assert port is not None
    with mishap(port) as between:
        hsm["connection"]["endpoint"] = endpoint.replace(f":{port}", f":{between.port}")
        yield between


def _outage(served: Served, between: Mishap | None) -> Callable[[], AbstractContextManager[object]]:
    if between is None:
        unplugged: Callable[[], AbstractContextManager[object]] = served.unplugged  # type: ignore[attr-defined]  # of tokens alone
        return unplugged

    @contextmanager
    def unplug() -> Iterator[None]:
        assert between is not None
        between.unplug()
        try:
            yield
        finally:
            between.normal()

    return unplug


def _secrets(provider: str, hsm: dict[str, Any]) -> Iterator[bytes]:
    options = import_module(BUILT[provider].module).OPTIONS.model_validate(hsm)
    data = getattr(options.credentials, "data", None)
    for _, value in data or ():
        if not isinstance(value, SecretSource):
            continue
        secret = bytes(value.read(Path("/")))
        if not secret.startswith(b"{"):
            yield secret
            continue
        # a service account's file: what it says beside its private key is no secret
        yield from (line for line in json.loads(secret)["private_key"].encode().splitlines() if b"-----" not in line)


def tell_all(config: Path) -> bytes:
    """What every command says that people paste into tickets."""
    said = b""
    for words in (
        ("config", "check", "--json"),
        ("provider", "describe", "--json"),
        ("provider", "check", "--json"),
        ("provider", "check"),
    ):
        done = command(*words, "--config", config)
        said += done.stdout + done.stderr
    return said
